//! One `redis-server` on a port and in a directory of its own.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::{Options, REDIS_DEADLINE, options::LOG_FILE};
use crate::support::{
    directory::Directory,
    ports::free_port,
    process::{Process, signal},
    until,
};

/// How long `redis-cli` waits for a server that does not answer.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// How long it waits for one that is asked whether it is there.
const PING_DEADLINE: Duration = Duration::from_millis(500);

/// Lines of its log that a failed test shows.
const SHOWN_LINES: usize = 30;

/// A running server; dropping it kills it. If the test fails, the end of its log is shown.
pub struct RedisServer {
    port: u16,
    options: Options,
    directory: Directory,
    /// None once it was killed.
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

    /// As `--redis` takes it.
    pub fn url(&self) -> String {
        let scheme = if self.options.certificates.is_some() { "rediss" } else { "redis" };
        let password = self.options.password.as_ref();
        let login = password.map(|password| format!(":{}@", percent_encoded(password)));
        format!("{scheme}://{}{}", login.unwrap_or_default(), self.addr())
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Whether it was not killed.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Starts it again, once it is gone, with what its directory holds.
    pub async fn restart(&mut self) {
        self.kill();
        let arguments = self.options.arguments(self.port, self.directory.path());
        self.process = Some(Process::start("redis-server", &arguments));
        self.until_answering().await;
    }

    /// Starts it again, once it is gone, with nothing of what it knew.
    pub async fn restart_empty(&mut self) {
        self.kill();
        self.directory.empty();
        self.restart().await;
    }

    /// SIGSTOP: its connections stay, and nobody is at their other end.
    pub fn stop(&self) {
        signal(self.pid(), "STOP");
    }

    /// SIGCONT.
    pub fn cont(&self) {
        signal(self.pid(), "CONT");
    }

    /// What `redis-cli` prints for a command, without the last line end.
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

    /// A field of an answer of `field:value` lines, as `INFO` gives it; none also while the
    /// server does not answer, as when it changes its role and ends all connections.
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
        // An error is then an exit code, and not only text.
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

/// A password as a URL has it.
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
