//! A walk through a page: a script of `tests/js` drives a headless browser and reports its findings
//! as lines of JSON. The test answers with a line when the script is to continue.

use std::{net::SocketAddr, path::PathBuf, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::BROWSER_DEADLINE;
use crate::support::repository;

/// Folder for the screenshots of walks, below the repository.
const SCREENSHOTS: &str = "tests/artifacts";

/// A running script; dropping it kills it.
pub struct Walk {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Walk {
    /// Starts `tests/js/<name>.mjs` on the pages of this server.
    pub fn start(name: &str, addr: SocketAddr, options: &[(&str, &str)]) -> Self {
        let mut command = Command::new("node");
        command
            .arg(repository().join(format!("tests/js/{name}.mjs")))
            .args(["--url", &format!("http://{addr}"), "--timeout", "80", "--screenshots"])
            .arg(repository().join(SCREENSHOTS))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        for (option, value) in options {
            command.arg(option).arg(value);
        }
        let mut child = command.spawn().expect("there is node: scripts/test installs it");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, input, output }
    }

    /// The script's next report.
    pub async fn next(&mut self) -> Value {
        let line =
            timeout(BROWSER_DEADLINE, self.output.next_line()).await.expect("a line in time");
        let line = line.expect("readable").expect("a line; the failure is on its stderr, above");
        serde_json::from_str(&line).expect("lines are JSON")
    }

    /// Sends the script a line, so it continues.
    pub async fn tell(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.input.write_all(line.as_bytes()).await.expect("the script listens");
    }

    /// Waits for the last report and the exit, then checks these screenshots exist.
    pub async fn finish(mut self, screenshots: &[&str]) {
        assert_eq!(self.next().await["ok"], true);
        let exit = timeout(BROWSER_DEADLINE, self.child.wait()).await.expect("it ends");
        assert!(exit.expect("it ran").success());
        for file in screenshots {
            let path = PathBuf::from(SCREENSHOTS).join(file);
            assert!(repository().join(&path).is_file(), "{}", path.display());
        }
    }
}
