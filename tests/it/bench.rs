//! `fanfare bench` and `fanfare plan`: their reports and exit codes. The tests do not judge the
//! figures.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value;

use crate::support::{Server, server::fanfare, until, wait::DEADLINE};

/// Runs `bench` against this address, to its end.
fn bench(address: SocketAddr, arguments: &[&str]) -> Output {
    let url = format!("http://{address}");
    fanfare(&[&["bench", "--url", &url][..], arguments].concat(), &[])
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    let report = serde_json::from_slice(&output.stdout);
    report.unwrap_or_else(|error| panic!("{error}: {}", stderr(output)))
}

/// 50 streams, a second in all.
const SMALL: [&str; 6] = ["--streams", "50", "--duration", "500ms", "--warmup", "100ms"];

#[tokio::test]
async fn a_run_counts_every_delivery_and_loses_none() {
    let server = Server::start(&["--no-demo"]).await;
    let topics = ["--topics", "7", "--topics-per-stream", "3", "--rate", "200", "--json"];
    let output = bench(server.addr, &[&SMALL[..], &topics].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = json(&output);
    assert_eq!(report["streams"]["opened"], 50);
    assert_eq!(report["streams"]["ended"], 0);
    let loss = &report["loss"];
    assert_eq!(loss["is_checked"], true);
    for key in ["lost", "twice", "out_of_order", "gaps", "strays", "conflated"] {
        assert_eq!(loss[key], 0, "{key}: {report}");
    }
    assert!(report["published"]["confirmed"].as_u64() > Some(0), "{report}");
    assert_eq!(report["published"]["unconfirmed"], 0);
    assert_eq!(report["deliveries"]["total"], report["deliveries"]["expected"]);
    assert_eq!(report["server"]["pids"], serde_json::json!([server.pid()]));
    for (part, keys) in [
        ("latency_ms", &["p50", "p95", "p99", "p99.9", "max"][..]),
        ("deliveries", &["per_second"]),
        ("published", &["per_second", "asked_per_second"]),
        ("streams", &["seconds_to_open"]),
        (
            "server",
            &[
                "memory_bytes",
                "memory_bytes_at_end",
                "memory_bytes_per_connection",
                "cpu_percent",
                "cpu_micros_per_connection",
                "cpu_micros_per_delivery",
            ],
        ),
    ] {
        keys.iter()
            .for_each(|key| assert!(report[part][key].is_number(), "{part} {key}: {report}"));
    }
    server.settled().await;
}

#[tokio::test]
async fn a_run_without_a_rate_is_a_table_for_people() {
    let server = Server::start(&["--no-demo"]).await;
    let output = bench(server.addr, &[&SMALL[..], &["--rate", "0"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for row in ["connections", "deliveries a second", "latency", "server CPU a delivery"] {
        assert!(table.contains(&format!("| {row}")), "{table}");
    }
    assert!(table.contains("0 lost, 0 twice, 0 out of order"), "{table}");
    assert!(stderr(&output).is_empty(), "no progress without a terminal");
}

#[tokio::test]
async fn conflation_is_told_from_loss() {
    let policy = "[[topics]]\npattern = \"bench:*\"\nconflate = \"latest\"";
    let server = Server::with_config(policy).await;
    let output = bench(server.addr, &[&SMALL[..], &["--rate", "500", "--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = json(&output);
    assert_eq!(report["loss"]["is_checked"], false, "{report}");
    assert!(report["loss"]["conflated"].as_u64() > Some(0), "{report}");
}

#[tokio::test]
async fn a_server_that_dies_ends_the_run_with_what_was_measured() {
    let mut server = Server::start(&["--no-demo"]).await;
    let url = format!("http://{}", server.addr);
    let child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(["bench", "--url", &url, "--streams", "20", "--duration", "1h", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    until(DEADLINE, "events are published", async || server.stats().await["published"] != 0).await;
    server.kill9();
    let ended = tokio::task::spawn_blocking(|| child.wait_with_output());
    let output = ended.await.expect("no panic").expect("it is our child");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("20 streams ended early"), "{}", stderr(&output));
    assert_eq!(json(&output)["streams"]["ended"], 20);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_1() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let output = bench(address, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&address.to_string()), "{}", stderr(&output));
}

#[tokio::test]
async fn refused_streams_are_1_with_the_server_s_reason() {
    let server = Server::with_config("[hub]\nmax_connections = 10").await;
    let output = bench(server.addr, &SMALL);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("at_capacity"), "{}", stderr(&output));
}

#[test]
fn bad_arguments_are_2_with_a_line_each() {
    let output = fanfare(&["bench", "--streams", "0", "--payload", "1"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output).lines().count(), 2, "{}", stderr(&output));
    for arguments in [
        &["bench", "extra"][..],
        &["bench", "--streams", "many"],
        &["bench", "--duration", "10"],
        &["bench", "--url", "https://hub"],
        &["bench", "--publish-body", "{data}"],
        &["bench", "--reconnect", "0"],
        &["bench", "--reconnect", "5", "--rate", "1"],
        &["bench", "--reconnect", "5", "--duration", "1s"],
        &["bench", "--stalled", "some"],
        &["plan"],
        &["plan", "--connections", "10"],
        &["plan", "--connections", "0", "--rate", "1"],
        &["plan", "--connections", "10", "--rate", "-1"],
        &["plan", "--connections", "10", "--rate", "1", "--open-files", "100"],
    ] {
        assert_eq!(fanfare(arguments, &[]).status.code(), Some(2), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_storm_brings_every_stream_back_with_what_it_missed() {
    let server = Server::start(&["--no-demo"]).await;
    let topics = ["--topics", "7", "--topics-per-stream", "3", "--streams", "50"];
    let output = bench(server.addr, &[&["--reconnect", "5", "--json"][..], &topics].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = json(&output);
    let reconnect = &report["reconnect"];
    assert_eq!(reconnect["events"], 5, "{report}");
    assert_eq!(reconnect["missed"], 50 * 3 * 5, "{report}");
    for key in ["seconds_to_open", "seconds_to_catch_up", "cpu_micros_per_stream"] {
        assert!(reconnect[key].as_f64() > Some(0.0), "{key}: {report}");
    }
    for key in ["syn_retransmissions", "listen_overflows"] {
        assert!(reconnect[key].is_u64(), "{key}: {report}");
    }
    // Each stream got one event of each topic before its cut.
    assert_eq!(report["deliveries"]["total"], 50 * 3 * 6, "{report}");
    assert_eq!(report["deliveries"]["expected"], 50 * 3 * 6, "{report}");
    assert_eq!(report["published"]["confirmed"], 7 * 6, "{report}");
    assert_eq!(report["streams"]["ended"], 0, "cut is not ended: {report}");
    for key in ["lost", "twice", "out_of_order", "gaps", "strays"] {
        assert_eq!(report["loss"][key], 0, "{key}: {report}");
    }
    assert_eq!(server.metric("fanfare_connections_opened_total").await, 100.0);
    server.settled().await;
    let output = bench(server.addr, &[&["--reconnect", "5"][..], &topics].concat());
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for row in ["all back", "all caught up", "server CPU a return"] {
        assert!(table.contains(&format!("| {row}")), "{table}");
    }
}

#[tokio::test]
async fn what_no_history_holds_is_lost_in_a_storm() {
    let server = Server::with_config("[history]\nevents = 2").await;
    let arguments = ["--streams", "20", "--reconnect", "5", "--json"];
    let output = bench(server.addr, &arguments);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["loss"]["lost"], 20 * 3, "{report}");
    assert_eq!(report["loss"]["gaps"], 20, "{report}");
    assert!(report["reconnect"]["seconds_to_catch_up"].is_null(), "{report}");
}

#[test]
fn another_hub_s_streams_come_back_with_its_ids() {
    let address = OtherHub::start(Faults::LosesToTheCut);
    let arguments = ["--streams", "20", "--reconnect", "4", "--json"];
    let output = bench_other(address, &arguments);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["reconnect"]["missed"], 20 * 4, "{report}");
    // Per stream: the last missed event is not replayed, the one before comes twice.
    assert_eq!(report["loss"]["lost"], 20, "{report}");
    assert_eq!(report["loss"]["twice"], 20, "{report}");
}

#[tokio::test]
async fn stalled_streams_count_in_nothing_but_their_own_ends() {
    let server = Server::start(&["--no-demo"]).await;
    let output = bench(server.addr, &[&SMALL[..], &["--stalled", "3", "--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = json(&output);
    assert_eq!(report["stalled"], serde_json::json!({"asked": 3, "ended": 0}));
    assert_eq!(report["streams"]["asked"], 50);
    assert_eq!(report["deliveries"]["total"], report["deliveries"]["expected"]);
    server.settled().await;
    // Far more than an outbox and the kernel's buffers can store.
    let much = ["--streams", "5", "--rate", "0", "--payload", "10000", "--duration", "3s"];
    let output = bench(server.addr, &[&much[..], &["--stalled", "3", "--json"]].concat());
    let report = json(&output);
    assert_eq!(report["stalled"], serde_json::json!({"asked": 3, "ended": 3}), "{report}");
}

/// Faults of a foreign hub.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Faults {
    /// Of every five events it loses one and sends one twice.
    LosesToTheLive,
    /// A replay leaves out the last missed event and sends the one before twice.
    LosesToTheCut,
}

/// A foreign hub: one topic, numeric ids, and no `connected`.
struct OtherHub {
    faults: Faults,
    streams: Vec<TcpStream>,
    /// All data lines so far.
    log: Vec<Vec<u8>>,
}

impl OtherHub {
    fn start(faults: Faults) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let hub = Arc::new(Mutex::new(Self { faults, streams: Vec::new(), log: Vec::new() }));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let hub = hub.clone();
                thread::spawn(move || Self::serve(&hub, connection));
            }
        });
        address
    }

    /// Answers requests of a connection, until it ends or becomes a stream.
    fn serve(hub: &Mutex<Self>, mut connection: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(connection.try_clone().ok()?);
        loop {
            let (mut first, mut length, mut last_id) = (String::new(), 0, None);
            while !first.ends_with("\r\n\r\n") {
                let mut line = String::new();
                (reader.read_line(&mut line).ok()? > 0).then_some(())?;
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().ok()?;
                }
                if let Some(value) = line.strip_prefix("last-event-id: ") {
                    last_id = value.trim().parse().ok();
                }
                first.push_str(&line);
            }
            if first.starts_with("GET /sub/bench:0 ") {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
                connection.write_all(head.as_bytes()).ok()?;
                hub.lock().unwrap().open(connection, last_id);
                return None;
            }
            assert!(first.starts_with("POST /pub?id=bench:0 "), "{first}");
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            hub.lock().unwrap().publish(body);
            connection.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").ok()?;
        }
    }

    fn event(&self, number: usize) -> Vec<u8> {
        [format!("id: {number}\ndata: ").as_bytes(), &self.log[number], b"\n\n"].concat()
    }

    /// Replays the events after `last_id`: without the last, and with the one before twice.
    fn open(&mut self, mut stream: TcpStream, last_id: Option<usize>) {
        let last = self.log.len().saturating_sub(1);
        for number in last_id.map_or(last, |id| id + 1)..last {
            let times = if number + 1 == last { 2 } else { 1 };
            // The client may have left; the test does not depend on it.
            let _ = stream.write_all(&self.event(number).repeat(times));
        }
        self.streams.push(stream);
    }

    fn publish(&mut self, data: Vec<u8>) {
        let number = self.log.len();
        self.log.push(data);
        let times = match number % 5 {
            _ if self.faults == Faults::LosesToTheCut => 1,
            2 => 0,
            3 => 2,
            _ => 1,
        };
        let event = self.event(number).repeat(times);
        for mut stream in &self.streams {
            let _ = stream.write_all(&event);
        }
    }
}

/// Runs `bench` against a foreign hub, to its end.
fn bench_other(address: SocketAddr, arguments: &[&str]) -> Output {
    let stream_url = format!("http://{address}/sub/{{topic}}");
    let publish_url = format!("http://{address}/pub?id={{topic}}");
    let other = [
        &["bench", "--stream-url", &stream_url, "--publish-url", &publish_url][..],
        &["--publish-body", r#"{"text":"{data}"}"#],
    ];
    fanfare(&[&other.concat(), arguments].concat(), &[])
}

#[test]
fn another_hub_s_losses_and_repetitions_are_found() {
    let address = OtherHub::start(Faults::LosesToTheLive);
    let output = bench_other(address, &[&["--json", "--rate", "100"][..], &SMALL].concat());
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    let confirmed = report["published"]["confirmed"].as_u64().expect("a number");
    assert!(confirmed >= 5, "{report}");
    // Of every five events the third is lost, the fourth comes twice.
    assert_eq!(report["loss"]["lost"], (confirmed + 2) / 5 * 50, "{report}");
    assert_eq!(report["loss"]["twice"], (confirmed + 1) / 5 * 50, "{report}");
    assert!(stderr(&output).contains("deliveries were lost"), "{}", stderr(&output));
}

#[test]
fn a_plan_says_what_it_counts_with() {
    let wanted = ["plan", "--connections", "100000", "--rate", "1"];
    let output = fanfare(&wanted, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in ["servers", "open files a server", "memory a server", "bandwidth", "based on"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let given = ["--json", "--bytes-per-stream", "1MiB", "--cpu-per-delivery", "2.5"];
    let output = fanfare(&[&wanted[..], &given].concat(), &[]);
    let plan = json(&output);
    assert_eq!(plan["constants"]["bytes_per_stream"], 1024 * 1024);
    assert_eq!(plan["constants"]["cpu_micros_per_delivery"][0], 2.5);
    assert_eq!(plan["plan"]["decided_by"], "memory");
    assert!(plan["plan"]["servers"].as_u64() > Some(1) && plan["source"].is_string(), "{plan}");
}
