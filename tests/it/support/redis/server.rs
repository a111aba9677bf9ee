//! One `redis-server` with its own port and directory.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::{Options, REDIS_DEADLINE, options::LOG_FILE};
use crate::support::{
    directory::Directory,
    ports::free_port,
    process::{Process, signal},
    until,
};

/// Timeout of `redis-cli` for an answer.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// Timeout for the answer to a `PING`.
const PING_DEADLINE: Duration = Duration::from_millis(500);

/// Log lines shown by a failed test.
const SHOWN_LINES: usize = 30;

/// A running server; dropping it kills it. A failed test shows the end of its log.
pub struct RedisServer {
    port: u16,
    options: Options,
    directory: Directory,
    /// `None` after a kill.
    process: Option<Process>,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub async fn start(options: Options) -> Self {
        let port = free_port();
        let directory = Directory::new("redis");
        let mut server = Self { port, options, directory, process: None };
        server.restart().await;
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").pid()
    }

    /// The URL for `--redis`.
    pub fn url(&self) -> String {
        let scheme = if self.options.certificates.is_some() { "rediss" } else { "redis" };
        let password = self.options.password.as_ref();
        let login = password.map(|password| format!(":{}@", percent_encoded(password)));
        format!("{scheme}://{}{}", login.unwrap_or_default(), self.addr())
    }

    /// Sends SIGKILL and waits for the exit.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Whether it was not killed.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Restarts it after a kill, with the data in its directory.
    pub async fn restart(&mut self) {
        self.kill();
        let arguments = self.options.arguments(self.port, self.directory.path());
        self.process = Some(Process::start("redis-server", &arguments));
        self.until_answering().await;
    }

    /// Restarts it after a kill, without its data.
    pub async fn restart_empty(&mut self) {
        self.kill();
        self.directory.empty();
        self.restart().await;
    }

    /// SIGSTOP: its connections stay open, without answers.
    pub fn stop(&self) {
        signal(self.pid(), "STOP");
    }

    /// SIGCONT.
    pub fn cont(&self) {
        signal(self.pid(), "CONT");
    }

    /// Output of `redis-cli` for a command, without the last line end.
    ///
    /// # Panics
    /// The server refuses the command, or does not answer.
    pub async fn command(&self, words: &[&str]) -> String {
        let printed = self.ask(words, COMMAND_DEADLINE).await;
        printed.unwrap_or_else(|printed| panic!("redis-cli {words:?}: {printed}"))
    }

    /// The lines of an answer.
    pub async fn lines(&self, words: &[&str]) -> Vec<String> {
        let printed = self.command(words).await;
        printed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// A field of an answer of `field:value` lines, like `INFO`. `None` also without an answer: a
    /// server changing its role closes all connections.
    pub async fn field(&self, words: &[&str], name: &str) -> Option<String> {
        let printed = self.ask(words, COMMAND_DEADLINE).await.ok()?;
        printed.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            (field == name).then(|| value.trim().to_owned())
        })
    }

    async fn ask(&self, words: &[&str], deadline: Duration) -> Result<String, String> {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]);
        if let Some(password) = &self.options.password {
            command.args(["-a", password, "--no-auth-warning"]);
        }
        if let Some(files) = &self.options.certificates {
            command.arg("--tls").arg("--cacert").arg(&files.authority);
        }
        // With this flag, an error is an exit code, not only text.
        command.arg("-e").args(words).stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(deadline, command.output()).await;
        let output = output.map_err(|_| "no answer".to_owned())?.expect("redis-cli is there");
        let printed = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(printed) } else { Err(format!("{printed}{complaint}")) }
    }

    /// Whether it answers a `PING`.
    pub async fn is_answering(&self) -> bool {
        self.ask(&["PING"], PING_DEADLINE).await.is_ok_and(|answer| answer == "PONG")
    }

    async fn until_answering(&mut self) {
        until(REDIS_DEADLINE, "Redis answers", async || {
            let is_running = self.process.as_mut().is_some_and(Process::is_running);
            assert!(is_running, "Redis ended: {}", self.log());
            self.is_answering().await
        })
        .await;
    }

    /// The end of its log.
    fn log(&self) -> String {
        let log = self.directory.read(LOG_FILE);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

/// A password, encoded for a URL.
fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.process = None;
        if std::thread::panicking() {
            eprintln!("--- Redis at {} logged:\n{}\n---", self.port, self.log());
        }
    }
}
