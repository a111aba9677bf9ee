//! Faults of the disk below the hub: a library preloaded into its process, switched by files.

use std::{fs, path::PathBuf, process::Command, sync::OnceLock};

use super::{Launch, directory::Directory, repository};

/// The faults of one server.
pub struct DiskFaults {
    directory: Directory,
}

/// The preloaded library, compiled once.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let name = format!("disk-faults-{}.so", std::process::id());
        let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let source = repository().join("tests/it/support/disk_faults.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(&library).arg(source);
        assert!(compiler.arg("-ldl").status().expect("cc starts").success());
        library
    })
}

impl DiskFaults {
    /// No faults yet.
    pub fn new(name: &str) -> Self {
        Self { directory: Directory::new(&format!("{name}-faults")) }
    }

    /// The server gets the faults.
    pub fn launch(&self, launch: Launch) -> Launch {
        let mut launch = launch;
        let faults = self.directory.path().display().to_string();
        let library = library().display().to_string();
        launch.environment.push(("FANFARE_FAULTS".to_owned(), faults));
        launch.environment.push(("LD_PRELOAD".to_owned(), library));
        launch
    }

    /// Switches a fault on.
    pub fn begin(&self, fault: &str) {
        self.directory.write(fault, "");
    }

    pub fn end(&self, fault: &str) {
        fs::remove_file(self.directory.path().join(fault)).expect("the fault was on");
    }

    /// The number of failed syncs.
    pub fn failed_syncs(&self) -> usize {
        let calls = self.directory.path().join("sync-calls");
        fs::read_to_string(calls).map_or(0, |calls| calls.lines().count())
    }
}
