//! Many streams of one page in Chromium over TLS: HTTP/2 carries all on one connection.

use std::{fs, net::SocketAddr, process::Command};

use super::walk::Walk;
use crate::support::{
    Launch, Server, browser_turn, directory::Directory, redis::Certificates, until, wait::DEADLINE,
};

/// Streams of one page. By HTTP/1.1, a browser opens six connections to a host.
const STREAM_COUNT: usize = 100;

/// The server's established connections, from the kernel's table of its network namespace.
fn connection_count(server: &Server) -> usize {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string(format!("/proc/{}/net/tcp", server.pid())).expect("Linux");
    let own = format!(":{:04X}", server.addr.port());
    let is_own = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&own) && fields[3] == ESTABLISHED
    };
    table.lines().skip(1).filter(is_own).count()
}

fn curl(arguments: &[&str], url: &str) -> String {
    let output = Command::new("curl").args(["-sSk", "-m", "30"]).args(arguments).arg(url).output();
    let output = output.expect("curl starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_in_chromium_has_a_hundred_streams_on_one_connection() {
    let _turn = browser_turn().await;
    let directory = Directory::new("browser-tls");
    let files = Certificates::make(&directory);
    let tls = format!("[tls]\ncertificate = {:?}\nkey = {:?}\n", files.certificate, files.key);
    let launch = Launch { config: Some(tls), ..Launch::default() };
    let server = Server::spawn_on(SocketAddr::from(([127, 0, 0, 1], 0)), launch).await;
    let url = format!("https://localhost:{}", server.addr.port());
    let streams = STREAM_COUNT.to_string();
    let options = [("--url", url.as_str()), ("--streams", &streams)];
    let mut walk = Walk::start("tls-page", server.addr, &options);
    assert_eq!(walk.next().await["open"], true);
    let stats: serde_json::Value =
        serde_json::from_str(&curl(&[], &format!("{url}/stats"))).expect("JSON");
    assert_eq!(stats["connections"], STREAM_COUNT);
    // Chromium may open a second one at first, and closes it for HTTP/2.
    until(DEADLINE, "one connection is left", async || connection_count(&server) == 1).await;
    let json = "Content-Type: application/json";
    let body = r#"{"topic":"a","data":"hello"}"#;
    curl(&["-H", json, "-d", body], &format!("{url}/events/publish"));
    walk.tell("published").await;
    walk.finish(&[]).await;
}
