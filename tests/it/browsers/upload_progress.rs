//! `examples/upload_progress.rs`: real files, with a browser and without.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

use super::walk::Walk;
use crate::support::{
    Example, Stream, browser_turn,
    directory::Directory,
    http::{self, request_head},
    sse::Event,
    wait::DEADLINE,
};

/// The example's `--max-size`; a file of this size is just accepted.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Size of the file followed to its end.
const FILE_BYTES: usize = 30_000_000;

/// Slow enough for many ticks and a few cuts.
const MAX_RATE: &str = "4MiB";

/// Streams are cut again and again, and reconnect soon.
const CUTS: [(&str, &str); 3] = [
    ("FANFARE__STREAM__MAX_LIFETIME", "1500ms"),
    ("FANFARE__STREAM__RETRY_MIN", "100ms"),
    ("FANFARE__STREAM__RETRY_MAX", "300ms"),
];

fn contents(bytes: usize) -> Vec<u8> {
    let mut contents = vec![0; bytes];
    StdRng::seed_from_u64(7).fill_bytes(&mut contents);
    contents
}

fn sha256(contents: &[u8]) -> String {
    Sha256::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A sparse file of zeroes: it uses no disk space.
fn sparse_file(directory: &Directory, name: &str, bytes: usize) -> PathBuf {
    let path = directory.path().join(name);
    let file = File::create(&path).expect("the temporary directory takes files");
    file.set_len(bytes as u64).expect("files may have holes");
    path
}

/// The id of one upload.
async fn announce(addr: SocketAddr) -> String {
    let answer = http::request(addr, "POST", "/uploads", &[], b"").await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["maxBytes"], MAX_BYTES);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

async fn follow(addr: SocketAddr, id: &str, headers: &[(&str, &str)]) -> Stream {
    let mut stream = Stream::open(addr, &format!("/uploads/{id}/events"), headers).await;
    stream.read_connected().await;
    stream
}

/// Begins an upload; with a size, the head announces it.
async fn begin(addr: SocketAddr, id: &str, size: Option<usize>) -> TcpStream {
    let mut socket = TcpStream::connect(addr).await.expect("the example accepts");
    let length = size.unwrap_or_default().to_string();
    let framing = if size.is_some() {
        ("Content-Length", &*length)
    } else {
        ("Transfer-Encoding", "chunked")
    };
    let head = request_head(addr, "PUT", &format!("/uploads/{id}"), &[framing], b"");
    socket.write_all(&head).await.expect("the head is sent");
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_sees_the_progress_of_its_upload_rise_to_the_end_through_cuts() {
    let _turn = browser_turn().await;
    let max_size = MAX_BYTES.to_string();
    let arguments = ["--max-size", &*max_size, "--max-rate", MAX_RATE];
    let example = Example::start("upload_progress", &arguments, &CUTS).await;
    let files = Directory::new("uploads");
    let contents = contents(FILE_BYTES);
    let file = files.path().join("file");
    let written = File::create(&file).and_then(|mut file| file.write_all(&contents));
    written.expect("the temporary directory takes files");
    let long = sparse_file(&files, "long", MAX_BYTES);
    let large = sparse_file(&files, "large", MAX_BYTES + 1);

    let option = |path: &'static str, file: &'_ Path| (path, file.display().to_string());
    let options = [option("--file", &file), option("--long", &long), option("--large", &large)];
    let options = options.each_ref().map(|(option, path)| (*option, path.as_str()));
    let mut walk = Walk::start("upload-progress", example.addr, &options);
    let seen = walk.next().await;
    assert_eq!(seen["sha256"], sha256(&contents));
    assert_events_lead_to_the_end(seen["events"].as_array().expect("a list"));
    let shown = seen["shown"].as_array().expect("a list").iter().map(Value::as_f64);
    let shown: Vec<f64> = shown.map(|value| value.expect("a number")).collect();
    assert!(shown.is_sorted() && shown.last() == Some(&100.0), "{shown:?}");
    walk.finish(&["upload-progress.png"]).await;
}

fn assert_events_lead_to_the_end(events: &[Value]) {
    let of_type = |wanted: &str| -> Vec<&Value> {
        let events = events.iter().filter(|event| event["type"] == wanted);
        events.map(|event| &event["data"]).collect()
    };
    let progress = of_type("progress");
    assert!(progress.len() > 10, "{progress:?}");
    let received: Vec<u64> =
        progress.iter().map(|data| data["received"].as_u64().expect("a number")).collect();
    assert!(received.is_sorted_by(|before, after| before < after), "{received:?}");
    for data in &progress {
        let percent = data["received"].as_f64().expect("a number") / FILE_BYTES as f64 * 100.0;
        let told = data["percent"].as_f64().expect("a number");
        assert!((percent - 0.11..=percent + 0.01).contains(&told), "{data}");
        assert_eq!(data["total"], FILE_BYTES);
    }
    let last = events.last().expect("some");
    assert_eq!((&last["type"], &last["data"]["received"]), (&json!("done"), &json!(FILE_BYTES)));
    assert_eq!(of_type("done").len(), 1);
    let resumed = of_type("connected").into_iter().map(|data| data["resumed"] == true);
    let resumed: Vec<bool> = resumed.collect();
    assert!(resumed.len() > 2, "it was cut: {events:?}");
    assert!(!resumed[0] && resumed[1..].iter().all(|resumed| *resumed), "{resumed:?}");
    assert!(of_type("gap").is_empty() && of_type("failed").is_empty(), "{events:?}");
}

/// The next event after `live`, the end of the snapshot.
async fn next_of_upload(stream: &mut Stream, deadline: Instant) -> Event {
    let event = stream.next_before(deadline).await;
    match event.event.as_str() {
        "live" => stream.next_before(deadline).await,
        _ => event,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_an_upload_waits_for_whoever_comes_back_or_comes_late() {
    let max_size = MAX_BYTES.to_string();
    let arguments = ["--max-size", &*max_size, "--max-rate", "0"];
    let example = Example::start("upload_progress", &arguments, &[]).await;
    let (addr, contents) = (example.addr, contents(1_000_000));
    let (first, second) = (announce(addr).await, announce(addr).await);
    let mut stream = follow(addr, &first, &[]).await;
    let mut other = follow(addr, &second, &[]).await;

    let mut upload = begin(addr, &first, Some(contents.len())).await;
    let (begin_part, rest) = contents.split_at(300_000);
    upload.write_all(begin_part).await.expect("the example reads");
    let deadline = Instant::now() + DEADLINE;
    let half = loop {
        let event = next_of_upload(&mut stream, deadline).await;
        assert_eq!(event.event, "progress");
        if event.json()["received"] == begin_part.len() {
            break event;
        }
    };
    assert_eq!(half.json()["percent"], 30.0);
    stream.abort();
    upload.write_all(rest).await.expect("the example reads");

    // A resumed client, a new client, and a second new client.
    for headers in [&[("Last-Event-ID", &*half.id)][..], &[], &[]] {
        let mut stream = follow(addr, &first, headers).await;
        assert_eq!(stream.connected["resumed"], !headers.is_empty());
        let done = loop {
            let event = next_of_upload(&mut stream, deadline).await;
            if event.event != "progress" {
                break event;
            }
            assert!(event.json()["received"].as_u64() > half.json()["received"].as_u64());
        };
        assert_eq!(done.event, "done");
        let end = json!({ "received": contents.len(), "sha256": sha256(&contents) });
        assert_eq!(done.json(), end);
    }

    // An id is valid for one upload, and no stream shows another upload's events.
    let again = http::request(addr, "PUT", &format!("/uploads/{first}"), &[], b"more").await;
    assert_eq!((again.status, again.code()), (404, "unknown_upload".to_owned()));
    let answer = http::request(addr, "PUT", &format!("/uploads/{second}"), &[], b"").await;
    assert_eq!(answer.json(), json!({ "received": 0, "sha256": sha256(b"") }));
    let mut events = vec![next_of_upload(&mut other, deadline).await];
    while events.last().expect("one at least").event == "progress" {
        events.push(next_of_upload(&mut other, deadline).await);
    }
    assert_eq!(events.pop().expect("one at least").json(), answer.json());
    assert!(events.iter().all(|event| event.json()["received"] == 0), "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_too_large_or_breaks_off_is_told_to_sender_and_stream() {
    let max_size = MAX_BYTES.to_string();
    let arguments = ["--max-size", &*max_size, "--max-rate", "0"];
    let example = Example::start("upload_progress", &arguments, &[]).await;
    let addr = example.addr;
    let code_of_the_end = async |id: &str| {
        let mut stream = follow(addr, id, &[]).await;
        loop {
            let event = next_of_upload(&mut stream, Instant::now() + DEADLINE).await;
            if event.event != "progress" {
                assert_eq!(event.event, "failed");
                return event.json()["code"].as_str().expect("a code").to_owned();
            }
        }
    };

    // Refused by the announced size, before any byte of the body is read.
    let id = announce(addr).await;
    let length = (MAX_BYTES + 1).to_string();
    let headers = [("Content-Length", &*length)];
    let path = format!("/uploads/{id}");
    let refused = http::request(addr, "PUT", &path, &headers, b"").await;
    assert_eq!((refused.status, refused.code()), (413, "too_large".to_owned()));
    assert_eq!(code_of_the_end(&id).await, "too_large");

    // Without an announced size, refused by the received bytes.
    let id = announce(addr).await;
    let mut upload = begin(addr, &id, None).await;
    let chunk = [b"100000\r\n", &[0; 0x10_0000][..], b"\r\n"].concat();
    for _ in 0..=MAX_BYTES / 0x10_0000 {
        // The server may close before it has read the last bytes.
        if upload.write_all(&chunk).await.is_err() {
            break;
        }
    }
    assert_eq!(code_of_the_end(&id).await, "too_large");

    let id = announce(addr).await;
    let mut upload = begin(addr, &id, Some(1000)).await;
    upload.write_all(b"a part").await.expect("the example reads");
    drop(upload);
    assert_eq!(code_of_the_end(&id).await, "interrupted");

    for (method, path) in [("PUT", "/uploads/never-announced"), ("GET", "/uploads/none/events")] {
        let refused = http::request(addr, method, path, &[], b"").await;
        assert_eq!((refused.status, refused.code()), (404, "unknown_upload".to_owned()));
    }
}
