//! A temporary directory for a test.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Numbers the directories of this test process.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Empty at first, and removed with its contents on drop.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{number}", std::process::id());
        let directory = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        directory.empty();
        directory
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Removes its contents.
    pub fn empty(&self) {
        // The directory may not exist yet.
        let _ = fs::remove_dir_all(&self.0);
        fs::create_dir_all(&self.0).expect("the temporary directory takes directories");
    }

    /// Writes a file. Returns its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("the temporary directory takes files");
        path
    }

    /// A file's text; empty if the file does not exist.
    pub fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.0.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
