//! A log on disk with a failing disk: nothing acknowledged is lost, nothing unkept is acknowledged.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use crate::support::{
    Launch, Server, Stream,
    directory::Directory,
    disk_faults::DiskFaults,
    http::{request, try_publish},
    until,
    wait::DEADLINE,
};

fn over(log: &Directory) -> Launch {
    let log = log.path().join("log").display().to_string();
    let config = Some("history.events = 10000".to_owned());
    Launch { args: vec!["--log".to_owned(), log], config, ..Launch::default() }
}

fn event(number: usize) -> Value {
    json!({ "topic": "news", "data": format!("event {number}"), "id": format!("id {number}") })
}

/// All events of the topic in history.
async fn kept(server: &Server) -> Vec<String> {
    server.publish(json!({ "topic": "news", "data": "the end" })).await;
    let mut stream = Stream::resume(server.addr, "topic=news", "earliest").await;
    let mut kept = Vec::new();
    loop {
        let data = stream.take_data(1).await.remove(0);
        if data == "the end" {
            return kept;
        }
        kept.push(data);
    }
}

#[tokio::test]
async fn a_failed_sync_is_never_retried_and_the_hub_refuses_publishes_until_a_restart() {
    let (log, faults) = (Directory::new("failed-sync"), DiskFaults::new("failed-sync"));
    let server = Server::launch(faults.launch(over(&log))).await;
    let mut stream = Stream::subscribe(server.addr, "topic=news").await;
    server.publish(event(1)).await;
    faults.begin("sync");
    assert_eq!(try_publish(server.addr, &event(2)).await.code(), "log_failed");
    let failed = faults.failed_syncs();
    assert!(failed >= 1);
    // The disk works again, but the kernel may have dropped the bytes of the failed sync.
    faults.end("sync");
    let refused = try_publish(server.addr, &event(3)).await;
    assert_eq!((refused.status, refused.code()), (503, "log_failed".to_owned()));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(faults.failed_syncs(), failed, "no sync was tried again");
    let ready = server.get("/health/ready").await;
    assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("log_failed")));
    assert!(ready.json()["message"].as_str().unwrap().contains("sync"), "{}", ready.text());
    assert_eq!(server.metric("fanfare_log_up").await, 0.0);
    assert_eq!(server.get("/health/live").await.status, 200);
    // Streams are served, without the refused events.
    assert_eq!(stream.take_data(1).await, ["event 1"]);
    Stream::subscribe(server.addr, "topic=other").await;

    let server = server.restart().await;
    server.publish(event(3)).await;
    let kept = kept(&server).await;
    assert_eq!(kept.iter().filter(|data| *data == "event 1").count(), 1, "{kept:?}");
    assert_eq!(kept.last().map(String::as_str), Some("event 3"));
}

#[tokio::test]
async fn a_full_disk_refuses_publishes_and_the_hub_recovers_by_itself() {
    let (log, faults) = (Directory::new("full-disk"), DiskFaults::new("full-disk"));
    let server = Server::launch(faults.launch(over(&log))).await;
    let mut stream = Stream::subscribe(server.addr, "topic=news").await;
    server.publish(event(1)).await;
    faults.begin("full");
    for number in 2..10 {
        let refused = try_publish(server.addr, &event(number)).await;
        assert_eq!((refused.status, refused.code()), (503, "log_full".to_owned()));
        assert!(refused.header("retry-after").is_some());
    }
    let follow = request(server.addr, "PUT", "/events/follows/ann/bob", &[], b"").await;
    assert_eq!(follow.code(), "log_full");
    Stream::subscribe(server.addr, "topic=other").await;
    faults.end("full");
    // The same id is no repetition: the refused event was not kept.
    server.publish(event(2)).await;
    assert_eq!(stream.take_data(2).await, ["event 1", "event 2"]);
    assert_eq!(server.metric("fanfare_log_up").await, 1.0);

    let server = server.restart().await;
    assert_eq!(kept(&server).await, ["event 1", "event 2"]);
}

#[tokio::test]
async fn a_failed_write_is_like_a_failed_sync() {
    let (log, faults) = (Directory::new("failed-write"), DiskFaults::new("failed-write"));
    let server = Server::launch(faults.launch(over(&log))).await;
    server.publish(event(1)).await;
    faults.begin("write");
    assert_eq!(try_publish(server.addr, &event(2)).await.code(), "log_failed");
    faults.end("write");
    assert_eq!(try_publish(server.addr, &event(3)).await.code(), "log_failed");
    assert!(!server.is_ready().await);
    let server = server.restart().await;
    assert_eq!(kept(&server).await, ["event 1"]);
}

#[tokio::test]
async fn a_block_the_disk_cannot_read_costs_its_own_events_only() {
    let (log, faults) = (Directory::new("bad-block"), DiskFaults::new("bad-block"));
    let server = Server::launch(faults.launch(over(&log))).await;
    let mut stream = Stream::subscribe(server.addr, "topic=news").await;
    let filler = "x".repeat(300);
    for number in 0..100 {
        let data = format!("event {number} {filler}");
        server.publish(json!({ "topic": "news", "data": data })).await;
    }
    stream.take_data(1).await;
    let after_first = stream.last_id().to_owned();
    faults.begin("read");
    let server = server.restart().await;
    assert!(server.metric("fanfare_log_damaged_places").await >= 1.0);
    assert!(server.log().contains("the log is damaged"), "{}", server.log());
    server.publish(json!({ "topic": "news", "data": "the end" })).await;
    let mut stream = Stream::resume(server.addr, "topic=news", &after_first).await;
    let (mut kept, mut gap_count) = (Vec::new(), 0);
    loop {
        let event = stream.next().await;
        match event.event.as_str() {
            "gap" => gap_count += 1,
            _ if event.data == "the end" => break,
            _ => kept.push(event.data),
        }
    }
    // The block has 4,096 of some 40,000 bytes.
    assert!((80..96).contains(&kept.len()), "{} events", kept.len());
    assert_eq!(gap_count, 1);
}

/// Publishes until the disk is full; the acknowledged events are the result.
async fn fill(server: &Server) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    let filler = "x".repeat(30_000);
    for number in 0.. {
        let data = format!("event {number} {filler}");
        let event = json!({ "topic": "news", "data": data });
        let response = try_publish(server.addr, &event).await;
        match response.status {
            200 => acknowledged.insert(data),
            _ => {
                assert_eq!(response.code(), "log_full", "{}", response.text());
                return acknowledged;
            }
        };
    }
    unreachable!("every disk is full at last")
}

#[tokio::test]
async fn the_kernels_limits_of_a_file_are_a_full_disk() {
    let log = Directory::new("file-limit");
    let mut launch = over(&log);
    // In units of 512 bytes.
    launch.setup = Some("ulimit -f 2000".to_owned());
    let server = Server::launch(launch).await;
    let acknowledged = fill(&server).await;
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    let server = server.restart().await;
    assert_eq!(kept(&server).await.into_iter().collect::<BTreeSet<_>>(), acknowledged);
}

#[tokio::test]
async fn a_full_file_system_recovers_when_another_file_goes() {
    let log = Directory::new("full-tmpfs");
    let mount = log.path().join("log");
    fs::create_dir_all(&mount).unwrap();
    let mut launch = over(&log);
    launch.args = vec!["--log".to_owned(), mount.join("data").display().to_string()];
    let mount = mount.display();
    launch.setup = Some(format!(
        "exec unshare -rm sh -c 'mount -t tmpfs -o size=8m tmpfs {mount} && \
         head -c 4000000 /dev/zero > {mount}/ballast && exec \"$0\" \"$@\"' \"$0\" \"$@\""
    ));
    let server = Server::launch(launch).await;
    let acknowledged = fill(&server).await;
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    let seen_by_the_server = format!("/proc/{}/root{mount}/ballast", server.pid());
    fs::remove_file(Path::new(&seen_by_the_server)).expect("the ballast is there");
    until(DEADLINE, "the hub takes events again", async || {
        try_publish(server.addr, &event(1)).await.status == 200
    })
    .await;
    let kept = kept(&server).await;
    assert!(acknowledged.iter().all(|data| kept.contains(data)));
}
