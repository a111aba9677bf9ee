//! The Rust blocks of README and book, compiled. A whole program is an example. Each other block
//! stands here in a function with its surroundings, and the test compares the texts.

#![allow(
    dead_code,
    unused_must_use,
    unused_variables,
    clippy::redundant_closure,
    reason = "compiled, not run, as it stands in the documents"
)]

use std::{
    error::Error,
    fs,
    future::pending,
    path::{Path, PathBuf},
    time::Duration,
};

use actix_web::{
    App, HttpServer,
    dev::{RequestHead, ServerHandle},
};
use fanfare::{
    Config, Event, Hub, Published, Subscription,
    follow::{Counts, Follow, FollowGraph, GraphFuture, Page, User},
    testing::{self, EventStream},
};

use crate::support::repository;

type Outcome = Result<(), Box<dyn Error>>;

mod first_test {
    use actix_web::{App, test};
    use fanfare::{
        Event, Hub,
        testing::{self, EventStream},
    };

    #[actix_web::test]
    async fn a_headline_reaches_the_stream() {
        let hub = Hub::start(testing::config()).expect("it is valid");
        let app = test::init_service(App::new().configure(hub.routes("/events").streams())).await;
        let request = test::TestRequest::get().uri("/events/stream?topic=news").to_request();
        let mut stream = EventStream::open(test::call_service(&app, request).await).await;

        let published = hub.publish("news", Event::text("hello")).await.expect("accepted");
        let event = stream.next().await;
        assert_eq!((event.data.as_str(), &event.id), ("hello", &published.event_id));
    }
}

async fn long_times(mut stream: EventStream) -> Outcome {
    let clock = testing::Clock::new();
    let hub = Hub::start(testing::config())?;
    // … open a stream, and publish an event with a key and `.ttl(Duration::from_secs(3600))` …
    clock.advance(Duration::from_secs(3600));
    assert_eq!(stream.next_of("deleted").await.event, "deleted");
    Ok(())
}

fn fast_delivery() {
    let mut config = Config::default();
    config.delivery.flush = fanfare::config::Flush::Immediate;
    config.stream.heartbeat = Duration::from_millis(100); // to see heartbeats
}

fn resuming(published: &Published) {
    use actix_web::test;
    let request = test::TestRequest::get()
        .uri("/events/stream?topic=news")
        .insert_header(("Last-Event-ID", published.event_id.as_str()))
        .to_request();
}

async fn a_page(hub: Hub) -> Outcome {
    let app = App::new;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server =
        HttpServer::new(app).disable_signals().h1_allow_half_closed(false).listen(listener)?.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    // … drive the browser against http://{address}/ …
    hub.drain(Duration::from_secs(5)).await;
    handle.stop(true).await;
    Ok(())
}

/// An application's graph.
struct MyGraph;

impl MyGraph {
    fn new(_: Pool) -> Self {
        Self
    }

    fn empty() -> Self {
        Self
    }
}

/// An application's database.
struct Pool;

impl FollowGraph for MyGraph {
    fn follow(&self, _: Vec<Follow>) -> GraphFuture<'_, u64> {
        Box::pin(pending())
    }

    fn unfollow(&self, _: Vec<Follow>) -> GraphFuture<'_, u64> {
        Box::pin(pending())
    }

    fn followers(&self, _: User, _: Option<String>, _: usize) -> GraphFuture<'_, Page> {
        Box::pin(pending())
    }

    fn following(&self, _: User, _: Option<String>, _: usize) -> GraphFuture<'_, Page> {
        Box::pin(pending())
    }

    fn counts(&self, _: User) -> GraphFuture<'_, Counts> {
        Box::pin(pending())
    }
}

fn own_store(config: Config, pool: Pool) -> Outcome {
    let hub = Hub::builder(config).follow_graph(MyGraph::new(pool)).start()?;
    Ok(())
}

#[allow(unnameable_test_items, reason = "compiled, not run: this store never answers")]
fn own_graph() {
    #[actix_web::test]
    async fn my_graph_keeps_the_contract() {
        fanfare::follow::contract::graph(&MyGraph::empty()).await;
    }
}

fn mounting(hub: &Hub) {
    let app = App::new().configure(hub.routes("/events").streams().publishing());
}

async fn publishing(hub: Hub, price: f64) -> Outcome {
    let event = Event::json(&price)?.event_type("price").key("GOOG").id("trade-1");
    match hub.publish("ticker:GOOG", event).await {
        Ok(published) => println!("{} streams here", published.receivers),
        Err(error) => eprintln!("{}: {error}", error.code()),
    }
    Ok(())
}

mod names {
    use std::error::Error;

    use fanfare::Hub;
    use fanfare::{Subscription, Topics};

    #[derive(serde::Serialize)]
    struct Note {
        text: String,
    }

    const NOTES: Topics<Note> = Topics::new("notifications").event_type("note");

    async fn named(hub: Hub, user: String, note: Note) -> Result<(), Box<dyn Error>> {
        NOTES.of(&user).publish(&hub, &note).await?; // notifications:ada
        Subscription::new().topic(&NOTES.of(&user));
        Subscription::new().topic(NOTES.all()); // notifications:*
        Ok(())
    }
}

fn configuring() -> Outcome {
    use fanfare::config::{Conflate, Sources, TopicPolicy, process_environment};

    let sources = Sources::default().environment(process_environment()); // FANFARE__… variables; also .file(path), .toml(text)
    let ticker = TopicPolicy::new("ticker:**").conflate(Conflate::LatestByKey);
    let config = Config::load(&sources)?.topic(ticker).with(|config| config.history.events = 100);
    let hub = Hub::start(config)?;
    Ok(())
}

async fn stopping(hub: Hub, server_handle: ServerHandle) {
    hub.drain(Duration::from_secs(5)).await;
    server_handle.stop(true).await;
}

async fn raw_streams(hub: Hub) -> Outcome {
    let app = App::new;
    fn my_subscription(_: &RequestHead) -> Option<Subscription> {
        None
    }
    let server = fanfare::Server::new(&hub, app)
        .streams_at("/events/stream") // topics from the query
        .streams_for("/me", |head| my_subscription(head)) // topics by your own login; `None`: the application answers
        .feeds_at("/events/feed");
    server.bind("127.0.0.1:8080")?.run()?.await?;
    Ok(())
}

/// The text without its layout: blanks, and commas before a closing bracket.
fn normalized(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    text.replace(",}", "}").replace(",)", ")").replace(",]", "]")
}

/// All files below a directory with this extension.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let found = paths.flat_map(|path| match path.is_dir() {
        true => files(&path, extension),
        false if path.extension().is_some_and(|it| it == extension) => vec![path],
        false => Vec::new(),
    });
    found.collect()
}

/// The Rust blocks of a page.
fn blocks(page: &str) -> Vec<&str> {
    let blocks = page.split("\n```rust").skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap_or(block)).collect()
}

/// The paragraphs of a block: its items and its statements can stand in different places.
fn parts(block: &str) -> Vec<String> {
    block.split("\n\n").map(normalized).filter(|part| !part.is_empty()).collect()
}

#[test]
fn every_rust_block_of_the_documents_is_compiled() {
    let root = repository();
    let mut compiled = vec![normalized(include_str!("documented_rust.rs"))];
    for example in files(&root.join("examples"), "rs") {
        compiled.push(normalized(&fs::read_to_string(example).expect("an example")));
    }
    let mut pages = files(&root.join("docs"), "md");
    pages.push(root.join("README.md"));
    let mut count = 0;
    for path in pages {
        let page = fs::read_to_string(&path).expect("a page");
        for block in blocks(&page) {
            let parts = parts(block);
            let is_compiled =
                compiled.iter().any(|text| parts.iter().all(|part| text.contains(part)));
            assert!(is_compiled, "{}: no test or example compiles:{block}", path.display());
            count += 1;
        }
    }
    assert!(count >= 14, "{count} blocks");
}
