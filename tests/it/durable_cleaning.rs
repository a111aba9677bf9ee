//! The log on disk stays small, and a restart after its cleaning is as exact as one before.

use std::{fs, path::Path};

use serde_json::json;

use crate::support::{
    Launch, Server, Stream, crowd::eventually, directory::Directory, heavy, http::publish,
    http::request,
};

const SEGMENT_BYTES: u64 = 1 << 20;

/// Busy topics keep ten events each, so nothing is evicted for lack of memory.
const CONFIG: &str = "[log]\nsegment_size = \"1MiB\"\nsync = \"never\"\n\n[history]\nevents = 10\n";

fn launch(log: &Path) -> Launch {
    let args = ["--no-demo", "--log", &log.display().to_string()].map(str::to_owned).to_vec();
    Launch { args, config: Some(CONFIG.to_owned()), ..Launch::default() }
}

fn bytes_in(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).expect("the hub made it");
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}

async fn publish_many(server: &Server, count: usize) {
    let text = "x".repeat(1000);
    let lines = (0..count).map(|number| {
        json!({"topic": format!("busy:{}", number % 20), "data": text}).to_string() + "\n"
    });
    let body: String = lines.collect();
    let headers = [("Content-Type", "application/x-ndjson")];
    let answer = request(server.addr, "POST", "/events/publish", &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.text().contains("\"error\""), "{}", answer.text());
}

async fn resume(server: &Server, topic: &str, id: &str) -> Stream {
    let path = format!("/events/stream?topic={topic}");
    let mut stream = Stream::open(server.addr, &path, &[("Last-Event-ID", id)]).await;
    stream.read_connected().await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleaning_bounds_the_log_and_only_clients_with_lost_events_get_a_gap() {
    let _heavy = heavy().await;
    let directory = Directory::new("durable-cleaning");
    let log = directory.path().join("log");
    let mut server = Server::launch(launch(&log)).await;
    let event = |data: &str| json!({"topic": "quiet", "data": data, "id": data});
    let first = publish(server.addr, event("first")).await;
    let busy = publish(server.addr, json!({"topic": "busy:0", "data": "early"})).await;
    publish(server.addr, event("second")).await;
    publish_many(&server, 12_000).await;
    let bound = 4 * SEGMENT_BYTES;
    eventually("the log is cleaned", async || bytes_in(&log) < bound).await;
    publish(server.addr, event("third")).await;
    let id = |answer: &serde_json::Value| answer["eventId"].as_str().expect("an id").to_owned();
    for _ in 0..2 {
        server = server.restart().await;
        // The neighbours' events are gone; this topic has all of its own.
        let mut stream = resume(&server, "quiet", &id(&first)).await;
        assert_eq!(stream.take_data(2).await, ["second", "third"]);
        let again = publish(server.addr, event("first")).await;
        assert_eq!(again["eventId"], first["eventId"], "the id is remembered");
        let mut stream = resume(&server, "busy:0", &id(&busy)).await;
        assert_eq!(stream.next().await.event, "gap");
        assert_eq!(stream.take(10).await.len(), 10);
    }
}
