//! TLS and HTTP/2 of `fanfare serve`, read by curl and openssl; the operators' listener.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command as AsyncCommand},
    time::timeout,
};

use crate::support::{
    Server,
    directory::Directory,
    heavy,
    http::{get, request},
    server::{Launch, fanfare},
    wait::{DEADLINE, until},
};

/// Streams of one browser on one connection.
const STREAM_COUNT: usize = 100;

/// Streams open while certificates are replaced.
const HERD_COUNT: usize = 60;

/// Certificates replaced under load: by changed files, and every second one by SIGHUP too.
const REPLACEMENTS: usize = 6;

/// A certificate for localhost and its key.
struct Certificate {
    directory: Directory,
}

impl Certificate {
    fn new() -> Self {
        let certificate = Self { directory: Directory::new("tls") };
        certificate.renew("first");
        certificate
    }

    /// Overwrites both files. The common name tells the certificates apart.
    fn renew(&self, name: &str) {
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}")])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .arg("-keyout")
            .arg(self.key())
            .arg("-out")
            .arg(self.chain())
            .output()
            .expect("openssl is there: scripts/test installs it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn chain(&self) -> PathBuf {
        self.directory.path().join("chain.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    fn config(&self) -> String {
        format!("[tls]\ncertificate = {:?}\nkey = {:?}\n", self.chain(), self.key())
    }
}

async fn start(config: String) -> Server {
    let launch = Launch { config: Some(config), ..Launch::default() };
    Server::spawn_on(SocketAddr::from(([127, 0, 0, 1], 0)), launch).await
}

fn url(server: &Server, path: &str) -> String {
    format!("https://localhost:{}{path}", server.addr.port())
}

fn curl(arguments: &[&str]) -> Output {
    Command::new("curl").args(["-sSk", "-m", "30"]).args(arguments).output().expect("curl starts")
}

/// An open stream of curl, its lines read one by one.
struct CurlStream {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl CurlStream {
    async fn open(arguments: &[&str], url: &str) -> Self {
        let mut child = AsyncCommand::new("curl")
            .args(["-sSkN"])
            .args(arguments)
            .arg(url)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("curl starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut stream = Self { lines, _child: child };
        stream.until("event: connected").await;
        stream
    }

    /// Reads to the end of a line beginning with this text.
    async fn until(&mut self, beginning: &str) {
        timeout(DEADLINE, async {
            while let Some(line) = self.lines.next_line().await.expect("curl writes text") {
                if line.starts_with(beginning) {
                    return;
                }
            }
            panic!("the stream ended before {beginning:?}");
        })
        .await
        .unwrap_or_else(|_| panic!("no {beginning:?} within {DEADLINE:?}"));
    }
}

/// The common name shown to a new connection.
fn shown_name(server: &Server) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &format!("localhost:{}", server.addr.port())])
        .stdin(Stdio::null())
        .output()
        .expect("openssl is there: scripts/test installs it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let subject = text.lines().find(|line| line.starts_with("subject=")).unwrap_or_default();
    subject.trim_start_matches("subject=").replace(' ', "")
}

fn publish(server: &Server, data: &str) {
    let body = format!(r#"{{"topic":"a","data":"{data}"}}"#);
    let json = "Content-Type: application/json";
    let output = curl(&["-H", json, "-d", &body, &url(server, "/events/publish")]);
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(answer.contains(r#""success":true"#), "{answer}");
}

#[tokio::test]
async fn streams_and_publishes_work_over_http_2_and_http_1_with_tls() {
    let server = start(Certificate::new().config()).await;
    assert!(server.printed().contains("https://"), "{}", server.printed());
    let path = url(&server, "/events/stream?topic=a");
    let mut over_2 = CurlStream::open(&["--http2"], &path).await;
    let mut over_1 = CurlStream::open(&["--http1.1"], &path).await;
    publish(&server, "hello");
    over_2.until("data: hello").await;
    over_1.until("data: hello").await;
    let version = curl(&["-o", "/dev/null", "-w", "%{http_version}", &url(&server, "/stats")]);
    assert_eq!(version.stdout, b"2");
    let old = curl(&["--tls-max", "1.1", &url(&server, "/stats")]);
    assert!(!old.status.success(), "TLS 1.1 is refused");
}

#[tokio::test]
async fn http_2_works_without_tls_by_prior_knowledge() {
    let server = Server::start(&["--no-demo"]).await;
    let path = format!("http://{}/events/stream?topic=a", server.addr);
    let mut stream = CurlStream::open(&["--http2-prior-knowledge"], &path).await;
    server.publish(serde_json::json!({"topic": "a", "data": "hello"})).await;
    stream.until("data: hello").await;
}

#[tokio::test]
async fn one_connection_carries_many_streams() {
    let server = start(Certificate::new().config()).await;
    let path = url(&server, "/events/stream?topic=a");
    let directory = Directory::new("tls-streams");
    let mut command = AsyncCommand::new("curl");
    command.args(["-sSkN", "--http2", "--parallel", "--parallel-max", "200"]);
    for number in 0..STREAM_COUNT {
        let file = directory.path().join(number.to_string());
        // Without a write-out per stream, curl would not say how many connections it opened.
        command.args(["-w", "%{num_connects}\n", "-o"]).arg(file).arg(&path);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().expect("curl starts");
    let count = || {
        let output = curl(&[&url(&server, "/stats")]);
        let stats: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        stats["connections"].as_u64()
    };
    until(DEADLINE, "all streams are open", async || count() == Some(STREAM_COUNT as u64)).await;
    publish(&server, "hello");
    until(DEADLINE, "all streams have the event", async || {
        (0..STREAM_COUNT).all(|number| {
            let file = directory.path().join(number.to_string());
            fs::read_to_string(file).unwrap_or_default().contains("data: hello")
        })
    })
    .await;
    // The drain ends all streams, and curl then tells its connections.
    server.terminate();
    let output = timeout(Duration::from_secs(30), child.wait_with_output());
    let output = output.await.expect("curl ends").expect("curl ran");
    let connections: usize = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.parse::<usize>().ok())
        .sum();
    assert!(connections <= 2, "{connections} connections");
}

#[tokio::test]
async fn a_new_certificate_is_taken_while_streams_stay_open() {
    let certificate = Certificate::new();
    let server = start(certificate.config()).await;
    assert_eq!(shown_name(&server), "CN=first");
    let mut stream = CurlStream::open(&[], &url(&server, "/events/stream?topic=a")).await;

    certificate.renew("second");
    until(DEADLINE, "the changed files are read", async || shown_name(&server) == "CN=second")
        .await;
    publish(&server, "after the change");
    stream.until("data: after the change").await;

    // A key without its certificate leaves the present pair in use.
    let whole = fs::read_to_string(certificate.key()).expect("it is there");
    fs::write(certificate.key(), "no key").expect("it is writable");
    server.signal("HUP");
    until(DEADLINE, "the failure is logged", async || server.log().contains("not reloaded")).await;
    assert_eq!(shown_name(&server), "CN=second");
    fs::write(certificate.key(), whole).expect("it is writable");

    certificate.renew("third");
    server.signal("HUP");
    until(DEADLINE, "SIGHUP reads the files", async || shown_name(&server) == "CN=third").await;
    publish(&server, "after the signal");
    stream.until("data: after the signal").await;
}

/// A herd of curl's streams over TLS, each written to a file.
struct Herd {
    directory: Directory,
    _children: [Child; 2],
}

impl Herd {
    /// Half of them over one connection by HTTP/2, the others over one each by HTTP/1.1.
    fn open(server: &Server) -> Self {
        let directory = Directory::new("tls-herd");
        let path = url(server, "/events/stream?topic=a");
        let open = |version: &str, numbers: std::ops::Range<usize>| {
            let mut command = AsyncCommand::new("curl");
            command.args(["-sSkN", version, "--parallel", "--parallel-max", "100"]);
            for number in numbers {
                command.arg("-o").arg(directory.path().join(number.to_string())).arg(&path);
            }
            command.stdout(Stdio::null()).kill_on_drop(true).spawn().expect("curl starts")
        };
        let half = HERD_COUNT / 2;
        let children = [open("--http2", 0..half), open("--http1.1", half..HERD_COUNT)];
        Self { directory, _children: children }
    }

    /// What each stream has received.
    fn texts(&self) -> impl Iterator<Item = String> {
        let path = |number: usize| self.directory.path().join(number.to_string());
        (0..HERD_COUNT).map(move |number| fs::read_to_string(path(number)).unwrap_or_default())
    }

    async fn until_all_have(&self, text: &str) {
        until(DEADLINE, text, async || self.texts().all(|stream| stream.contains(text))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_under_load_without_a_loss() {
    let _heavy = heavy().await;
    let certificate = Certificate::new();
    let server = start(certificate.config()).await;
    let herd = Herd::open(&server);
    herd.until_all_have("event: connected").await;
    let is_over = AtomicBool::new(false);
    let count = thread::scope(|scope| {
        // Each publish has a handshake of its own, none refused at any moment.
        let publisher = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                publish(&server, &format!("event {count};"));
                count += 1;
            }
            count
        });
        for number in 1..=REPLACEMENTS {
            certificate.renew(&format!("number{number}"));
            if number % 2 == 0 {
                server.signal("HUP");
            }
            let (begun, name) = (Instant::now(), format!("CN=number{number}"));
            while shown_name(&server) != name {
                assert!(begun.elapsed() < DEADLINE, "the certificate {name} is not shown");
            }
        }
        is_over.store(true, Ordering::Relaxed);
        publisher.join().expect("all publishes succeed")
    });
    assert!(count > REPLACEMENTS, "{count} events");
    herd.until_all_have(&format!("event {};", count - 1)).await;
    let expected: Vec<String> = (0..count).map(|number| format!("data: event {number};")).collect();
    for stream in herd.texts() {
        let got: Vec<&str> =
            stream.lines().filter(|line| line.starts_with("data: event")).collect();
        assert_eq!(got, expected);
        assert_eq!(stream.matches("event: ").count(), 1, "only `connected`: {stream}");
    }
}

#[test]
fn unusable_certificates_end_the_start() {
    let (own, other) = (Certificate::new(), Certificate::new());
    let missing = own.directory.path().join("missing.pem");
    let path = |path: PathBuf| path.display().to_string();
    for (chain, key) in [
        (path(own.chain()), String::new()),
        (path(missing.clone()), path(own.key())),
        (path(own.chain()), path(missing)),
        (path(own.chain()), path(other.key())),
        (path(own.key()), path(own.key())),
    ] {
        let environment =
            [("FANFARE__TLS__CERTIFICATE", chain.as_str()), ("FANFARE__TLS__KEY", key.as_str())];
        for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["serve", "--check"]] {
            let output = fanfare(arguments, &environment);
            assert_eq!(output.status.code(), Some(2), "{chain} {key}");
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(text.contains("tls."), "{text}");
            assert!(!text.contains("PRIVATE"), "{text}");
        }
    }
}

#[tokio::test]
async fn the_operators_listener_takes_stats_and_metrics_from_the_public_one() {
    let server = Server::with_config("[admin]\nlisten = \"127.0.0.1:0\"").await;
    let printed = server.printed();
    let metrics = printed.split_whitespace().find(|word| word.ends_with("/metrics"));
    let admin = metrics.expect("it is printed").trim_start_matches("http://");
    let admin: SocketAddr = admin.trim_end_matches("/metrics").parse().expect("an address");
    for path in ["/health/live", "/health/ready", "/stats", "/metrics"] {
        assert_eq!(get(admin, path).await.status, 200, "{path}");
    }
    for path in ["/events/stream?topic=a", "/events/publish", "/"] {
        assert_eq!(get(admin, path).await.status, 404, "{path}");
    }
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(get(server.addr, path).await.status, 200, "{path}");
    }
    for path in ["/stats", "/metrics"] {
        let refused = request(server.addr, "GET", path, &[], b"").await;
        assert_eq!((refused.status, refused.code().as_str()), (404, "not_found"), "{path}");
    }
}
