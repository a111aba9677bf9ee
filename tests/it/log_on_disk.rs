//! A log on disk, as seen by its operator: starts, refusals, `fanfare log`, copies.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    Launch, Server, Stream,
    directory::Directory,
    http::request,
    server::fanfare,
    tokens::{SECRET, token, unix_s},
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Log {
    directory: Directory,
}

impl Log {
    fn new(name: &str) -> Self {
        Self { directory: Directory::new(name) }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn launch(&self, name: &str) -> Launch {
        Launch { args: vec!["--log".to_owned(), self.path(name)], ..Launch::default() }
    }

    async fn start(&self) -> Server {
        Server::launch(self.launch("log")).await
    }

    /// Starts a server expected to fail; its message.
    fn refusal(&self, arguments: &[&str]) -> String {
        let log = self.path("log");
        let listen = ["serve", "--listen", "127.0.0.1:0", "--log", &log];
        let output = fanfare(&[&listen, arguments].concat(), &[]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        text(&output.stderr)
    }
}

async fn change(server: &Server, method: &str, path: &str, body: Value) {
    let headers = [("Content-Type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = request(server.addr, method, path, &headers, body.as_bytes()).await;
    assert_eq!(response.status, 200, "{method} {path}: {}", response.text());
}

#[tokio::test]
async fn a_log_in_use_of_another_format_or_number_of_partitions_is_exit_2() {
    let log = Log::new("refused-logs");
    let mut server = log.start().await;
    assert!(server.printed().contains("mode     log: "), "{}", server.printed());
    assert!(log.refusal(&[]).contains("in use"), "{}", log.refusal(&[]));
    server.kill9();
    let message = log.refusal(&["--config", &{
        let file = log.directory.write("eight.toml", "hub.partitions = 8");
        file.display().to_string()
    }]);
    assert!(message.contains("set hub.partitions = 16"), "{message}");
    let header = log.path("log/HEADER");
    let good = fs::read_to_string(&header).unwrap();
    fs::write(&header, good.replace("fanfare-log 1", "fanfare-log 7")).unwrap();
    assert!(log.refusal(&[]).contains("format 7"), "{}", log.refusal(&[]));
    fs::write(&header, &good[..good.len() - 9]).unwrap();
    assert!(log.refusal(&[]).contains("HEADER"), "{}", log.refusal(&[]));
}

#[tokio::test]
async fn a_directory_not_writable_is_exit_2() {
    let directory = Log::new("not-writable");
    fs::write(directory.path("log"), "a file").unwrap();
    assert!(directory.refusal(&[]).contains("cannot write"), "{}", directory.refusal(&[]));
    let script = format!(
        "mkdir -p {0}/ro && mount -t tmpfs -o ro tmpfs {0}/ro && \
         exec {1} serve --listen 127.0.0.1:0 --log {0}/ro",
        directory.directory.path().display(),
        env!("CARGO_BIN_EXE_fanfare"),
    );
    let mut command = std::process::Command::new("unshare");
    let output = command.args(["-rm", "sh", "-c", &script]).output().expect("unshare starts");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("cannot write"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_copy_of_a_running_log_is_checked_and_started() {
    let log = Log::new("copied-log");
    let server = log.start().await;
    let mut stream = Stream::subscribe(server.addr, "topic=news").await;
    for number in 0..100 {
        server.publish(json!({ "topic": "news", "data": number })).await;
    }
    let copied = fanfare(&["log", "copy", &log.path("log"), &log.path("copy")], &[]);
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    let again = fanfare(&["log", "copy", &log.path("log"), &log.path("copy")], &[]);
    assert_eq!(again.status.code(), Some(2));
    for directory in ["log", "copy"] {
        let checked = fanfare(&["log", "check", &log.path(directory)], &[]);
        assert!(checked.status.success(), "{}", text(&checked.stderr));
        let stats = fanfare(&["log", "stats", &log.path(directory)], &[]);
        assert!(text(&stats.stdout).contains("partition "), "{}", text(&stats.stdout));
    }
    let expected: Vec<String> = (0..100).map(|number: usize| number.to_string()).collect();
    assert_eq!(stream.take_data(100).await, expected);
    let seen = stream.last_id().to_owned();
    server.publish(json!({ "topic": "news", "data": "after the copy" })).await;
    stream.take_data(1).await;

    // A hub on the copy resumes the streams up to the copy without a gap.
    let restored = Server::launch(log.launch("copy")).await;
    let mut resumed = Stream::resume(restored.addr, "topic=news", &seen).await;
    restored.publish(json!({ "topic": "news", "data": "restored" })).await;
    assert_eq!(resumed.take_data(1).await, ["restored"]);
    // A stream with later events gets a gap.
    let mut ahead = Stream::resume(restored.addr, "topic=news", stream.last_id()).await;
    assert_eq!(ahead.next().await.event, "gap");
}

#[tokio::test]
async fn a_damaged_log_is_told_by_the_check() {
    let log = Log::new("damaged-log");
    let mut server = log.start().await;
    for number in 0..10 {
        server.publish(json!({ "topic": "news", "data": format!("payload {number}") })).await;
    }
    server.kill9();
    let segment = log.path("log/00000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(9).position(|window| window == b"payload 4").expect("it is there");
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let checked = fanfare(&["log", "check", &log.path("log")], &[]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(text(&checked.stdout).contains("damaged: segment 00000001"), "{checked:?}");
    assert!(text(&checked.stderr).contains("1 damaged place"), "{checked:?}");
    let none = fanfare(&["log", "check", &log.path("nothing")], &[]);
    assert_eq!(none.status.code(), Some(2));
}

#[tokio::test]
async fn a_revoked_token_is_refused_after_kill_9() {
    let log = Log::new("kept-revocations");
    let mut launch = log.launch("log");
    launch.config = Some(format!(
        "[access]\nenabled = true\n[[access.keys]]\nalgorithm = \"HS256\"\nkey = {SECRET:?}\n"
    ));
    let server = Server::launch(launch).await;
    let operator = token(json!({ "fanfare": { "manage": ["**"] } }));
    let subscriber = |user: &str| {
        let grant = json!({ "subscribe": ["news"] });
        format!("Bearer {}", token(json!({ "sub": user, "iat": unix_s(), "fanfare": grant })))
    };
    let (ann, bob) = (subscriber("ann"), subscriber("bob"));
    let bearer = format!("Bearer {operator}");
    let headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
    let body = br#"{"user":"ann"}"#;
    let revoked = request(server.addr, "POST", "/events/revocations", &headers, body).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    let mut server = server;
    // Twice: the second start reads the record again.
    for _ in 0..2 {
        server = server.restart().await;
        for (bearer, status) in [(&ann, 401), (&bob, 200)] {
            let headers = [("Authorization", bearer.as_str())];
            let path = "/events/cursor?topic=news";
            let answer = request(server.addr, "GET", path, &headers, b"").await;
            assert_eq!(answer.status, status, "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn followers_mutes_and_feeds_survive_kill_9() {
    let log = Log::new("kept-followers");
    let server = log.start().await;
    for follower in ["ann", "ben", "cem"] {
        change(&server, "PUT", &format!("/events/follows/{follower}/dora"), Value::Null).await;
    }
    change(&server, "DELETE", "/events/follows/ben/dora", Value::Null).await;
    change(&server, "PUT", "/events/preferences/cem", json!({ "muted": ["like"] })).await;
    let followers = server.get("/events/followers/dora").await.json();
    let preferences = server.get("/events/preferences/cem").await.json();
    let server = server.restart().await;
    assert_eq!(server.get("/events/followers/dora").await.json()["users"], followers["users"]);
    assert_eq!(server.get("/events/preferences/cem").await.json(), preferences);
    let (mut ann, mut cem) = (
        Stream::subscribe(server.addr, "topic=notifications:ann").await,
        Stream::subscribe(server.addr, "topic=notifications:cem").await,
    );
    for kind in ["like", "post"] {
        let fan_out = json!({ "author": "dora", "event": kind, "data": kind });
        change(&server, "POST", "/events/fanout", fan_out).await;
    }
    assert_eq!(ann.take_data(2).await, ["like", "post"]);
    assert_eq!(cem.take_data(1).await, ["post"]);
}
