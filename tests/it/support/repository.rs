//! The repository's path.

use std::path::Path;

/// The root of the repository. The tests belong to `crates/cli`, since they start the command.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
