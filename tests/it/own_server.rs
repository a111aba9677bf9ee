//! `fanfare::Server` in applications: their own routes and raw streams on one port.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use actix_web::{
    App, HttpRequest, HttpResponse,
    dev::{RequestHead, ServerHandle},
    web::{self, Data},
};
use fanfare::{Config, Event, Hub, PublishError, Subscription};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinHandle, time::timeout};

use crate::support::{
    Stream,
    http::{get, publish, request},
    until,
    wait::DEADLINE,
};

/// Bound of a stop with nothing to wait for.
const SOON: Duration = Duration::from_secs(2);

/// An application with a hub's routes, a page, and a stream for logged-in users.
struct Application {
    hub: Hub,
    addr: SocketAddr,
    handle: ServerHandle,
    server: JoinHandle<std::io::Result<()>>,
}

impl Application {
    fn start(head_timeout: Duration) -> Self {
        let hub = Hub::start(Config::default()).expect("the defaults are valid");
        let app_hub = hub.clone();
        let server = fanfare::Server::new(&hub, move || {
            App::new()
                .configure(app_hub.routes("/events").all())
                .app_data(Data::new(app_hub.clone()))
                .route("/", web::get().to(async || "a page"))
                .route("/me", web::get().to(my_stream))
        });
        let server = server
            .streams_at("/events/stream")
            .streams_for("/me", subscription)
            .feeds_at("/events/feed")
            .feeds_for("/my/feed", |head| {
                Some(head.headers.get("x-user")?.to_str().ok()?.to_owned())
            })
            .workers(2)
            .client_request_timeout(head_timeout)
            .disable_signals()
            .bind("127.0.0.1:0")
            .expect("there is a free port");
        let addr = server.addrs()[0];
        let server = server.run().expect("it listens");
        let handle = server.handle();
        Self { hub, addr, handle, server: tokio::spawn(server) }
    }

    async fn raw_streams(&self) -> String {
        let metrics = get(self.addr, "/events/metrics").await;
        let line = metrics.text().lines().find_map(|line| {
            line.strip_prefix("fanfare_raw_streams_opened_total ").map(str::to_owned)
        });
        line.expect("it is among the metrics")
    }

    async fn stop(self) {
        self.handle.stop(true).await;
        self.server.await.expect("no panic").expect("it ended well");
    }
}

/// A user's allowed topics, by the name in the request.
fn subscription(head: &RequestHead) -> Option<Subscription> {
    let user = head.headers.get("x-user")?.to_str().ok()?;
    Some(Subscription::new().topic(format!("notifications:{user}")))
}

async fn my_stream(hub: Data<Hub>, request: HttpRequest) -> HttpResponse {
    match subscription(request.head()) {
        Some(subscription) => hub.stream(&request, subscription),
        None => HttpResponse::Unauthorized().body("log in first"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_application_runs_beside_raw_streams() {
    let app = Application::start(DEADLINE);
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Stream::subscribe(app.addr, "topic=a").await);
    }
    assert_eq!(app.raw_streams().await, "20");
    assert_eq!(get(app.addr, "/").await.text(), "a page");
    assert_eq!(get(app.addr, "/nowhere").await.status, 404);
    assert_eq!(get(app.addr, "/events/stream").await.code(), "bad_topic");
    let answer = publish(app.addr, json!({"topic": "a", "data": "by http"})).await;
    assert_eq!(answer["receivers"], 20);
    app.hub.publish("a", Event::text("by code")).await.expect("taken");
    for stream in &mut streams {
        assert_eq!(stream.take_data(2).await, ["by http", "by code"]);
    }
    drop(streams);
    until(DEADLINE, "all are forgotten", async || app.hub.connections() == 0).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_decides_what_a_raw_stream_hears() {
    let app = Application::start(DEADLINE);
    // The query cannot add topics.
    let path = "/me?topic=notifications:8&types=note";
    let mut mine = Stream::open(app.addr, path, &[("X-User", "7")]).await;
    mine.read_connected().await;
    assert_eq!(mine.connected["topics"], json!(["notifications:7"]));
    assert_eq!(app.raw_streams().await, "1");
    for (topic, event, data) in
        [("8", "note", "not mine"), ("7", "other", "not this"), ("7", "note", "mine")]
    {
        let event = Event::text(data).event_type(event);
        app.hub.publish(format!("notifications:{topic}"), event).await.expect("taken");
    }
    assert_eq!(mine.next().await.data, "mine");

    // Without a login, or with a name invalid as a topic, the application answers.
    let refused = get(app.addr, "/me").await;
    assert_eq!((refused.status, refused.text()), (401, "log in first"));
    let refused = request(app.addr, "GET", "/me", &[("X-User", "a::b")], b"").await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "bad_topic"));
    assert_eq!(app.raw_streams().await, "1");
    app.handle.stop(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_are_answered_on_the_bare_socket_too() {
    let app = Application::start(DEADLINE);
    app.hub.follow("ann", "bob").await.expect("taken");
    let mut asked = Stream::open(app.addr, "/events/feed?user=ann", &[]).await;
    let mut mine = Stream::open(app.addr, "/my/feed?user=bob", &[("X-User", "ann")]).await;
    for stream in [&mut asked, &mut mine] {
        stream.read_connected().await;
        assert_eq!(stream.connected["topics"], json!(["notifications:ann"]));
    }
    assert_eq!(app.raw_streams().await, "2");
    app.hub.publish("posts:bob", Event::text("a post")).await.expect("taken");
    for stream in [&mut asked, &mut mine] {
        assert_eq!(stream.next().await.data, "a post");
    }
    app.hub.unfollow("ann", "bob").await.expect("taken");
    app.hub.publish("posts:bob", Event::text("not hers")).await.expect("taken");
    app.hub.publish("notifications:ann", Event::text("a like")).await.expect("taken");
    for stream in [&mut asked, &mut mine] {
        assert_eq!(stream.next().await.data, "a like");
    }
    for path in ["/events/feed", "/events/feed?user=", "/events/feed?user=a&user=b"] {
        assert_eq!(get(app.addr, path).await.code(), "bad_user", "{path}");
    }
    // Not logged in: the request goes to the application, and it has no such route.
    assert_eq!(get(app.addr, "/my/feed").await.status, 404);
    assert_eq!(app.raw_streams().await, "2");
    app.handle.stop(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_drains_the_hub_and_waits_for_nobody_who_is_silent() {
    let app = Application::start(DEADLINE);
    let mut stream = Stream::subscribe(app.addr, "topic=a").await;
    let mut silent = TcpStream::connect(app.addr).await.expect("the server accepts");
    let start = Instant::now();
    let Application { hub, handle, server, .. } = app;
    let stopped = tokio::spawn(async move { handle.stop(true).await });
    // The silent connection is closed before its timeout.
    let mut nothing = Vec::new();
    let read = timeout(SOON, silent.read_to_end(&mut nothing)).await.expect("it is closed");
    assert!(nothing.is_empty(), "{read:?}: {nothing:?}");
    assert_eq!(stream.rest().await.last().expect("a shutdown").event, "shutdown");
    assert!(stream.is_ended_cleanly());
    stopped.await.expect("no panic");
    server.await.expect("no panic").expect("it ended well");
    assert!(start.elapsed() < Config::default().server.drain, "{:?}", start.elapsed());
    assert_eq!(hub.publish("a", Event::text("late")).await, Err(PublishError::Draining));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sends_no_head_in_time_is_told_so() {
    let head_timeout = Duration::from_millis(300);
    let app = Application::start(head_timeout);
    let start = Instant::now();
    let mut socket = TcpStream::connect(app.addr).await.expect("the server accepts");
    let mut answer = String::new();
    timeout(DEADLINE, socket.read_to_string(&mut answer)).await.expect("an end").expect("ASCII");
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    assert!(start.elapsed() >= head_timeout, "{:?}", start.elapsed());
    app.handle.stop(false).await;
}
