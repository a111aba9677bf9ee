//! Renewals under load: a renewed stream loses nothing, gets nothing twice and never reconnects.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    Server,
    support::{
        Stream, heavy,
        http::request,
        tokens::{Library, Order, SECRET, mint, unix_s},
    },
};

const STREAMS: usize = 100;
const RENEWALS: usize = 20;

/// The life of a stream's first token: it ends within the test.
const FIRST_LIFE_S: u64 = 6;

/// Tokens of one user: the first is short.
fn tokens() -> Vec<String> {
    let claims = |number: usize| {
        let life_s = if number == 0 { FIRST_LIFE_S } else { 3600 };
        json!({
            "sub": "ann", "jti": number.to_string(), "exp": unix_s() + life_s,
            "fanfare": {"subscribe": ["a:*"]},
        })
    };
    let order = |number| Order::new("HS256", SECRET, claims(number));
    let publisher =
        json!({"sub": "backend", "exp": unix_s() + 3600, "fanfare": {"publish": ["**"]}});
    let orders = (0..=RENEWALS).map(order).chain([Order::new("HS256", SECRET, publisher)]);
    mint(Library::PyJwt, &orders.collect::<Vec<_>>())
}

async fn publish(addr: std::net::SocketAddr, token: &str, topic: &str, data: &Value) {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let body = json!({"topic": topic, "data": data}).to_string();
    let answer = request(addr, "POST", "/events/publish", &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn renew(addr: std::net::SocketAddr, client: &str, token: &str) {
    let path = format!("/events/streams/{client}/token");
    let body = json!({"token": token}).to_string();
    let headers = [("Content-Type", "application/json")];
    let answer = request(addr, "POST", &path, &headers, body.as_bytes()).await;
    assert_eq!((answer.status, &answer.json()["removed"]), (200, &json!([])), "{}", answer.text());
}

/// Reads the numbers of both topics up to their ends: each once and in order.
async fn read(mut stream: Stream) -> [u64; 2] {
    let mut next = [0_u64; 2];
    let mut open = 2;
    while open > 0 {
        let event = stream.next().await;
        if event.event == "renew" {
            continue;
        }
        assert_eq!(event.event, "message", "{event:?}");
        let data = event.json();
        let topic = data["topic"].as_u64().expect("a number") as usize;
        match data["number"].as_u64() {
            Some(number) => {
                assert_eq!(number, next[topic], "topic {topic}");
                next[topic] += 1;
            }
            None => open -= 1,
        }
    }
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_streams_lose_nothing_get_nothing_twice_and_never_reconnect() {
    let _heavy = heavy().await;
    let config = format!(
        "[access]\nenabled = true\n[[access.keys]]\nalgorithm = \"HS256\"\nkey = {SECRET:?}\n"
    );
    let server = Server::with_config(&config).await;
    let addr = server.addr;
    let mut tokens = tokens();
    let publisher = tokens.pop().expect("the publisher's");
    let bearer = format!("Bearer {}", tokens[0]);
    let (mut clients, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..STREAMS {
        let headers = [("Authorization", bearer.as_str())];
        let stream = Stream::subscribe_with(addr, "topics=a:0,a:1", &headers).await;
        clients.push(stream.connected["clientId"].as_str().expect("an id").to_owned());
        readers.push(tokio::spawn(read(stream)));
    }
    let is_done = Arc::new(AtomicBool::new(false));
    let publishing = (0..2).map(|topic| {
        let (publisher, is_done) = (publisher.clone(), is_done.clone());
        tokio::spawn(async move {
            let name = format!("a:{topic}");
            let mut number = 0_u64;
            while !is_done.load(SeqCst) {
                publish(addr, &publisher, &name, &json!({"topic": topic, "number": number})).await;
                number += 1;
            }
            publish(addr, &publisher, &name, &json!({"topic": topic})).await;
            number
        })
    });
    let publishing: Vec<_> = publishing.collect();
    let began = unix_s();
    for token in &tokens[1..] {
        join_all(clients.iter().map(|client| renew(addr, client, token))).await;
    }
    // Past the end of the first token.
    crate::support::until(crate::support::wait::DEADLINE, "the first token ends", async || {
        unix_s() > began + FIRST_LIFE_S
    })
    .await;
    is_done.store(true, SeqCst);
    let mut published = Vec::new();
    for topic in publishing {
        published.push(topic.await.expect("it publishes"));
    }
    for reader in join_all(readers).await {
        assert_eq!(reader.expect("a whole stream").to_vec(), published);
    }
    assert!(published.iter().all(|count| *count > 50), "{published:?}");
}
