//! `slowhttptest` against both listeners: clients sending and reading as slowly as they can. Honest
//! requests are answered meanwhile.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use tokio::process::Command;

use crate::support::{
    Server, Stream, heavy,
    http::{get, publish, request},
    ports::free_port,
    wait::until,
};

/// Slow connections at once.
const CONNECTIONS: &str = "300";

/// Seconds of one attack.
const SECONDS: &str = "6";

/// Slow heads, slow bodies, slow reading.
const ATTACKS: [&[&str]; 3] = [
    &["-H", "-i", "1"],
    &["-B", "-i", "1", "-s", "100000", "-t", "POST"],
    &["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "8", "-k", "3"],
];

/// Runs one attack. Returns when it is over.
async fn attack(options: &[&str], addr: SocketAddr, path: &str) {
    let output = Command::new("slowhttptest")
        .args(options)
        .args(["-c", CONNECTIONS, "-r", CONNECTIONS, "-l", SECONDS, "-p", "5"])
        .args(["-u", &format!("http://{addr}{path}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await
        .expect("slowhttptest is there: scripts/test installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_requests_are_answered_beside_slow_ones() {
    let _heavy = heavy().await;
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let server = Server::with_config(&format!("[admin]\nlisten = \"{admin}\"\n")).await;
    let public = server.addr;
    for options in ATTACKS {
        for (addr, path) in [(public, "/events/publish"), (admin, "/stats")] {
            let mut stream = Stream::subscribe(public, "topic=a").await;
            let attacking = tokio::spawn(async move { attack(options, addr, path).await });
            let mut count = 0;
            while !attacking.is_finished() {
                let number = count.to_string();
                publish(public, serde_json::json!({"topic": "a", "data": number})).await;
                assert_eq!(stream.next().await.data, number, "{options:?} at {addr}");
                assert_eq!(get(admin, "/stats").await.status, 200, "{options:?} at {addr}");
                assert_eq!(
                    request(public, "HEAD", "/events/stream?topic=a", &[], b"").await.status,
                    200
                );
                count += 1;
            }
            attacking.await.expect("no panic");
            assert!(count > 10, "{options:?} at {addr}: {count} rounds");
            stream.close().await;
        }
    }
    until(Duration::from_secs(60), "all slow connections are gone", async || {
        get(admin, "/stats").await.json()["connections"] == 0
    })
    .await;
}
