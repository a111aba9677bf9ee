//! The proxy itself. A proxy without effect would let the tests behind it pass for nothing.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    RedisServer,
    chaos::{ChaosProxy, Kind, Mode},
    redis::Options,
    until,
    wait::DEADLINE,
};

const DELAY: Duration = Duration::from_millis(200);

/// Longer than an answer takes without a stall.
const NOTHING_COMES: Duration = Duration::from_millis(300);

/// A connection to Redis with inline commands.
struct Client(TcpStream);

impl Client {
    async fn connect(proxy: &ChaosProxy) -> Self {
        Self(TcpStream::connect(proxy.addr).await.expect("the proxy accepts"))
    }

    async fn send(&mut self, command: &str) {
        // A write to a reset connection fails. The tests check the missing answer instead.
        let _ = self.0.write_all(format!("{command}\r\n").as_bytes()).await;
    }

    /// An answer of one line; empty if the connection has ended.
    async fn answer(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            match self.0.read_u8().await {
                Ok(byte) => line.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(line).expect("ASCII").trim_end().to_owned()
    }

    async fn ask(&mut self, command: &str) -> String {
        self.send(command).await;
        timeout(DEADLINE, self.answer()).await.expect("an answer in time")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chaos_proxy_holds_delays_and_cuts_and_loses_nothing_but_what_it_cuts() {
    let redis = RedisServer::start(Options::default()).await;
    let proxy = ChaosProxy::start(redis.addr()).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask("PING").await, "+PONG");

    proxy.set(Mode::Stall);
    for number in 0..100 {
        client.send(&format!("ECHO {number}")).await;
    }
    assert!(timeout(NOTHING_COMES, client.answer()).await.is_err(), "it is held");
    proxy.set(Mode::Pass);
    for number in 0..100 {
        assert!(client.answer().await.starts_with('$'));
        assert_eq!(client.answer().await, number.to_string());
    }

    proxy.set(Mode::Delay(DELAY));
    // A connection applies a new mode after a moment.
    until(DEADLINE, "both ways are delayed", async || {
        let start = Instant::now();
        assert_eq!(client.ask("PING").await, "+PONG");
        start.elapsed() >= 2 * DELAY
    })
    .await;

    proxy.set(Mode::Cut);
    assert_eq!(client.ask("PING").await, "");
    // The reset comes before or after the connect returns.
    if let Ok(socket) = TcpStream::connect(proxy.addr).await {
        assert_eq!(Client(socket).ask("PING").await, "");
    }
    until(DEADLINE, "none is open", async || proxy.all_open() == 0).await;
    proxy.set(Mode::Pass);
    assert_eq!(Client::connect(&proxy).await.ask("PING").await, "+PONG");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chaos_proxy_tells_connections_apart_by_their_names() {
    let redis = RedisServer::start(Options::default()).await;
    let proxy = ChaosProxy::start(redis.addr()).await;
    let (mut publish, mut subscribe) =
        (Client::connect(&proxy).await, Client::connect(&proxy).await);
    assert_eq!(publish.ask("CLIENT SETNAME fanfare-publish").await, "+OK");
    assert_eq!(subscribe.ask("CLIENT SETNAME fanfare-subscribe").await, "+OK");
    assert_eq!((proxy.open(Kind::Publish), proxy.open(Kind::Subscribe)), (1, 1));

    proxy.set_for(Kind::Subscribe, Mode::Cut);
    assert_eq!(subscribe.ask("PING").await, "");
    assert_eq!(publish.ask("PING").await, "+PONG");
    let mut again = Client::connect(&proxy).await;
    assert_eq!(again.ask("PING").await, "+PONG");
    assert_eq!(again.ask("CLIENT SETNAME fanfare-subscribe").await, "");
    until(DEADLINE, "it is closed", async || proxy.open(Kind::Subscribe) == 0).await;
}
