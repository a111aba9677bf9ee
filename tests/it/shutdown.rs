//! SIGTERM under load: answered publishes are delivered, every stream gets `shutdown` and ends
//! cleanly, and the process exits in time.

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use actix_web::{App, HttpServer};
use bytes::BytesMut;
use fanfare::{Config, Hub};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::Server;
use crate::support::{
    Stream,
    crowd::{Crowd, End, Plan, Publisher, eventually, pace},
    example::Example,
    heavy,
    http::{get, request},
    message::Head,
};

const STREAM_COUNT: usize = 1000;
const EVENTS_PER_SECOND: u32 = 200;

/// The drain window's default, and the contract's margin on top of it.
const WINDOW: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(1);

const READY: &str = "/health/ready";
const STREAM: &str = "/events/stream?topic=load:a";

/// Events before the signal.
const EVENTS_BEFORE: u32 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_delivers_what_was_answered_tells_every_stream_and_exits_in_time() {
    let _heavy = heavy().await;
    let mut server = Server::start(&["--no-demo"]).await;
    let plan = Plan { query: "topics=load:a,load:b".to_owned(), ..Plan::default() };
    let streams = Crowd::of(server.addr, STREAM_COUNT, &plan);
    streams.until_connected(1).await;
    // A keep-alive connection without a request.
    let mut idle = Publisher::connect(server.addr).await;
    idle.publish(2, "load:other", "then nothing").await;
    let probes = [READY, STREAM].map(|path| tokio::spawn(answers_until_gone(server.addr, path)));
    let publisher = tokio::spawn(publish_until_refused(server.addr));
    streams.until_number(0, EVENTS_BEFORE).await;

    let start = Instant::now();
    server.terminate();
    let answered = publisher.await.expect("the publisher does not panic");
    streams.until_all("got shutdown", |seen| !seen.shutdowns.is_empty()).await;
    streams.until_all("has ended", |seen| !seen.ends.is_empty()).await;
    let exit = server.wait_exit(WINDOW + 2 * GRACE).await;
    println!("{STREAM_COUNT} streams closed and process ended in {:?}", start.elapsed());
    assert!(start.elapsed() < WINDOW + GRACE, "took {:?}", start.elapsed());
    assert_eq!(exit.code(), Some(0));
    for probe in probes {
        let answers = probe.await.expect("the probe does not panic");
        let first_refusal = answers.iter().position(|status| *status != 200);
        let after = &answers[first_refusal.unwrap_or(answers.len())..];
        assert!(after.iter().all(|status| *status == 503), "{after:?}");
    }

    for lane in [0, 1] {
        // The last event may be accepted without an answer: present or not, both are correct.
        let newest = streams.first().newest(lane);
        assert!((answered[lane]..=answered[lane] + 1).contains(&newest), "{answered:?}, {newest}");
        streams.assert_whole(lane, newest);
    }
    let mut reconnects = Vec::new();
    for (index, seen) in streams.ledgers().enumerate() {
        assert_eq!(seen.ends, [End::Whole], "stream {index}: {}", seen.story());
        assert_eq!(seen.shutdowns.len(), 1, "stream {index}: {}", seen.story());
        assert_eq!(seen.shutdowns[0]["reason"], "drain");
        assert_eq!(seen.events_after_shutdown, 0, "stream {index}: {}", seen.story());
        reconnects.push(seen.shutdowns[0]["reconnectMs"].as_u64().expect("a number"));
    }
    assert_spread(&reconnects);
}

/// An application on `fanfare::Server`, without a line about stopping.
#[tokio::test]
async fn an_application_on_the_own_server_drains_at_sigterm_by_itself() {
    let example = Example::start("stock_ticker", &[], &[]).await;
    drains_at_sigterm(example, "/events/stream?topic=ticker").await;
}

/// An application on `HttpServer`, with the one line `hub.attach`.
#[tokio::test]
async fn an_application_on_http_server_drains_at_sigterm_with_one_line() {
    let example = Example::start("social_feed", &["--no-bot"], &[]).await;
    drains_at_sigterm(example, "/events/feed?user=ada").await;
}

async fn drains_at_sigterm(mut example: Example, path: &str) {
    let mut stream = Stream::open(example.addr, path, &[]).await;
    stream.read_connected().await;
    let start = Instant::now();
    example.terminate();
    let events = stream.rest().await;
    let last = events.last().expect("a shutdown");
    assert_eq!((last.event.as_str(), &last.json()["reason"]), ("shutdown", &json!("drain")));
    assert!(stream.is_ended_cleanly());
    let exit = example.wait_exit(WINDOW + 2 * GRACE).await;
    println!("stopped in {:?}", start.elapsed());
    assert!(start.elapsed() < WINDOW + GRACE, "took {:?}", start.elapsed());
    assert_eq!(exit.code(), Some(0));
}

/// In process: a server's drain would be over before a client's second request.
#[actix_web::test]
async fn a_draining_hub_refuses_new_streams_and_publishes_and_says_that_it_is_not_ready() {
    let hub = Hub::start(Config::default()).expect("the defaults are valid");
    let routes = hub.clone();
    let server = HttpServer::new(move || App::new().configure(routes.routes("").all()))
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .expect("there is a free port");
    let addr = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    let server = actix_web::rt::spawn(server);
    assert_eq!(get(addr, "/health/ready").await.status, 200);
    hub.drain(WINDOW).await;

    assert_eq!(get(addr, "/health/ready").await.status, 503);
    assert_eq!(get(addr, "/health/live").await.status, 200);
    let event = json!({ "topic": "a", "data": 1 }).to_string();
    let headers = [("Content-Type", "application/json")];
    let publish = request(addr, "POST", "/publish", &headers, event.as_bytes()).await;
    let stream = get(addr, "/stream?topic=a").await;
    for refusal in [&publish, &stream] {
        assert_eq!((refusal.status, refusal.code().as_str()), (503, "draining"));
        let seconds = refusal.header("retry-after").expect("a temporary refusal says when");
        assert!(seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0), "{seconds}");
    }
    let browser = [("Sec-Fetch-Mode", "cors")];
    let mut stream = Stream::open(addr, "/stream?topic=a", &browser).await;
    let events = stream.rest().await;
    assert!(stream.is_ended_cleanly() && stream.retry().is_some(), "{}", stream.raw_text());
    let [shutdown] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (shutdown.event.as_str(), &shutdown.json()["reason"]),
        ("shutdown", &json!("drain"))
    );

    handle.stop(false).await;
    server.await.expect("no panic").expect("no error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_does_not_hold_up_the_end() {
    let mut server = Server::with_config(&config("1s")).await;
    let (_stalled, _reader) = stalled_and_reader(&server).await;
    let start = Instant::now();
    server.terminate();
    let exit = server.wait_exit(Duration::from_secs(1) + 2 * GRACE).await;
    assert!(start.elapsed() < Duration::from_secs(1) + GRACE, "took {:?}", start.elapsed());
    assert_eq!(exit.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
        let mut server = Server::with_config(&config("1m")).await;
        let (_stalled, reader) = stalled_and_reader(&server).await;
        server.signal(first);
        // The signal has arrived; the stalled client keeps the server from exiting.
        reader.until_all("got shutdown", |seen| !seen.shutdowns.is_empty()).await;
        assert_eq!(server.exit_status(), None, "after {first}");
        server.signal(second);
        let exit = server.wait_exit(Duration::from_secs(5)).await;
        assert_eq!(exit.code(), Some(1), "it has not drained, after {first} and {second}");
    }
}

fn config(window: &str) -> String {
    format!(
        r#"
        [server]
        drain = "{window}"
        [outbox]
        max_bytes = "16MiB"
        [stream]
        write_timeout = "5m"
        [delivery]
        flush = "immediate"
        "#
    )
}

/// A stalled stream with a full socket, and a reading one.
async fn stalled_and_reader(server: &Server) -> (Crowd, Crowd) {
    let plan = |topic: &str| Plan { query: format!("topic={topic}"), ..Plan::default() };
    let slow = Plan { receive_buffer_bytes: Some(4096), ..plan("end:full") };
    let stalled = Crowd::of(server.addr, 1, &slow);
    let reader = Crowd::of(server.addr, 1, &plan("end:idle"));
    stalled.until_connected(1).await;
    reader.until_connected(1).await;
    stalled.stall();
    let mut publisher = Publisher::connect(server.addr).await;
    let text = "z".repeat(60_000);
    eventually("the socket is full", async || {
        publisher.publish(0, "end:full", &text).await;
        server.metric("fanfare_outbox_bytes").await > 1_000_000.0
    })
    .await;
    (stalled, reader)
}

/// Publishes to both topics in turn until a refusal. Returns the events answered with 200.
async fn publish_until_refused(addr: SocketAddr) -> [u32; 2] {
    let mut publisher = Publisher::connect(addr).await;
    let mut answered = [0; 2];
    let mut pace = pace(EVENTS_PER_SECOND);
    loop {
        for (lane, topic) in ["load:a", "load:b"].into_iter().enumerate() {
            pace.tick().await;
            let event = publisher.next(lane, topic, "a price");
            match publisher.try_send(&event).await {
                Ok((200, _)) => answered[lane] = publisher.last(lane),
                Ok((status, answer)) => {
                    assert_eq!((status, &answer["error"]["code"]), (503, &"draining".into()));
                    return answered;
                }
                // The server ended before its answer.
                Err(_) => return answered,
            }
        }
    }
}

/// The statuses of consecutive requests, each on its own connection, until the port is closed.
async fn answers_until_gone(addr: SocketAddr, path: &str) -> Vec<u16> {
    let mut answers = Vec::new();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    while let Ok(mut socket) = TcpStream::connect(addr).await {
        let mut buffer = BytesMut::new();
        // The kernel may accept a connection for an ending process; it gets no answer.
        if socket.write_all(request.as_bytes()).await.is_ok()
            && let Ok(head) = Head::read(&mut socket, &mut buffer).await
        {
            answers.push(head.status);
        }
    }
    answers
}

/// The clients would not all reconnect at once.
fn assert_spread(reconnects_ms: &[u64]) {
    let window_ms = WINDOW.as_millis() as u64;
    assert!(reconnects_ms.iter().all(|at| *at <= window_ms), "{reconnects_ms:?}");
    let distinct: HashSet<u64> = reconnects_ms.iter().copied().collect();
    assert!(distinct.len() > reconnects_ms.len() / 2, "{} distinct", distinct.len());
    // Of a thousand uniform values a tenth of the window has a hundred on average.
    for tenth in 0..10 {
        let part = tenth * window_ms / 10..(tenth + 1) * window_ms / 10;
        let count = reconnects_ms.iter().filter(|at| part.contains(at)).count();
        assert!((30..250).contains(&count), "{count} return in {part:?} ms");
    }
}
