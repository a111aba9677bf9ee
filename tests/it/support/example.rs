//! A Rust program of `examples/` as a process of its own.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, SystemTime},
};

use super::{
    directory::Directory,
    process::signal,
    repository,
    wait::{DEADLINE, until},
};

/// A running example on a free port, killed on drop. A failed test shows its output.
pub struct Example {
    pub addr: SocketAddr,
    child: Child,
    directory: Directory,
}

impl Example {
    /// Starts the example and waits until it prints its address.
    pub async fn start(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let directory = Directory::new(name);
        let output = |stream| File::create(directory.path().join(stream));
        let child = Command::new(program(name))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output("stdout").expect("the temporary directory takes files"))
            .stderr(output("stderr").expect("the temporary directory takes files"))
            .spawn()
            .expect("just seen to be there");
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut example = Self { addr, child, directory };
        until(DEADLINE, "the example prints its address", async || {
            let exit = example.child.try_wait().expect("it is our child");
            assert!(exit.is_none(), "it ended: {exit:?}");
            example.printed_address().is_some()
        })
        .await;
        example.addr = example.printed_address().expect("just seen");
        example
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        signal(self.child.id(), "TERM");
    }

    /// Waits for the exit after SIGTERM.
    pub async fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let mut status = None;
        until(deadline, "the example ends", async || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        })
        .await;
        status.expect("just seen")
    }

    fn printed_address(&self) -> Option<SocketAddr> {
        let printed = self.directory.read("stdout");
        let (_, rest) = printed.split_once("http://")?;
        rest.split_once('/')?.0.parse().ok()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = ["stdout", "stderr"].map(|stream| self.directory.read(stream));
            eprintln!("--- the example said:\n{}---", said.concat());
        }
    }
}

/// The program, built by `cargo test` with all targets. It must not be older than its source.
fn program(name: &str) -> PathBuf {
    let binaries = Path::new(env!("CARGO_BIN_EXE_fanfare")).parent().expect("it is in a directory");
    let program = binaries.join("examples").join(name);
    let built = changed(&program);
    let is_current = built.is_some() && sources(name).iter().all(|source| changed(source) <= built);
    assert!(is_current, "first: cargo build --all-features --example {name}");
    program
}

/// The example's `.rs` and `.html`, or all files of its directory.
fn sources(name: &str) -> Vec<PathBuf> {
    let path = repository().join("examples").join(name);
    match fs::read_dir(&path) {
        Ok(files) => files.map(|file| file.expect("it can be read").path()).collect(),
        Err(_) => ["rs", "html"].map(|extension| path.with_extension(extension)).into(),
    }
}

/// `None` if the file does not exist.
fn changed(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|file| file.modified()).ok()
}
