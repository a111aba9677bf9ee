//! The operator's view: health, statistics, metrics, logs, the page at `/`.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    Launch, Server, Stream,
    http::{request, try_publish},
    process, until,
    wait::DEADLINE,
};

/// Every metric of the contract, in its spelling there.
const METRICS: [&str; 24] = [
    "fanfare_connections",
    "fanfare_connections_opened_total",
    "fanfare_connections_closed_total",
    "fanfare_connection_duration_seconds",
    "fanfare_subscriptions",
    "fanfare_topics",
    "fanfare_events_published_total",
    "fanfare_events_delivered_total",
    "fanfare_events_conflated_total",
    "fanfare_events_dropped_total",
    "fanfare_delivery_latency_seconds",
    "fanfare_batch_events",
    "fanfare_outbox_bytes",
    "fanfare_replays_total",
    "fanfare_history_bytes",
    "fanfare_replays_in_flight",
    "fanfare_idle_topic_bytes",
    "fanfare_remembered_id_bytes",
    "fanfare_bridge_up",
    "fanfare_bridge_reconnects_total",
    "fanfare_bridge_refills_total",
    "fanfare_bridge_lag_seconds",
    "process_resident_memory_bytes",
    "process_open_fds",
];

#[tokio::test]
async fn health_is_told_by_status_code() {
    let server = Server::start(&["--no-demo"]).await;
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(server.get(path).await.status, 200);
    }
}

#[tokio::test]
async fn a_draining_server_is_live_and_not_ready() {
    let config = "[server]\ndrain = \"3s\"\n[outbox]\nmax_bytes = \"64MiB\"\n[delivery]\nflush = \"immediate\"";
    let mut server = Server::with_config(config).await;
    // A client with unread data delays the end of the drain.
    let stalled = Stream::subscribe(server.addr, "topic=a").await;
    let filler = "x".repeat(60_000);
    until(DEADLINE, "the socket buffers are full", async || {
        for _ in 0..10 {
            server.publish(json!({"topic": "a", "data": filler})).await;
        }
        server.metric("fanfare_outbox_bytes").await > 1_000_000.0
    })
    .await;
    server.terminate();
    until(DEADLINE, "readiness turns 503", async || {
        server.get("/health/ready").await.status == 503
    })
    .await;
    assert_eq!(server.get("/health/live").await.status, 200);
    let path = "/events/stream?topic=a";
    let refused = server.get(path).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "draining"));
    assert!(refused.header("retry-after").is_some());
    let mut browser = Stream::open(server.addr, path, &[("Sec-Fetch-Mode", "cors")]).await;
    assert_eq!(browser.next().await.json()["reason"], "drain");
    let late = try_publish(server.addr, &json!({"topic": "a", "data": "late"})).await;
    assert_eq!((late.status, late.code().as_str()), (503, "draining"));
    let status = server.wait_exit(Duration::from_secs(4)).await;
    assert_eq!(status.code(), Some(0));
    drop(stalled);
}

#[tokio::test]
async fn stats_have_all_fields() {
    let server = Server::start(&["--no-demo"]).await;
    let mut stream = Stream::subscribe(server.addr, "topics=a,b,c:*").await;
    for _ in 0..3 {
        server.publish(json!({"topic": "a", "data": "x"})).await;
    }
    stream.take(3).await;
    // Partitions report their topic counts only at intervals.
    until(DEADLINE, "the topic is counted", async || server.stats().await["topics"] == 1).await;
    let stats = server.stats().await;
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number: {stats}"));
    assert_eq!(stats["connections"], 1);
    assert_eq!(stats["subscriptions"], 3);
    assert_eq!(stats["published"], 3);
    assert_eq!(stats["delivered"], 3);
    assert_eq!(stats["conflated"], 0);
    for reason in ["slow", "rate"] {
        assert_eq!(stats["dropped"][reason], 0);
    }
    let latency = &stats["latencyMs"];
    let quantiles: Vec<f64> =
        ["p50", "p95", "p99", "p99.9"].iter().map(|name| number(&latency[name])).collect();
    assert!(quantiles.is_sorted() && quantiles[3] > 0.0, "{quantiles:?}");
    assert!(number(&stats["residentBytes"]) > 1_000_000.0);
    assert!(number(&stats["historyBytes"]) > 0.0);
    assert!(number(&stats["uptimeSeconds"]) >= 0.0);
    assert_eq!(stats["version"], env!("CARGO_PKG_VERSION"));
    assert!(stats["bridge"].is_object() || stats["bridge"].is_string(), "{stats}");
}

#[tokio::test]
async fn metrics_have_all_names_from_the_start() {
    let server = Server::start(&["--no-demo"]).await;
    let response = server.get("/metrics").await;
    assert_eq!(response.status, 200);
    let samples: BTreeSet<&str> = response
        .text()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split([' ', '{']).next())
        .collect();
    let is_there = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}"));
        samples.contains(name) || parts.iter().all(|part| samples.contains(part.as_str()))
    };
    let missing: Vec<&str> = METRICS.into_iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let server = Server::with_config(
        "[[topics]]\npattern = \"c\"\nconflate = \"latest\"\nflush = \"tick\"\ntick = \"1h\"",
    )
    .await;
    let mut first = Stream::subscribe(server.addr, "topics=a,c").await;
    let mut second = Stream::subscribe(server.addr, "topic=*").await;
    for number in 0..5 {
        server.publish(json!({"topic": "a", "data": number})).await;
    }
    for _ in 0..2 {
        server.publish(json!({"topic": "c", "data": 1})).await;
    }
    first.take(5).await;
    second.take(5).await;
    until(DEADLINE, "one is conflated", async || {
        server.metric("fanfare_events_conflated_total").await >= 1.0
    })
    .await;
    for (name, value) in [
        ("fanfare_connections", 2.0),
        ("fanfare_connections_opened_total", 2.0),
        ("fanfare_subscriptions", 3.0),
        ("fanfare_events_published_total", 7.0),
        ("fanfare_events_delivered_total", 10.0),
        ("fanfare_events_dropped_total{reason=\"slow\"}", 0.0),
        ("fanfare_events_dropped_total{reason=\"rate\"}", 0.0),
        ("fanfare_outbox_bytes", 0.0),
        ("fanfare_bridge_up", 1.0),
    ] {
        assert_eq!(server.metric(name).await, value, "{name}");
    }
    assert!(server.metric("fanfare_delivery_latency_seconds_count").await >= 2.0);
    assert!(server.metric("fanfare_history_bytes").await > 0.0);
    assert!(server.metric("process_open_fds").await >= 2.0);
    assert!(server.metric("process_resident_memory_bytes").await > 1e6);
    let id = second.last_id().to_owned();
    drop((first, second));
    server.settled().await;
    assert_eq!(server.metric("fanfare_connections_closed_total{reason=\"client\"}").await, 2.0);
    assert_eq!(server.metric("fanfare_connection_duration_seconds_count").await, 2.0);
    let resumed = Stream::resume(server.addr, "topic=*", &id).await;
    assert_eq!(server.metric("fanfare_replays_total{result=\"complete\"}").await, 1.0);
    drop(resumed);
    server.settled().await;
}

#[tokio::test]
async fn files_and_gauges_are_given_back() {
    let server = Server::start(&["--no-demo"]).await;
    drop(Stream::subscribe(server.addr, "topic=a").await);
    server.settled().await;
    let files = server.metric("process_open_fds").await;
    for _ in 0..3 {
        let mut streams = Vec::new();
        for number in 0..50 {
            let query = format!("topics=a,b:{number},c:*,**");
            streams.push(Stream::subscribe(server.addr, &query).await);
        }
        server.publish(json!({"topic": "a", "data": "unread"})).await;
        assert_eq!(server.metric("fanfare_connections").await, 50.0);
        drop(streams);
        server.settled().await;
    }
    until(DEADLINE, "the sockets are closed", async || {
        server.metric("process_open_fds").await <= files + 2.0
    })
    .await;
}

#[tokio::test]
async fn logs_tell_of_streams_and_of_no_payload_or_token() {
    let launch = Launch {
        args: vec!["--no-demo".into()],
        log: "info,fanfare=trace".into(),
        ..Launch::default()
    };
    let mut server = Server::launch(launch).await;
    let headers = [("Authorization", "Bearer SECRET-token"), ("Cookie", "session=SECRET-cookie")];
    let mut stream =
        Stream::subscribe_with(server.addr, "topics=seen:a,seen:b&token=SECRET-query", &headers)
            .await;
    let client_id = stream.connected["clientId"].as_str().expect("an id").to_owned();
    let event = json!({"topic": "seen:a", "data": "SECRET-payload", "key": "SECRET-key", "id": "SECRET-id"});
    let body = event.to_string();
    request(server.addr, "POST", "/events/publish", &headers, body.as_bytes()).await;
    stream.next().await;
    for bad in ["{\"topic\":\"seen:a\",\"data\":\"SECRET-broken", "[\"SECRET-shape\"]"] {
        request(server.addr, "POST", "/events/publish", &headers, bad.as_bytes()).await;
    }
    stream.close().await;
    server.settled().await;
    server.terminate();
    server.wait_exit(DEADLINE).await;
    let log = server.log();
    assert!(!log.contains("SECRET"), "{log}");
    let of_client: Vec<&str> = log.lines().filter(|line| line.contains(&client_id)).collect();
    let opened =
        of_client.iter().find(|line| line.contains("opened")).expect("a line for the opening");
    assert!(opened.contains("seen:a") && opened.contains("seen:b"), "{opened}");
    let closed =
        of_client.iter().find(|line| line.contains("closed")).expect("a line for the closing");
    for part in ["reason", "client", "duration_ms=", "event_count=1"] {
        assert!(closed.contains(part), "{part}: {closed}");
    }
    assert!(!server.printed().contains("SECRET"));
}

#[tokio::test]
async fn the_banner_tells_everything_needed_next() {
    let server = Server::start(&["--no-demo"]).await;
    let (printed, base) = (server.printed(), format!("http://{}", server.addr));
    for row in [
        format!("  page     {base}/"),
        format!("  stats    {base}/stats"),
        format!("  metrics  {base}/metrics"),
        "  mode     memory: history ends with this process".to_owned(),
        "  stop     Ctrl-C or SIGTERM; streams drain for up to 5s".to_owned(),
    ] {
        assert!(printed.lines().any(|line| line == row), "{row}: {printed}");
    }
    let limits = printed.lines().find(|line| line.starts_with("  limits ")).expect("limits");
    assert!(limits.contains("open files") && limits.contains("streams"), "{printed}");

    // The printed commands work as they are.
    let command = |name: &str| {
        let line = printed.lines().find(|line| line.starts_with(&format!("  {name} ")));
        line.expect("a line for the command")[11..].to_owned()
    };
    let mut follow = Command::new("timeout")
        .args(["60", "sh", "-c", &format!("exec {}", command("follow"))])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh runs");
    server.until_streams(1).await;
    let publish = Command::new("sh").args(["-c", &command("publish")]).output().expect("sh runs");
    assert!(String::from_utf8_lossy(&publish.stdout).contains("\"receivers\":1"), "{publish:?}");
    let lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    let data = lines.map(|line| line.expect("text")).find(|line| line == "data: hello");
    assert!(data.is_some());
    process::signal(follow.id(), "TERM");
    let _ = follow.wait();
}

#[tokio::test]
async fn an_unavailable_redis_is_in_the_banner() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("redis://:hunter2@{}", silent.local_addr().expect("bound"));
    let launch = Launch {
        args: vec!["--redis".into(), url],
        environment: vec![("FANFARE__REDIS__TIMEOUT".into(), "100ms".into())],
        ..Launch::default()
    };
    let server = Server::spawn_on(([127, 0, 0, 1], 0).into(), launch).await;
    let printed = server.printed();
    assert!(printed.contains("is UNAVAILABLE"), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[tokio::test]
async fn the_log_is_quiet_about_streams_and_the_framework() {
    for (flag, is_verbose) in
        [("--log-level=info", false), ("-v", true), ("--log-level=debug", true)]
    {
        let args = vec!["--no-demo".to_owned(), flag.to_owned()];
        let mut server = Server::launch(Launch { args, ..Launch::default() }).await;
        Stream::subscribe(server.addr, "topic=a").await.close().await;
        server.settled().await;
        server.terminate();
        server.wait_exit(DEADLINE).await;
        let log = server.log();
        assert_eq!(log.contains("stream opened"), is_verbose, "{flag}: {log}");
        assert!(log.contains("draining") && !log.contains("actix_server"), "{flag}: {log}");
    }
}

#[tokio::test]
async fn the_demo_runs_unless_it_is_left_out() {
    let server = Server::start(&[]).await;
    let page = server.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    let mut stream = Stream::subscribe(server.addr, "topic=demo:ticker:*").await;
    stream.take(5).await;

    let quiet = Server::start(&["--no-demo"]).await;
    let landing = quiet.get("/").await;
    assert!(landing.text().contains("Subscriptions of this page"), "{}", landing.text());
    assert!(!landing.text().contains("Ticker"), "{}", landing.text());
    assert_eq!(quiet.stats().await["published"], 0);
    let configured = Server::with_config("[hub]\nthreads = 1").await;
    assert_eq!(configured.stats().await["published"], 0);
    let launch = Launch {
        config: Some("[hub]\nthreads = 1".to_owned()),
        args: vec!["--demo".to_owned()],
        ..Launch::default()
    };
    let requested = Server::launch(launch).await;
    Stream::subscribe(requested.addr, "topic=demo:ticker:*").await.take(5).await;
}

#[tokio::test]
async fn probes_may_ask_with_head() {
    let server = Server::start(&["--no-demo"]).await;
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(request(server.addr, "HEAD", path, &[], b"").await.status, 200, "{path}");
    }
}
