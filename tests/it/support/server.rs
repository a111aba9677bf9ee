//! The real binary as a process of its own.

use std::{
    fs::{self, File},
    marker::PhantomData,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::Value;

use super::{
    http::{self, get},
    process,
    wait::{DEADLINE, until},
};

/// Numbers the files of this test process.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Start options of a server.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// Arguments after `serve`.
    pub args: Vec<String>,
    /// TOML, passed as a file with `--config`.
    pub config: Option<String>,
    /// Variables added to this process' own.
    pub environment: Vec<(String, String)>,
    /// `RUST_LOG`; `warn` if empty.
    pub log: String,
    /// Soft and hard limit of open files; the limit of this process if `None`.
    pub open_files: Option<u32>,
    /// Shell commands before the server, in its process.
    pub setup: Option<String>,
}

/// The transport of a server's streams, `server.transport`.
pub trait Transport {
    const NAME: &str;
    /// `server.batched_sends`.
    const BATCHED_SENDS: &str = "true";
}

/// The bare socket: the default.
pub struct Raw;

/// The bare socket, and every stream sends for itself.
pub struct RawAlone;

/// The framework's body.
pub struct Body;

impl Transport for Raw {
    const NAME: &str = "raw";
}

impl Transport for RawAlone {
    const NAME: &str = "raw";
    const BATCHED_SENDS: &str = "false";
}

impl Transport for Body {
    const NAME: &str = "body";
}

/// A running `fanfare serve`, killed on drop. A failed test shows its log.
pub type Server = ServerOver<Raw>;

/// A server with this transport.
pub struct ServerOver<T: Transport> {
    pub addr: SocketAddr,
    launch: Launch,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    transport: PhantomData<T>,
}

impl<T: Transport> ServerOver<T> {
    /// Starts a server with these arguments, on a free port.
    pub async fn start(args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self::launch(Launch { args, ..Launch::default() }).await
    }

    /// Starts a server with this configuration, without demo data.
    pub async fn with_config(toml: &str) -> Self {
        Self::launch(Launch { config: Some(toml.to_owned()), ..Launch::default() }).await
    }

    /// Starts a server and waits until it is ready.
    pub async fn launch(launch: Launch) -> Self {
        let free_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::launch_on(free_port, launch).await
    }

    async fn launch_on(addr: SocketAddr, launch: Launch) -> Self {
        let server = Self::spawn_on(addr, launch).await;
        server.until_ready().await;
        server
    }

    /// Starts a server on this address and waits until it listens, ready or not.
    pub async fn spawn_on(addr: SocketAddr, launch: Launch) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (stdout, stderr) = (temporary(number, "stdout"), temporary(number, "stderr"));
        let mut arguments = vec!["serve".to_owned(), "--listen".to_owned(), addr.to_string()];
        if let Some(config) = &launch.config {
            let path = temporary(number, "toml");
            fs::write(&path, config).expect("the temporary directory takes files");
            arguments.extend(["--config".to_owned(), path.display().to_string()]);
        }
        arguments.extend(launch.args.iter().cloned());
        let open_files = launch.open_files.map(|count| format!("ulimit -n {count}"));
        let setup: Vec<String> = open_files.into_iter().chain(launch.setup.clone()).collect();
        let mut command = match setup.join("; ") {
            setup if setup.is_empty() => Command::new(env!("CARGO_BIN_EXE_fanfare")),
            setup => {
                let mut shell = Command::new("sh");
                let script = format!("{setup}; exec \"$0\" \"$@\"");
                shell.args(["-c", &script, env!("CARGO_BIN_EXE_fanfare")]);
                shell
            }
        };
        let log = if launch.log.is_empty() { "warn" } else { &launch.log };
        let child = command
            .args(arguments)
            .env("RUST_LOG", log)
            .env("FANFARE__SERVER__TRANSPORT", T::NAME)
            .env("FANFARE__SERVER__BATCHED_SENDS", T::BATCHED_SENDS)
            .envs(launch.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("the temporary directory takes files"))
            .stderr(File::create(&stderr).expect("the temporary directory takes files"))
            .spawn()
            .expect("the binary starts");
        let transport = PhantomData;
        let mut server = Self { addr, launch, child, stdout, stderr, transport };
        until(DEADLINE, "the server prints its address", async || {
            assert!(server.exit_status().is_none(), "the server ended: {}", server.log());
            server.printed_address().is_some()
        })
        .await;
        server.addr = server.printed_address().expect("just seen");
        server
    }

    pub async fn is_ready(&self) -> bool {
        get(self.addr, "/health/ready").await.status == 200
    }

    pub async fn until_ready(&self) {
        until(DEADLINE, "the server is ready", async || self.is_ready().await).await;
    }

    fn printed_address(&self) -> Option<SocketAddr> {
        let printed = self.printed();
        let (_, rest) = printed.split_once("://")?;
        let (address, _) = rest.split_once('\n')?;
        address.trim_end_matches('/').parse().ok()
    }

    /// Waits for the exit, then starts the same server on the same port.
    pub async fn restart(mut self) -> Self {
        self.kill9();
        Self::launch_on(self.addr, self.launch.clone()).await
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL and waits for the exit.
    pub fn kill9(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        process::signal(self.pid(), name);
    }

    /// The exit status; `None` while the process runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits for the exit.
    pub async fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        until(deadline, "the server ends", async || self.exit_status().is_some()).await;
        self.exit_status().expect("just seen")
    }

    /// Its output so far.
    pub fn printed(&self) -> String {
        read(&self.stdout)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        read(&self.stderr)
    }

    pub async fn get(&self, path: &str) -> http::Response {
        get(self.addr, path).await
    }

    pub async fn publish(&self, json: Value) -> Value {
        http::publish(self.addr, json).await
    }

    /// `/stats`.
    pub async fn stats(&self) -> Value {
        self.get("/stats").await.json()
    }

    /// A sample of `/metrics`: with labels as written there, or, by the bare name, the sum over all
    /// labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let response = self.get("/metrics").await;
        let samples = response.text().lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let bare = sample.split('{').next()?;
            (sample == name || bare == name).then(|| value.parse::<f64>().expect("a number"))
        });
        let values: Vec<f64> = samples.collect();
        // A counter with a reason label has no sample before its first count.
        let is_known = !values.is_empty() || name.contains("_total");
        assert!(is_known, "no {name} in {}", response.text());
        values.iter().sum()
    }

    /// Waits for this number of open streams.
    pub async fn until_streams(&self, count: usize) {
        let what = format!("{count} streams are open");
        until(DEADLINE, &what, async || self.stats().await["connections"] == count).await;
    }

    /// Waits until every gauge about streams is back to zero.
    pub async fn settled(&self) {
        until(DEADLINE, "every gauge is back to zero", async || {
            let gauges = ["fanfare_connections", "fanfare_subscriptions", "fanfare_outbox_bytes"];
            for gauge in gauges {
                if self.metric(gauge).await != 0.0 {
                    return false;
                }
            }
            self.stats().await["connections"] == 0
        })
        .await;
        let opened = self.metric("fanfare_connections_opened_total").await;
        let closed = self.metric("fanfare_connections_closed_total").await;
        assert_eq!(opened, closed, "streams opened and closed");
    }
}

impl<T: Transport> Drop for ServerOver<T> {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("--- the server at {} logged:\n{}---", self.addr, self.log());
        }
        for path in [&self.stdout, &self.stderr, &self.stderr.with_extension("toml")] {
            let _ = fs::remove_file(path);
        }
    }
}

/// Runs the binary to its end.
pub fn fanfare(args: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(args)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

/// A file with this text and a unique name.
pub fn temporary_file(extension: &str, text: &str) -> PathBuf {
    let path = temporary(NEXT.fetch_add(1, Ordering::Relaxed), extension);
    fs::write(&path, text).expect("the temporary directory takes files");
    path
}

fn temporary(number: usize, extension: &str) -> PathBuf {
    let name = format!("fanfare-{}-{number}.{extension}", std::process::id());
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn read(path: &PathBuf) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
