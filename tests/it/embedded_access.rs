//! An application with sessions of its own: its authorizer, the users and ends of its streams, and
//! its records of them. On the bare socket and over the framework's body.

use std::{
    net::SocketAddr,
    sync::mpsc::{Receiver, channel},
    time::{Duration, SystemTime},
};

use actix_web::{
    App, HttpRequest, HttpResponse,
    dev::{RequestHead, ServerHandle},
    web::{self, Data},
};
use fanfare::{
    Authorization, Authorizer, Config, Denied, Event, Hub, ShutdownReason, StreamChange,
    StreamFilter, StreamReport, Subscription,
};

use crate::support::{
    Stream,
    http::{Response, request},
    until,
    wait::DEADLINE,
};

/// Sessions by the name in a header: the name decides.
struct Sessions;

impl Authorizer for Sessions {
    async fn authorize(&self, request: &RequestHead) -> Result<Authorization, Denied> {
        match user_of(request) {
            None => Err(Denied::Unauthenticated),
            Some("locked") => Err(Denied::Forbidden),
            Some("broken") => Err(Denied::Unavailable),
            Some("root") => Ok(Authorization::of("root").manage(["**"])),
            Some("short") => Ok(Authorization::of("short").subscribe(["a:*"]).until(soon())),
            Some(user) => Ok(Authorization::of(user).subscribe(["a:{user}"]).publish(["a:*"])),
        }
    }
}

fn user_of(request: &RequestHead) -> Option<&str> {
    request.headers.get("x-user")?.to_str().ok()
}

fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_secs(1)
}

/// The stream of a login: for a second, if the name says so.
fn login(head: &RequestHead) -> Option<Subscription> {
    let user = user_of(head)?;
    let subscription = Subscription::new().topic(format!("mail:{user}")).user(user);
    Some(if user == "short" { subscription.until(soon()) } else { subscription })
}

async fn my_stream(hub: Data<Hub>, request: HttpRequest) -> HttpResponse {
    hub.stream(&request, login(request.head()).expect("the tests log in"))
}

struct Application {
    hub: Hub,
    addr: SocketAddr,
    handle: ServerHandle,
    reports: Receiver<StreamReport>,
}

impl Application {
    fn start() -> Self {
        let (sender, reports) = channel();
        let hub = Hub::builder(Config::default())
            .authorizer(Sessions)
            .on_stream(move |report| sender.send(report).expect("the test runs"))
            .start()
            .expect("the defaults are valid");
        let app_hub = hub.clone();
        let server = fanfare::Server::new(&hub, move || {
            App::new()
                .configure(app_hub.routes("/events").all())
                .route("/me", web::get().to(my_stream))
                .route("/body", web::get().to(my_stream))
        });
        let server = server
            .streams_at("/events/stream")
            .streams_for("/me", login)
            .workers(1)
            .disable_signals()
            .bind("127.0.0.1:0")
            .expect("there is a free port");
        let addr = server.addrs()[0];
        let server = server.run().expect("it listens");
        let handle = server.handle();
        tokio::spawn(server);
        Self { hub, addr, handle, reports }
    }

    async fn open(&self, path: &str, user: &str) -> Stream {
        let mut stream = Stream::open(self.addr, path, &[("X-User", user)]).await;
        stream.read_connected().await;
        stream
    }

    async fn get(&self, path: &str, user: Option<&str>) -> Response {
        let headers: Vec<_> = user.iter().map(|user| ("X-User", *user)).collect();
        request(self.addr, "GET", path, &headers, b"").await
    }

    async fn publish(&self, topic: &str, data: &str) {
        self.hub.publish(topic, Event::text(data)).await.expect("it publishes");
    }

    /// The next report. Its thread sends it soon.
    fn report(&self) -> StreamReport {
        self.reports.recv_timeout(DEADLINE).expect("a report in time")
    }

    async fn stop(self) {
        self.handle.stop(true).await;
    }
}

async fn end_of(stream: &mut Stream) -> String {
    let events = stream.rest().await;
    let last = events.last().expect("a shutdown");
    assert_eq!(last.event, "shutdown", "{events:?}");
    last.json()["reason"].as_str().expect("a reason").to_owned()
}

#[actix_web::test]
async fn the_authorizer_decides_about_every_caller() {
    let application = Application::start();
    let path = "/events/stream?topic=a:ann";
    for (user, status, code) in [
        (None, 401, "unauthenticated"),
        (Some("locked"), 403, "forbidden"),
        (Some("broken"), 503, "access_down"),
        (Some("bob"), 403, "forbidden"),
    ] {
        for path in [path, "/events/poll?topic=a:ann", "/events/cursor?topic=a:ann"] {
            let refused = application.get(path, user).await;
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (status, code),
                "{user:?} {path}"
            );
        }
    }
    let mut stream = application.open(path, "ann").await;
    let headers = [("X-User", "bob"), ("Content-Type", "application/json")];
    let body = br#"{"topic":"a:ann","data":"hello"}"#;
    let answer = request(application.addr, "POST", "/events/publish", &headers, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(stream.next().await.data, "hello");
    assert_eq!(application.get("/events/stats", Some("ann")).await.status, 403);
    assert_eq!(application.get("/events/stats", Some("root")).await.status, 200);
    application.stop().await;
}

#[actix_web::test]
async fn a_stream_ends_with_the_authorization() {
    let application = Application::start();
    let mut stream = application.open("/events/stream?topic=a:1", "short").await;
    assert_eq!(stream.next().await.event, "renew");
    assert_eq!(end_of(&mut stream).await, "token");
    application.stop().await;
}

#[actix_web::test]
async fn a_stream_of_a_handler_has_its_user_and_its_end() {
    let application = Application::start();
    for path in ["/me", "/body"] {
        let mut ended = application.open(path, "short").await;
        assert_eq!(ended.next().await.event, "renew", "{path}");
        assert_eq!(end_of(&mut ended).await, "token", "{path}");
        let (mut ann, mut bob) =
            (application.open(path, "ann").await, application.open(path, "bob").await);
        let filter = || StreamFilter::all().user("ann");
        let listed = application.hub.streams(filter()).await.expect("a list");
        let user = listed.iter().map(|stream| stream.user.as_deref()).collect::<Vec<_>>();
        assert_eq!(user, [Some("ann")], "{path}");
        assert_eq!(listed[0].client_id, ann.connected["clientId"], "{path}");
        // Nobody adds topics to the application's own streams.
        let change = format!("/events/streams/{}/topics", listed[0].client_id);
        let headers = [("X-User", "ann"), ("Content-Type", "application/json")];
        let body = br#"{"add":["mail:bob"]}"#;
        let refused = request(application.addr, "POST", &change, &headers, body).await;
        assert_eq!(refused.status, 403, "{path}: {}", refused.text());
        let count = application.hub.end_streams(filter(), ShutdownReason::Kicked).await;
        assert_eq!(count, Ok(1), "{path}");
        application.publish("mail:ann", "no").await;
        assert_eq!(end_of(&mut ann).await, "kicked", "{path}");
        application.publish("mail:bob", "yes").await;
        assert_eq!(bob.next().await.data, "yes", "{path}");
        bob.close().await;
        until(DEADLINE, "bob is gone", async || application.hub.connections() == 0).await;
    }
    application.stop().await;
}

#[actix_web::test]
async fn the_application_learns_each_opened_and_closed_stream() {
    let application = Application::start();
    for path in ["/me", "/body"] {
        let mut stream = application.open(path, "ann").await;
        let opened = application.report();
        assert_eq!((&opened.change, opened.missed), (&StreamChange::Opened, 0), "{path}");
        assert_eq!(opened.stream.user.as_deref(), Some("ann"));
        assert_eq!(opened.stream.client_id, stream.connected["clientId"]);
        assert_eq!(opened.stream.topics, ["mail:ann"]);
        // A poll is no stream.
        let poll = application.get("/events/poll?topic=a:ann&wait=0", Some("ann")).await;
        assert_eq!(poll.status, 200, "{}", poll.text());
        application.publish("mail:ann", "1").await;
        assert_eq!(stream.next().await.data, "1");
        stream.close().await;
        let closed = application.report();
        assert_eq!(closed.stream.client_id, opened.stream.client_id);
        let StreamChange::Closed { reason, events, .. } = closed.change else {
            panic!("{path}: {closed:?}")
        };
        assert_eq!((reason, events), ("client", 1), "{path}");
    }
    let mut stream = application.open("/me", "short").await;
    assert_eq!(application.report().change, StreamChange::Opened);
    assert_eq!(stream.next().await.event, "renew");
    assert_eq!(end_of(&mut stream).await, "token");
    let closed = application.report();
    assert!(matches!(closed.change, StreamChange::Closed { reason: "token", .. }), "{closed:?}");
    application.stop().await;
}
