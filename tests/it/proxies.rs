//! The real nginx and HAProxy, with the files of `config/`, in front of three instances.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    Instances, RedisServer, Stream,
    crowd::{Crowd, End, Plan, Publisher, pace},
    directory::Directory,
    http::{Lines, get, publish, request},
    ports::free_port,
    process::Process,
    redis::Options,
    repository, until,
    wait::DEADLINE,
};

/// Bound for an event's way through a proxy without buffering.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The ports in the files: the proxy's, and the instances'.
const LISTEN: u16 = 8080;
const INSTANCES: [u16; 3] = [8081, 8082, 8083];

/// Bound of an instance's drain, with a margin.
const DRAINED: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy)]
pub enum Proxy {
    Nginx,
    Haproxy,
}

const BOTH: [Proxy; 2] = [Proxy::Nginx, Proxy::Haproxy];

impl Proxy {
    /// The original file with other ports.
    fn config(self, listen: u16, instances: &[SocketAddr]) -> String {
        let name = match self {
            Self::Nginx => "nginx.conf",
            Self::Haproxy => "haproxy.cfg",
        };
        let path = repository().join("config").join(name);
        let mut text = fs::read_to_string(path).expect("the file is there");
        for (port, instance) in INSTANCES.into_iter().zip(instances) {
            text = text.replace(&format!("127.0.0.1:{port}"), &instance.to_string());
        }
        text.replace(&format!("127.0.0.1:{LISTEN}"), &format!("127.0.0.1:{listen}"))
    }

    fn start(self, config: &Path, directory: &Path) -> Process {
        let (config, directory) = (config.display(), directory.display());
        match self {
            Self::Nginx => {
                let more = format!("daemon off; pid {directory}/pid; error_log {directory}/log;");
                Process::start("nginx", &["-c", &config.to_string(), "-g", &more])
            }
            Self::Haproxy => Process::start("haproxy", &["-db", "-f", &config.to_string()]),
        }
    }
}

/// Three instances behind a proxy. Dropping it ends all.
pub struct Behind {
    pub addr: SocketAddr,
    pub instances: Instances,
    proxy: Process,
    _directory: Directory,
    _redis: RedisServer,
}

impl Drop for Behind {
    fn drop(&mut self) {
        // A killed nginx would leave its workers running.
        self.proxy.terminate();
    }
}

impl Behind {
    pub async fn new(proxy: Proxy, settings: &[(&str, &str)]) -> Self {
        println!("behind {proxy:?}");
        let redis = RedisServer::start(Options::default()).await;
        let urls = [redis.url(), redis.url(), redis.url()];
        let instances = Instances::start(&urls, settings).await;
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let directory = Directory::new("proxy");
        let config = proxy.config(addr.port(), &instances.addresses());
        let config = directory.write("config", &config);
        let mut process = proxy.start(&config, directory.path());
        until(DEADLINE, "the proxy listens", async || {
            assert!(process.is_running(), "{proxy:?} ended: {}", directory.read("log"));
            tokio::net::TcpStream::connect(addr).await.is_ok()
        })
        .await;
        until(DEADLINE, "it reaches an instance", async || {
            get(addr, "/health/ready").await.status == 200
        })
        .await;
        Self { addr, instances, proxy: process, _directory: directory, _redis: redis }
    }

    /// The index of the instance with the only stream.
    pub async fn with_stream(&self) -> usize {
        for (index, server) in self.instances.servers.iter().enumerate() {
            if server.stats().await["connections"] == 1 {
                return index;
            }
        }
        panic!("no instance has the stream");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_pass_nginx_and_haproxy_at_once_while_the_stream_stays_open() {
    for proxy in BOTH {
        let behind = Behind::new(proxy, &[("stream.heartbeat", "1s")]).await;
        let start = Instant::now();
        let mut stream = Stream::subscribe(behind.addr, "topic=live").await;
        assert!(start.elapsed() < AT_ONCE, "{proxy:?}: the head took {:?}", start.elapsed());
        for number in 0..10 {
            let start = Instant::now();
            let event = json!({ "topic": "live", "data": number });
            publish(behind.addr, event).await;
            assert_eq!(stream.take_data(1).await, [number.to_string()]);
            assert!(start.elapsed() < AT_ONCE, "{proxy:?}: it took {:?}", start.elapsed());
        }
        for _ in 0..3 {
            stream.next_comment(2 * AT_ONCE).await;
        }
        // A publisher waiting for the answer to each line before the next.
        let line = |number: usize| json!({ "topic": "live", "data": number }).to_string();
        let mut lines = Lines::open(behind.addr, &line(0)).await;
        for number in 0..5 {
            let start = Instant::now();
            let answer = lines.reader.next().await.expect("an answer");
            assert_eq!(answer["success"], true, "{answer}");
            assert_eq!(stream.take_data(1).await, [number.to_string()]);
            assert!(start.elapsed() < AT_ONCE, "{proxy:?}: it took {:?}", start.elapsed());
            lines.writer.send(&line(number + 1)).await;
        }
        lines.writer.finish().await;
        assert_eq!(stream.connected["resumed"], false, "the stream is the one from before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_and_haproxy_a_killed_instance_is_replaced_by_another_without_loss() {
    for proxy in BOTH {
        let mut behind = Behind::new(proxy, &[]).await;
        let mut stream = Stream::subscribe(behind.addr, "topics=a,b,c").await;
        let event = |text: &str| json!({ "topics": ["a", "b", "c"], "data": text });
        publish(behind.addr, event("before")).await;
        assert_eq!(stream.take_data(3).await, ["before"; 3]);
        let id = stream.last_id().to_owned();
        let victim = behind.with_stream().await;
        behind.instances.servers[victim].kill9();
        assert_eq!(stream.rest().await, []);
        assert!(!stream.is_ended_cleanly(), "{proxy:?} passes the cut on");
        // The proxy chooses the first instance freely. It must skip the dead one every time.
        for _ in 0..3 {
            publish(behind.addr, event("meanwhile")).await;
        }
        let mut stream = Stream::resume(behind.addr, "topics=a,b,c", &id).await;
        assert_eq!(stream.connected["resumed"], true);
        assert_eq!(stream.take_data(9).await, ["meanwhile"; 9]);
        publish(behind.addr, event("after")).await;
        assert_eq!(stream.take_data(3).await, ["after"; 3]);
    }
}

const DRAINED_STREAMS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_and_haproxy_nobody_is_refused_while_an_instance_drains() {
    for proxy in BOTH {
        let mut behind = Behind::new(proxy, &[("server.drain", "2s")]).await;
        let query = "topic=drain".to_owned();
        let plan = Plan { query, comes_back: true, ..Plan::default() };
        let streams = Crowd::of(behind.addr, DRAINED_STREAMS, &plan);
        streams.until_connected(1).await;
        let others: Vec<SocketAddr> = behind.instances.addresses()[1..].to_vec();
        let first = &mut behind.instances.servers[0];
        let on_first = first.stats().await["connections"].as_u64().expect("a number");
        assert!(on_first > 0, "{proxy:?} spreads streams");
        // Past the proxy: refusals of a draining instance are for publishers to handle.
        let mut publisher = Publisher::connect(others[0]).await;
        publisher.publish(0, "drain", "before").await;
        first.terminate();
        let mut pace = pace(50);
        while first.exit_status().is_none() {
            pace.tick().await;
            let newcomer = Stream::subscribe(behind.addr, "topic=drain").await;
            assert_eq!(newcomer.connected["resumed"], false);
            publisher.publish(0, "drain", "meanwhile").await;
        }
        assert_eq!(first.wait_exit(DRAINED).await.code(), Some(0));
        publisher.publish(0, "drain", "after").await;
        streams.until_number(0, publisher.last(0)).await;
        streams.assert_whole(0, publisher.last(0));
        let mut told = 0;
        for (index, seen) in streams.ledgers().enumerate() {
            assert!(seen.ends.iter().all(|end| *end == End::Whole), "{index}: {}", seen.story());
            assert_eq!(seen.resumed + 1, seen.connected, "{index}: {}", seen.story());
            told += usize::from(!seen.shutdowns.is_empty());
        }
        assert!(told as u64 >= on_first, "{told} of {on_first} got shutdown");
    }
}

const GONE_STREAMS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_and_haproxy_a_client_that_is_gone_is_noticed() {
    for proxy in BOTH {
        let behind = Behind::new(proxy, &[]).await;
        let plan = Plan { query: "topic=quiet".to_owned(), ..Plan::default() };
        let streams = Crowd::of(behind.addr, GONE_STREAMS, &plan);
        streams.until_connected(1).await;
        let open = behind.instances.metric("fanfare_connections").await;
        assert_eq!(open, GONE_STREAMS as f64);
        // Half of them with FIN, half with RST; long before the next heartbeat.
        streams.leave();
        until(DEADLINE, "no instance has a stream", async || {
            behind.instances.metric("fanfare_connections").await == 0.0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_instance_is_left_nginx_and_haproxy_tell_a_browser_to_come_back() {
    for proxy in BOTH {
        let mut behind = Behind::new(proxy, &[]).await;
        for server in &mut behind.instances.servers {
            server.kill9();
        }
        let path = "/events/stream?topic=a";
        for _ in 0..5 {
            let told = get(behind.addr, path).await;
            assert_eq!(told.status, 503, "{proxy:?}: {}", told.text());
            assert_eq!(told.header("retry-after"), Some("3"));
            // Over plain HTTP in a LAN, a browser sends only its name.
            for sign in [("Sec-Fetch-Mode", "cors"), ("User-Agent", "Mozilla/5.0 (X11)")] {
                let told = request(behind.addr, "GET", path, &[sign], b"").await;
                assert_eq!((told.status, told.text()), (200, "retry: 3000\n\n"), "{proxy:?}");
                let content_type = told.header("content-type");
                assert_eq!(content_type, Some("text/event-stream; charset=utf-8"));
            }
        }
        for index in 0..behind.instances.servers.len() {
            behind.instances.restart(index).await;
        }
        until(DEADLINE, "streams are served again", async || {
            // Not `subscribe`: the first request may still be refused with a retry time.
            let answer = Stream::try_get(behind.addr, path, &[]).await;
            answer.is_ok_and(|stream| stream.head.status == 200)
        })
        .await;
    }
}

/// An instance refusing every POST with 503, and counting them. Its health checks succeed.
async fn refusing_instance(posts: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(refuse(socket, posts.clone()));
        }
    });
    addr
}

/// Answers one request after its head and its announced body.
async fn refuse(mut socket: TcpStream, posts: Arc<AtomicUsize>) {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") && !received.ends_with(b"}") {
        if !matches!(socket.read_buf(&mut received).await, Ok(1..)) {
            return;
        }
    }
    let status = if received.starts_with(b"POST") {
        posts.fetch_add(1, Ordering::Relaxed);
        "503 Service Unavailable"
    } else {
        "200 OK"
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
    // The proxy may be gone.
    let _ = socket.write_all(answer.as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_publish_or_fan_out_is_never_sent_again_by_nginx_and_haproxy() {
    for proxy in BOTH {
        let posts = Arc::new(AtomicUsize::new(0));
        let mut instances = Vec::new();
        for _ in INSTANCES {
            instances.push(refusing_instance(posts.clone()).await);
        }
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let directory = Directory::new("proxy");
        let config = directory.write("config", &proxy.config(addr.port(), &instances));
        let mut process = proxy.start(&config, directory.path());
        until(DEADLINE, "the proxy reaches an instance", async || {
            assert!(process.is_running(), "{proxy:?} ended: {}", directory.read("log"));
            TcpStream::connect(addr).await.is_ok() && get(addr, "/health/ready").await.status == 200
        })
        .await;
        for (path, body) in [
            ("/events/publish", r#"{"topic":"a","data":1}"#),
            ("/events/fanout", r#"{"author":"a","data":1}"#),
        ] {
            let before = posts.load(Ordering::Relaxed);
            let headers = [("Content-Type", "application/json")];
            let answer = request(addr, "POST", path, &headers, body.as_bytes()).await;
            assert_eq!(answer.status, 503, "{proxy:?} {path}");
            assert_eq!(posts.load(Ordering::Relaxed) - before, 1, "{proxy:?} {path}");
        }
        process.terminate();
    }
}
