//! The library in applications: every runtime, no socket, several hubs.

use std::{
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::{Arc, Mutex},
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, Responder,
    body::{BodySize, BoxBody, MessageBody},
    dev::{ServerHandle, ServiceResponse},
    test, web,
};
use fanfare::{Config, Event, Hub, PublishError, Routes, Subscription};
use serde_json::json;
use tokio::time::timeout;

use crate::support::{
    Stream,
    http::{get, try_publish},
    publish, until,
    wait::DEADLINE,
};

fn hub() -> Hub {
    Hub::start(Config::default()).expect("the defaults are valid")
}

/// The body of a stream without a socket.
struct Body {
    body: Pin<Box<BoxBody>>,
    text: String,
}

impl Body {
    fn of(response: ServiceResponse) -> Self {
        assert_eq!(response.status(), 200);
        let content_type = response.headers().get("content-type").expect("a content type");
        assert_eq!(content_type, "text/event-stream; charset=utf-8");
        let body = response.into_body();
        assert_eq!(body.size(), BodySize::Stream);
        Self { body: Box::pin(body), text: String::new() }
    }

    async fn until_contains(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            assert!(self.more().await, "ended before {wanted:?}: {}", self.text);
        }
    }

    async fn until_end(&mut self) {
        while self.more().await {}
    }

    async fn more(&mut self) -> bool {
        let next = std::future::poll_fn(|task| self.body.as_mut().poll_next(task));
        let next = timeout(DEADLINE, next).await;
        let next = next.unwrap_or_else(|_| panic!("nothing in time after {}", self.text));
        let Some(bytes) = next else { return false };
        self.text += std::str::from_utf8(&bytes.expect("a body does not fail")).expect("UTF-8");
        true
    }
}

/// The logged-in user, as known to an application.
struct User(String);

async fn my_stream(
    hub: web::Data<Hub>,
    user: web::Data<User>,
    request: HttpRequest,
) -> impl Responder {
    hub.stream(&request, Subscription::new().topic(format!("notifications:{}", user.0)))
}

#[actix_web::test]
async fn all_endpoints_are_under_the_prefix() {
    let hub = hub();
    let app = test::init_service(App::new().configure(hub.routes("/live/events").all())).await;
    let call = async |path: &str| {
        let request = test::TestRequest::get().uri(path).to_request();
        test::call_service(&app, request).await
    };
    for path in ["health/live", "health/ready", "stats", "metrics"] {
        assert_eq!(call(&format!("/live/events/{path}")).await.status(), 200, "{path}");
    }
    assert_eq!(call("/events/stream?topic=a").await.status(), 404);
    assert_eq!(call("/live/events/stream").await.status(), 400);
    assert_eq!(call("/live/events/publish").await.status(), 405);
    let mut stream = Body::of(call("/live/events/stream?topic=a").await);
    stream.until_contains("event: connected").await;
    let request = test::TestRequest::post()
        .uri("/live/events/publish")
        .set_json(json!({"topic": "a", "data": "by http"}))
        .to_request();
    let answer: serde_json::Value = test::call_and_read_body_json(&app, request).await;
    assert_eq!(answer["receivers"], 1);
    stream.until_contains("data: by http\n").await;
    assert_eq!(hub.connections(), 1);
    drop(stream);
    until(DEADLINE, "the stream is forgotten", async || hub.connections() == 0).await;
}

#[actix_web::test]
async fn only_the_named_groups_are_mounted() {
    let paths = ["stream", "publish", "feed", "stats"];
    let mounted = async |routes: Routes| {
        let app = test::init_service(App::new().configure(routes)).await;
        let mut mounted = Vec::new();
        for path in paths {
            let request = test::TestRequest::get().uri(&format!("/events/{path}")).to_request();
            mounted.push(test::call_service(&app, request).await.status() != 404);
        }
        mounted
    };
    let (hub, at) = (hub(), "/events");
    assert_eq!(mounted(hub.routes(at)).await, [false; 4]);
    assert_eq!(mounted(hub.routes(at).streams()).await, [true, false, false, false]);
    assert_eq!(mounted(hub.routes(at).publishing()).await, [false, true, false, false]);
    assert_eq!(mounted(hub.routes(at).follows()).await, [false, false, true, false]);
    assert_eq!(mounted(hub.routes(at).operations()).await, [false, false, false, true]);
    assert_eq!(
        mounted(hub.routes(at).operations().streams().streams()).await,
        [true, false, false, true]
    );
    assert_eq!(mounted(hub.routes(at).all()).await, [true; 4]);
    // Nothing is left over from routes never mounted.
    drop(hub.routes(at).all());
    assert_eq!(mounted(hub.routes(at)).await, [false; 4]);
}

async fn ready(hub: Hub) -> String {
    hub.is_ready().to_string()
}

#[actix_web::test]
async fn a_handler_without_a_registered_hub_tells_the_remedy() {
    let request = || test::TestRequest::get().uri("/ready").to_request();
    let app = App::new().route("/ready", web::get().to(ready));
    let refused = test::call_service(&test::init_service(app).await, request()).await;
    assert_eq!(refused.status(), 500);
    let refused: serde_json::Value = test::read_body_json(refused).await;
    assert_eq!(refused["error"]["code"], "hub_not_registered");
    let advice = refused["error"]["message"].as_str().expect("a message");
    assert!(advice.contains(".app_data(web::Data::new(hub.clone()))"), "{advice}");

    let app = App::new().configure(hub().routes("")).route("/ready", web::get().to(ready));
    let answer = test::call_and_read_body(&test::init_service(app).await, request()).await;
    assert_eq!(answer, "true");
}

#[actix_web::test]
async fn a_server_with_one_line_gives_its_handlers_the_hub() {
    let hub = hub();
    let app = || App::new().route("/ready", web::get().to(ready));
    let server = hub.attach(HttpServer::new(app)).workers(1).disable_signals();
    let server = server.bind("127.0.0.1:0").expect("there is a free port");
    let addr = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    let server = actix_web::rt::spawn(server);
    let answer = get(addr, "/ready").await;
    assert_eq!((answer.status, answer.text()), (200, "true"));
    handle.stop(true).await;
    server.await.expect("it ends").expect("it ran");
}

#[actix_web::test]
async fn an_own_handler_streams_only_its_user_s_topic() {
    let hub = hub();
    let app = App::new()
        .app_data(web::Data::new(hub.clone()))
        .app_data(web::Data::new(User("7".to_owned())))
        .route("/me", web::get().to(my_stream));
    let app = test::init_service(app).await;
    // The query cannot add topics.
    let request = test::TestRequest::get().uri("/me?topic=notifications:8&topics=**").to_request();
    let mut mine = Body::of(test::call_service(&app, request).await);
    mine.until_contains("event: connected").await;
    assert!(mine.text.contains("\"topics\":[\"notifications:7\"]"), "{}", mine.text);
    let other = hub.publish("notifications:8", Event::text("not mine")).await.expect("taken");
    assert_eq!(other.receivers, 0);
    let published = hub.publish("notifications:7", Event::text("mine")).await.expect("taken");
    assert_eq!(published.receivers, 1);
    mine.until_contains("data: mine\n").await;
    assert!(!mine.text.contains("not mine"));

    // A resume is a matter of the request, not of the subscription.
    hub.publish("notifications:7", Event::text("later")).await.expect("taken");
    let request = test::TestRequest::get()
        .uri("/me")
        .insert_header(("Last-Event-ID", published.event_id.as_str()))
        .to_request();
    let mut again = Body::of(test::call_service(&app, request).await);
    again.until_contains("data: later\n").await;
    assert!(again.text.contains("\"resumed\":true"));
    assert!(!again.text.contains("data: mine\n"));
}

#[actix_web::test]
async fn a_bad_subscription_of_an_own_handler_is_answered_400() {
    let hub = hub();
    let request = test::TestRequest::get().to_http_request();
    for subscription in [Subscription::new(), Subscription::new().topic("a::b")] {
        let response: HttpResponse = hub.stream(&request, subscription);
        assert_eq!(response.status(), 400);
    }
    assert_eq!(hub.connections(), 0);
}

#[actix_web::test]
async fn events_are_built_and_refused_in_code() {
    let hub = hub();
    let app = test::init_service(App::new().configure(hub.routes("").streams())).await;
    let request = test::TestRequest::get().uri("/stream?topic=a").to_request();
    let mut stream = Body::of(test::call_service(&app, request).await);
    stream.until_contains("event: connected").await;
    let event = Event::json(&json!({"price": 1.5})).expect("it serializes");
    let first =
        hub.publish("a", event.clone().event_type("tick").key("k").id("one")).await.expect("taken");
    let again = hub.publish("a", event.event_type("tick").key("k").id("one")).await.expect("known");
    assert_eq!(first, again);
    stream.until_contains("event: tick\n").await;
    stream.until_contains("data: {\"price\":1.5}\n").await;
    for event in [
        Event::text("x").event_type("gap"),
        Event::text("x").event_type("a\nb"),
        Event::text("x").key("\r"),
        Event::text("x").id("\0"),
        Event::text("a\0b"),
    ] {
        assert!(matches!(hub.publish("a", event).await, Err(PublishError::Event(_))));
    }
    assert!(matches!(hub.publish("a::b", Event::text("x")).await, Err(PublishError::Topic(_))));
    assert!(matches!(hub.publish("a:*", Event::text("x")).await, Err(PublishError::Topic(_))));
}

#[actix_web::test]
async fn several_hubs_in_one_application_know_nothing_of_each_other() {
    let (first, second) = (hub(), hub());
    let app = App::new()
        .configure(first.routes("/one").streams())
        .configure(second.routes("/two").streams());
    let app = test::init_service(app).await;
    let open = async |path: &str| {
        let request = test::TestRequest::get().uri(path).to_request();
        Body::of(test::call_service(&app, request).await)
    };
    let mut one = open("/one/stream?topic=a").await;
    let mut two = open("/two/stream?topic=a").await;
    one.until_contains("event: connected").await;
    two.until_contains("event: connected").await;
    assert_eq!((first.connections(), second.connections()), (1, 1));
    assert_eq!(first.publish("a", Event::text("to one")).await.expect("taken").receivers, 1);
    assert_eq!(second.publish("a", Event::text("to two")).await.expect("taken").receivers, 1);
    one.until_contains("data: to one\n").await;
    two.until_contains("data: to two\n").await;
    assert!(!one.text.contains("to two") && !two.text.contains("to one"));
    drop(one);
    until(DEADLINE, "one is closed", async || first.connections() == 0).await;
    assert_eq!(second.connections(), 1);
}

#[actix_web::test]
async fn a_drained_hub_ends_streams_and_takes_nothing() {
    let hub = hub();
    let app = test::init_service(App::new().configure(hub.routes("/events").all())).await;
    let call = async |path: &str| {
        test::call_service(&app, test::TestRequest::get().uri(path).to_request()).await
    };
    let mut stream = Body::of(call("/events/stream?topic=a").await);
    stream.until_contains("event: connected").await;
    hub.publish("a", Event::text("pending")).await.expect("taken");
    hub.drain(DEADLINE).await;
    stream.until_end().await;
    let (pending, shutdown) =
        (stream.text.find("data: pending"), stream.text.find("event: shutdown"));
    assert!(pending.is_some() && pending < shutdown, "{}", stream.text);
    assert!(stream.text.contains("\"reason\":\"drain\""), "{}", stream.text);
    assert!(!hub.is_ready());
    assert_eq!(call("/events/health/ready").await.status(), 503);
    assert_eq!(call("/events/health/live").await.status(), 200);
    let refused = call("/events/stream?topic=a").await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(hub.publish("a", Event::text("late")).await, Err(PublishError::Draining));
}

/// An application on real sockets, with workers.
struct Running {
    addr: SocketAddr,
    handle: ServerHandle,
}

fn serve(hub: Arc<Mutex<Option<Hub>>>, workers: usize) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let server = HttpServer::new(move || {
        // Only the slot owns the hub; the application has no handle of its own.
        App::new().app_data(web::Data::from(hub.clone())).route("/mine", web::get().to(from_slot))
    });
    let server = server.workers(workers).disable_signals().h1_allow_half_closed(false);
    let server = server.listen(listener).expect("a listening socket").run();
    let handle = server.handle();
    tokio::spawn(server);
    Running { addr, handle }
}

async fn from_slot(slot: web::Data<Mutex<Option<Hub>>>, request: HttpRequest) -> HttpResponse {
    let hub = slot.lock().expect("nobody panicked").clone();
    hub.map_or_else(
        || HttpResponse::Gone().finish(),
        |hub| hub.stream(&request, Subscription::new().topic("a").topic("b:*")),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_handle_ends_the_streams() {
    let hub = hub();
    let slot = Arc::new(Mutex::new(Some(hub.clone())));
    let app = serve(slot.clone(), 3);
    let mut streams = Vec::new();
    for _ in 0..12 {
        let mut stream = Stream::open(app.addr, "/mine", &[]).await;
        stream.read_connected().await;
        streams.push(stream);
    }
    assert_eq!(hub.connections(), 12);
    assert_eq!(hub.publish("b:x", Event::text("hello")).await.expect("taken").receivers, 12);
    for stream in &mut streams {
        assert_eq!(stream.next().await.data, "hello");
    }
    drop(hub);
    slot.lock().expect("nobody panicked").take();
    for stream in &mut streams {
        let events = stream.rest().await;
        assert!(stream.is_ended_cleanly());
        let last = events.last().expect("a shutdown");
        assert_eq!(last.event, "shutdown");
    }
    assert_eq!(get(app.addr, "/mine").await.status, 410);
    app.handle.stop(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_under_tokio_with_many_workers() {
    let hub = hub();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let app_hub = hub.clone();
    let server = HttpServer::new(move || {
        App::new().configure(app_hub.routes("/events").streams().publishing())
    });
    let server = server.workers(4).disable_signals().h1_allow_half_closed(false);
    let server = server.listen(listener).expect("a listening socket").run();
    let handle = server.handle();
    let server = tokio::spawn(server);

    let mut streams = Vec::new();
    for number in 0..40 {
        let query = if number % 2 == 0 { "topic=a" } else { "topics=*,b:*" };
        streams.push(Stream::subscribe(addr, query).await);
    }
    for number in 0..20 {
        let published = hub.publish("a", Event::text(number.to_string())).await.expect("taken");
        assert_eq!(published.receivers, 40);
    }
    assert_eq!(publish(addr, json!({"topic": "a", "data": "20"})).await["receivers"], 40);
    let expected: Vec<String> = (0..=20).map(|number| number.to_string()).collect();
    for stream in &mut streams {
        assert_eq!(stream.take_data(21).await, expected);
    }
    drop(streams);
    until(DEADLINE, "all are forgotten", async || hub.connections() == 0).await;
    hub.drain(DEADLINE).await;
    assert_eq!(try_publish(addr, &json!({"topic": "a", "data": "late"})).await.status, 503);
    handle.stop(true).await;
    server.await.expect("no panic").expect("it ended well");
}

#[tokio::test]
async fn a_hub_can_be_started_and_published_to_without_a_server() {
    let hub = hub();
    for sequence in 1..=100 {
        let published = hub.publish("a", Event::text("x")).await.expect("taken");
        assert_eq!((published.sequence, published.receivers), (sequence, 0));
    }
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let hub = hub.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let publish =
                    async { hub.publish("a", Event::text("x")).await.map(|p| p.sequence) };
                runtime.expect("a runtime").block_on(publish).expect("taken")
            })
        })
        .collect();
    let mut sequences: Vec<u64> =
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, [101, 102, 103, 104], "from any runtime");
}

#[tokio::test]
async fn a_configuration_that_does_not_hold_starts_nothing() {
    let mut config = Config::default();
    config.hub.partitions = 3;
    let Err(error) = Hub::start(config) else { panic!("three is no power of two") };
    assert!(error.to_string().contains("hub.partitions"), "{error}");
}
