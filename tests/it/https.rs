//! `https://` URLs: of a hub for the commands, and of key sets and applications for the hub.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
};

use crate::support::{
    directory::Directory,
    http::{Response, request},
    redis::Certificates,
    repository,
    server::{Launch, Server, fanfare},
    tokens::{KeyPair, Library, Order, key_set, mint, unix_s},
    wait::{DEADLINE, until},
};

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[tokio::test]
async fn the_commands_reach_a_hub_over_tls() {
    let directory = Directory::new("https");
    let files = Certificates::make(&directory);
    let tls = format!("[tls]\ncertificate = {:?}\nkey = {:?}\n", files.certificate, files.key);
    let launch = Launch { config: Some(tls), ..Launch::default() };
    let server = Server::spawn_on(SocketAddr::from(([127, 0, 0, 1], 0)), launch).await;
    let url = format!("https://localhost:{}", server.addr.port());
    let authority = text(&files.authority);
    let run = |arguments: &[&str], environment: &[(&str, &str)]| -> Output {
        fanfare(&[arguments, &["--url", &url]].concat(), environment)
    };
    let published = run(&["publish", "a", "hello", "--ca", authority], &[]);
    assert!(published.status.success(), "{published:?}");
    let tail = ["tail", "a", "--from", "earliest", "-n", "1"];
    let printed = run(&tail, &[("FANFARE_CA", authority)]);
    assert_eq!(String::from_utf8_lossy(&printed.stdout), "hello\n", "{printed:?}");
    let by_system = run(&tail, &[("SSL_CERT_FILE", authority)]);
    assert_eq!(String::from_utf8_lossy(&by_system.stdout), "hello\n", "{by_system:?}");
    // An unknown authority, a wrong file, no file.
    let refused = run(&["publish", "a", "no"], &[("SSL_CERT_FILE", "/dev/null")]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    for file in [text(&files.key), "/no/such/file"] {
        let refused = run(&["publish", "a", "no", "--ca", file], &[]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
    let bench = run(&["bench", "--streams", "1"], &[]);
    assert_eq!(bench.status.code(), Some(2), "{bench:?}");
}

/// The application of `tests/python/https_application.py`.
struct Application {
    child: Child,
    port: u16,
}

impl Application {
    fn start(files: &Certificates, key_set: &std::path::Path) -> Self {
        let mut child = Command::new("python3")
            .arg(repository().join("tests/python/https_application.py"))
            .args([&files.certificate, &files.key])
            .arg(key_set)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there: scripts/test installs it");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it prints its port");
        Self { child, port: line.trim().parse().expect("a port") }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn get(server: &Server, header: (&str, &str)) -> Response {
    request(server.addr, "GET", "/events/cursor?topic=a:1", &[header], b"").await
}

#[tokio::test]
async fn the_hub_reads_keys_and_asks_the_application_over_tls() {
    let directory = Directory::new("https");
    let files = Certificates::make(&directory);
    let pair = KeyPair::new("ES256");
    let keys = directory.write("keys.json", &key_set(&[("k", &pair)]));
    let application = Application::start(&files, &keys);
    let url = format!("https://localhost:{}", application.port);
    let config = format!(
        "[access]\nenabled = true\n[access.jwks]\nurl = \"{url}/keys\"\n\
         [access.webhook]\nurl = \"{url}/decide\"\n"
    );
    let launch = |authorities: &str| Launch {
        config: Some(config.clone()),
        environment: vec![("SSL_CERT_FILE".to_owned(), authorities.to_owned())],
        ..Launch::default()
    };
    let claims = serde_json::json!({
        "sub": "bob", "exp": unix_s() + 3600, "fanfare": {"subscribe": ["a:*"]},
    });
    let order = Order::new("ES256", pair.private.clone(), claims);
    let token = mint(Library::PyJwt, &[order.headers(serde_json::json!({"kid": "k"}))]).remove(0);
    let bearer = format!("Bearer {token}");

    let server = Server::launch(launch(text(&files.authority))).await;
    until(DEADLINE, "the keys are read", async || {
        get(&server, ("Authorization", &bearer)).await.status == 200
    })
    .await;
    assert_eq!(get(&server, ("Cookie", "session=1")).await.status, 200);

    // A server of an unknown authority is nobody.
    let server = Server::launch(launch("/dev/null")).await;
    for header in [("Authorization", bearer.as_str()), ("Cookie", "session=1")] {
        assert_eq!(get(&server, header).await.code(), "access_down");
    }
}
