//! Where the repository is.

use std::path::Path;

/// Its root. The tests belong to `crates/cli`, since they start the command.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
