//! The clock of a hub under test: long times of the hub pass without waiting.

use std::time::Duration;

use actix_web::{App, dev::ServiceResponse, test};
use fanfare::{
    Config, Event, Hub,
    config::{Conflate, Flush, TopicPolicy},
    testing::{self, Clock, EventStream},
};
use serde_json::json;

use crate::support::Stream;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

async fn call(hub: &Hub, uri: &str) -> ServiceResponse {
    let app = test::init_service(App::new().configure(hub.routes("/events").streams())).await;
    test::call_service(&app, test::TestRequest::get().uri(uri).to_request()).await
}

async fn open(hub: &Hub, query: &str) -> EventStream {
    EventStream::open(call(hub, &format!("/events/stream?{query}")).await).await
}

async fn publish(hub: &Hub, topic: &str, event: Event) -> String {
    hub.publish(topic, event).await.expect("accepted").event_id
}

fn keyed(topic: &str) -> TopicPolicy {
    TopicPolicy::new(topic).conflate(Conflate::LatestByKey)
}

#[actix_web::test]
async fn a_key_ends_after_its_hour_and_not_before() {
    let clock = Clock::new();
    let hub = Hub::start(testing::config().topic(keyed("k"))).expect("valid");
    let mut stream = open(&hub, "topic=k").await;
    publish(&hub, "k", Event::text("1").key("a").ttl(HOUR)).await;
    assert_eq!(stream.next().await.data, "1");
    clock.advance(59 * MINUTE);
    publish(&hub, "k", Event::text("2").key("b")).await;
    assert_eq!(stream.next().await.data, "2");
    clock.advance(2 * MINUTE);
    let removed = stream.next().await;
    assert_eq!(
        (removed.event.as_str(), removed.json()),
        ("deleted", json!({"topic": "k", "key": "a"}))
    );
}

#[actix_web::test]
async fn a_tick_comes_with_the_clock() {
    let clock = Clock::new();
    let latest = TopicPolicy::new("slow").conflate(Conflate::Latest).flush(Flush::Tick).tick(HOUR);
    let hub = Hub::start(testing::config().topic(latest)).expect("valid");
    let mut stream = open(&hub, "topics=slow,quick").await;
    for number in 1..=3 {
        publish(&hub, "slow", Event::text(number.to_string())).await;
    }
    publish(&hub, "quick", Event::text("at once")).await;
    assert_eq!(stream.next().await.data, "at once");
    clock.advance(HOUR);
    assert_eq!(stream.next().await.data, "3");
}

#[actix_web::test]
async fn history_expires_with_the_clock() {
    let clock = Clock::new();
    let config = testing::config().with(|config| config.history.ttl = HOUR);
    let hub = Hub::start(config).expect("valid");
    let first = publish(&hub, "news", Event::text("1")).await;
    publish(&hub, "news", Event::text("2")).await;
    clock.advance(50 * MINUTE);
    publish(&hub, "news", Event::text("3")).await;
    let mut resumed = open(&hub, &format!("topic=news&last_event_id={first}")).await;
    assert_eq!([resumed.next().await.data, resumed.next().await.data], ["2", "3"]);
    clock.advance(11 * MINUTE);
    // History is swept now and then.
    testing::eventually("the second event has expired", async || {
        let mut resumed = open(&hub, &format!("topic=news&last_event_id={first}")).await;
        resumed.next().await.event == "gap" && resumed.next().await.data == "3"
    })
    .await;
}

#[actix_web::test]
async fn a_poll_waits_by_the_clock() {
    let clock = Clock::new();
    let hub = Hub::start(testing::config()).expect("valid");
    let cursor = publish(&hub, "news", Event::text("1")).await;
    let uri = format!("/events/poll?topic=news&wait=60&last_event_id={cursor}");
    let poll = call(&hub, &uri);
    let moving = async {
        // The wait begins with the open stream.
        testing::eventually("the poll waits", async || hub.connections() == 1).await;
        clock.advance(MINUTE);
    };
    let (answer, ()) = futures_util::future::join(poll, moving).await;
    let answer: serde_json::Value = test::read_body_json(answer).await;
    assert_eq!(answer["events"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_counts_on_the_workers_of_a_server() {
    let clock = Clock::new();
    let config = Config::default().with(|config| {
        config.stream.max_lifetime = HOUR;
        config.stream.max_lifetime_jitter = Duration::ZERO;
    });
    let hub = Hub::start(config).expect("valid");
    let routes = hub.clone();
    let app = move || App::new().configure(routes.routes("/events").streams());
    for is_raw in [true, false] {
        let server = fanfare::Server::new(&hub, app.clone()).workers(1).disable_signals();
        let server = if is_raw { server.streams_at("/events/stream") } else { server };
        let server = server.bind("127.0.0.1:0").expect("a free port");
        let addr = server.addrs()[0];
        let server = server.run().expect("it listens");
        let handle = server.handle();
        let running = tokio::spawn(server);
        let mut stream = Stream::subscribe(addr, "topic=news").await;
        clock.advance(HOUR);
        let end = stream.next().await;
        assert_eq!((end.event.as_str(), &end.json()["reason"]), ("shutdown", &json!("lifetime")));
        handle.stop(false).await;
        running.await.expect("no panic").expect("it ended well");
    }
}

#[actix_web::test]
async fn hubs_without_the_clock_keep_the_true_time() {
    let config = || testing::config().topic(keyed("k"));
    let other = Hub::start(config()).expect("valid");
    let other_thread = std::thread::spawn({
        let hub = other.clone();
        move || {
            let clock = Clock::new();
            clock.advance(2 * HOUR);
            drop(hub);
        }
    });
    let mut stream = open(&other, "topic=k").await;
    publish(&other, "k", Event::text("1").key("a").ttl(HOUR)).await;
    assert_eq!(stream.next().await.data, "1");
    other_thread.join().expect("no panic");
    {
        let clock = Clock::new();
        clock.advance(2 * HOUR);
    }
    publish(&other, "k", Event::text("2").key("b")).await;
    assert_eq!(stream.next().await.data, "2");
}
