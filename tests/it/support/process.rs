//! A program running beside a test: killed on drop, its log shown if the test fails.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A running process.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a program installed by `scripts/test`.
    pub fn start(program: &str, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("{program}: {error}; scripts/test installs it")))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("it is our child").is_none()
    }

    /// Sends SIGTERM and waits for the exit: for a program with children to end.
    pub fn terminate(&mut self) {
        if self.is_running() {
            signal(self.pid(), "TERM");
            let _ = self.0.wait();
        }
    }

    /// Sends SIGKILL and waits for the exit.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal by its name without `SIG`.
pub fn signal(pid: u32, name: &str) {
    let script = format!("kill -{name} {pid}");
    let status = Command::new("sh").args(["-c", &script]).status().expect("there is a shell");
    assert!(status.success(), "{script}");
}

/// CPU time of a process, summed over its threads.
pub fn cpu_time(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let nanos = tasks.filter_map(|task| {
        // A thread may end in the meantime.
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
