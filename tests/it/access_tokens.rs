//! Grants of tokens on open streams: their end, their renewal, kicks and revocations.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    Server,
    support::{
        Stream,
        http::{Response, request},
        tokens::{Library, Order, SECRET, mint, token, unix_s},
        wait::{DEADLINE, until},
    },
};

/// A hub with a shared secret.
fn config(more: &str) -> String {
    format!(
        "[access]\nenabled = true\n{more}\n[[access.keys]]\nalgorithm = \"HS256\"\nkey = {SECRET:?}\n"
    )
}

/// Tokens with these claims, in one run of the library.
fn tokens(claims: Vec<Value>) -> Vec<String> {
    let orders: Vec<Order> =
        claims.into_iter().map(|claims| Order::new("HS256", SECRET, claims)).collect();
    mint(Library::PyJwt, &orders)
}

fn subscriber(user: &str, patterns: &[&str], life_s: u64) -> Value {
    json!({
        "sub": user, "iat": unix_s(), "exp": unix_s() + life_s, "jti": format!("{user}-{life_s}"),
        "fanfare": {"subscribe": patterns, "publish": ["**"]},
    })
}

fn operator() -> String {
    token(json!({"fanfare": {"manage": ["**"], "publish": ["**"]}}))
}

async fn open(server: &Server, query: &str, token: &str) -> Stream {
    let bearer = format!("Bearer {token}");
    Stream::subscribe_with(server.addr, query, &[("Authorization", &bearer)]).await
}

async fn send(server: &Server, method: &str, path: &str, token: &str, body: &str) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    request(server.addr, method, path, &headers, body.as_bytes()).await
}

async fn send_event(server: &Server, token: &str, topic: &str, data: &str) {
    let body = json!({"topic": topic, "data": data}).to_string();
    let answer = send(server, "POST", "/events/publish", token, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn client_of(stream: &Stream) -> String {
    stream.connected["clientId"].as_str().expect("an id").to_owned()
}

/// Reads to the end of a stream. Returns the reason of its `shutdown`, and the data before it.
async fn ended(stream: &mut Stream) -> (String, Vec<String>) {
    let mut data = Vec::new();
    loop {
        let event = stream.next().await;
        match event.event.as_str() {
            "shutdown" => {
                assert!(stream.read_event().await.is_none(), "nothing comes after shutdown");
                return (event.json()["reason"].as_str().expect("a reason").to_owned(), data);
            }
            "renew" => {}
            _ => data.push(event.data.clone()),
        }
    }
}

#[tokio::test]
async fn a_stream_is_told_the_end_of_its_token_and_ends_with_it() {
    let server = Server::with_config(&config("")).await;
    let all = tokens(vec![subscriber("ann", &["a:*"], 5), subscriber("ann", &["a:*"], 3600)]);
    let mut stream = open(&server, "topic=a:1", &all[0]).await;
    let renew = stream.next().await;
    assert_eq!(renew.event, "renew");
    let left = renew.json()["expiresMs"].as_u64().expect("a time");
    assert!((1..=5000).contains(&left), "{left}");
    let (reason, _) = ended(&mut stream).await;
    assert_eq!(reason, "token");
    // A long token is told later only.
    let mut stream = open(&server, "topic=a:1", &all[1]).await;
    send_event(&server, &all[1], "a:1", "x").await;
    assert_eq!(stream.next().await.data, "x");
    stream.close().await;
}

#[tokio::test]
async fn a_renewed_stream_outlives_its_first_token_and_loses_ungranted_topics() {
    let server = Server::with_config(&config("")).await;
    let all = tokens(vec![
        subscriber("ann", &["a:*", "b:*"], 3),
        subscriber("ann", &["a:*"], 3600),
        subscriber("bob", &["a:*", "b:*"], 3600),
    ]);
    let mut stream = open(&server, "topics=a:1,b:1,b:*", &all[0]).await;
    let mut first = open(&server, "topic=a:1", &all[0]).await;
    let path = format!("/events/streams/{}/token", client_of(&stream));
    let others = json!({"token": all[2]}).to_string();
    let refused = send(&server, "POST", &path, &all[2], &others).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(request(server.addr, "POST", &path, &[], b"").await.status, 401);
    let body = json!({"token": all[1]}).to_string();
    let json = [("Content-Type", "application/json")];
    let renewed = request(server.addr, "POST", &path, &json, body.as_bytes()).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    let answer = renewed.json();
    assert_eq!(answer["removed"], json!(["b:*", "b:1"]));
    assert!(answer["expiresMs"].as_u64().is_some_and(|left| left > 3_000_000), "{answer}");
    // The added topics stay within the new grant.
    let change = format!("/events/streams/{}/topics", client_of(&stream));
    let refused = send(&server, "POST", &change, &all[1], r#"{"add":["b:2"]}"#).await;
    assert_eq!((refused.status, refused.json()["error"]["topics"].clone()), (403, json!(["b:2"])));
    // Past the end of the first token: a stream with it ends.
    ended(&mut first).await;
    send_event(&server, &all[1], "b:1", "no").await;
    send_event(&server, &all[1], "a:1", "yes").await;
    let mut event = stream.next().await;
    while event.event == "renew" {
        event = stream.next().await;
    }
    assert_eq!(event.data, "yes");
    stream.close().await;
}

#[tokio::test]
async fn a_kicked_stream_ends_at_once() {
    let server = Server::with_config(&config("")).await;
    let ann = token(json!({"sub": "ann", "fanfare": {"subscribe": ["a:*"]}}));
    let mut stream = open(&server, "topic=a:1", &ann).await;
    let path = format!("/events/streams/{}", client_of(&stream));
    assert_eq!(send(&server, "DELETE", &path, &ann, "").await.status, 403);
    assert_eq!(request(server.addr, "DELETE", &path, &[], b"").await.status, 401);
    let operator = operator();
    assert_eq!(send(&server, "DELETE", &path, &operator, "").await.status, 200);
    assert_eq!(ended(&mut stream).await.0, "kicked");
    assert_eq!(send(&server, "DELETE", &path, &operator, "").await.code(), "unknown_stream");
}

#[tokio::test]
async fn revoked_tokens_end_their_streams_and_are_refused() {
    let server = Server::with_config(&config("")).await;
    let operator = operator();
    let claims = |user: &str, id: &str, issued_at: u64| {
        json!({
            "sub": user, "jti": id, "iat": issued_at, "exp": unix_s() + 3600,
            "fanfare": {"subscribe": ["a:*"], "publish": ["a:*"]},
        })
    };
    let now = unix_s();
    let all = tokens(vec![
        claims("ann", "ann-1", now - 100),
        claims("ann", "ann-2", now - 10),
        claims("bob", "bob-1", now - 100),
        claims("ann", "ann-3", now + 20),
    ]);
    let mut streams = Vec::new();
    for token in &all[..3] {
        streams.push(open(&server, "topic=a:1", token).await);
    }
    let revoke = async |body: Value| {
        send(&server, "POST", "/events/revocations", &operator, &body.to_string()).await
    };
    for (body, status) in [
        (json!({}), 400),
        (json!({"user": "ann", "tokenId": "x"}), 400),
        (json!({"tokenId": "x", "issuedBefore": 1}), 400),
        (json!({"user": "a:b"}), 400),
    ] {
        assert_eq!(revoke(body.clone()).await.status, status, "{body}");
    }
    let body = json!({"user": "ann"}).to_string();
    let path = "/events/revocations";
    assert_eq!(send(&server, "POST", path, &all[0], &body).await.status, 403);
    // By time: the older token only.
    let answer = revoke(json!({"user": "ann", "issuedBefore": now - 50})).await;
    assert_eq!((answer.status, answer.json()["streams"].clone()), (200, json!(1)));
    send_event(&server, &all[2], "a:1", "1").await;
    assert_eq!(ended(&mut streams[0]).await, ("revoked".to_owned(), Vec::new()));
    assert_eq!(streams[1].next().await.data, "1");
    // By id, then by user.
    assert_eq!(revoke(json!({"tokenId": "ann-2"})).await.json()["streams"], 1);
    assert_eq!(ended(&mut streams[1]).await.0, "revoked");
    assert_eq!(revoke(json!({"user": "ann"})).await.status, 200);
    for (number, status) in [(0, 401), (1, 401), (2, 200), (3, 200)] {
        let answer = send(&server, "GET", "/events/cursor?topic=a:1", &all[number], "").await;
        assert_eq!(answer.status, status, "token {number}: {}", answer.text());
    }
    send_event(&server, &all[2], "a:1", "2").await;
    assert_eq!(streams[2].take_data(2).await, ["1", "2"]);
}

#[tokio::test]
async fn users_have_their_own_feeds_and_lists() {
    let server = Server::with_config(&config("")).await;
    let ann = token(json!({"sub": "ann"}));
    let manager = token(json!({"sub": "bob", "fanfare": {"manage": ["notifications:*"]}}));
    let get = async |path: &str, token: &str| send(&server, "GET", path, token, "").await.status;
    let feed = async |token: &str, user: &str| {
        let bearer = format!("Bearer {token}");
        let path = format!("/events/feed?user={user}");
        let stream = Stream::try_get(server.addr, &path, &[("Authorization", &bearer)]).await;
        stream.expect("an answer").head.status == 200
    };
    assert!(feed(&ann, "ann").await && !feed(&ann, "bob").await && !feed(&manager, "ann").await);
    for (path, own, managed) in [
        ("/events/following/ann", 200, 200),
        ("/events/preferences/ann", 200, 200),
        ("/events/followers/ann", 403, 403),
        ("/events/following/eve", 403, 200),
        ("/stats", 403, 403),
    ] {
        assert_eq!((get(path, &ann).await, get(path, &manager).await), (own, managed), "{path}");
    }
    assert_eq!(send(&server, "PUT", "/events/follows/ann/eve", &ann, "").await.status, 200);
    assert_eq!(send(&server, "PUT", "/events/follows/eve/ann", &ann, "").await.status, 403);
    let body = json!({"topic": "notifications:ann", "data": 1}).to_string();
    let publisher = token(json!({"fanfare": {"publish": ["**"]}}));
    let refused = send(&server, "POST", "/events/publish", &publisher, &body).await;
    assert_eq!(refused.json()["error"]["topics"], json!(["notifications:ann"]));
    assert_eq!(send(&server, "POST", "/events/publish", &manager, &body).await.status, 200);
    let fan_out = json!({"author": "ann", "data": 1}).to_string();
    assert_eq!(send(&server, "POST", "/events/fanout", &ann, &fan_out).await.status, 200);
    assert_eq!(send(&server, "POST", "/events/fanout", &publisher, &fan_out).await.status, 403);
}

#[tokio::test]
async fn each_user_has_a_share_of_streams_and_publishes() {
    let limits = "[limits]\nuser_streams = 2\nuser_publishes_per_second = 3\n";
    let server = Server::with_config(&format!("{}\n{limits}", config(""))).await;
    let all = tokens(vec![subscriber("ann", &["a:*"], 3600), subscriber("bob", &["a:*"], 3600)]);
    let (ann, bob) = (&all[0], &all[1]);
    let _first = open(&server, "topic=a:1", ann).await;
    let second = open(&server, "topic=a:1", ann).await;
    let refused = send(&server, "GET", "/events/stream?topic=a:1", ann, "").await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "too_many_streams"));
    assert!(refused.header("retry-after").is_some());
    open(&server, "topic=a:1", bob).await;
    second.close().await;
    let bearer = format!("Bearer {ann}");
    until(DEADLINE, "the share is back", async || {
        let headers = [("Authorization", bearer.as_str())];
        let stream = Stream::try_get(server.addr, "/events/stream?topic=a:1", &headers).await;
        stream.is_ok_and(|stream| stream.head.status == 200)
    })
    .await;

    let publish = async |token: &str, count: usize| {
        let events: Vec<Value> = (0..count).map(|n| json!({"topic": "a:1", "data": n})).collect();
        let body = Value::from(events).to_string();
        send(&server, "POST", "/events/publish", token, &body).await
    };
    // All at once, so also a busy machine is faster than the rate.
    let mut answers = join_all((0..20).map(|_| publish(ann, 3))).await;
    assert!(answers.iter().any(|answer| answer.status == 200));
    answers.retain(|answer| answer.status != 200);
    let refused = answers.pop().expect("60 events are more than 3 a second");
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(publish(bob, 3).await.status, 200);
}
