//! Tickets: a plain `EventSource` opens and resumes its stream, and a URL from a log opens nothing.

use serde_json::{Value, json};

use crate::{
    Server,
    support::{
        Stream,
        http::{Response, request},
        tokens::{SECRET, token},
    },
};

fn config(more: &str) -> String {
    format!(
        "[access]\nenabled = true\n{more}\n[[access.keys]]\nalgorithm = \"HS256\"\nkey = {SECRET:?}\n"
    )
}

fn claims() -> Value {
    json!({
        "sub": "ann",
        "fanfare": { "subscribe": ["a:*", "notifications:{user}"], "publish": ["a:*"] },
    })
}

async fn post(server: &Server, path: &str, token: &str, body: &str) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    request(server.addr, "POST", path, &headers, body.as_bytes()).await
}

async fn ticket(server: &Server, token: &str, body: &str) -> String {
    let answer = post(server, "/events/tickets", token, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert!(answer["expiresMs"].as_u64().is_some_and(|time| time <= 60_000), "{answer}");
    answer["ticket"].as_str().expect("a ticket").to_owned()
}

async fn publish(server: &Server, token: &str, data: u32) -> String {
    let body = json!({ "topic": "a:1", "data": data }).to_string();
    let answer = post(server, "/events/publish", token, &body).await.json();
    answer["eventId"].as_str().expect("an id").to_owned()
}

/// The status and the code of a stream's request.
async fn refused(server: &Server, query: &str) -> (u16, String) {
    let path = format!("/events/stream?{query}");
    let response = request(server.addr, "GET", &path, &[], b"").await;
    (response.status, response.code())
}

#[tokio::test]
async fn a_ticket_opens_one_stream_and_then_only_resumes_it() {
    let server = Server::with_config(&config("")).await;
    let token = token(claims());
    let before = publish(&server, &token, 0).await;
    publish(&server, &token, 1).await;
    let ticket = ticket(&server, &token, "").await;
    let query = format!("topic=a:1&ticket={ticket}");
    let mut first = Stream::subscribe(server.addr, &query).await;
    let first_id = first.last_id().to_owned();
    publish(&server, &token, 2).await;
    assert_eq!(first.take_data(1).await, ["2"]);
    let last_id = first.last_id().to_owned();
    // A URL found in a log opens nothing: without an id, or with an earlier one.
    let unauthenticated = (401, "unauthenticated".to_owned());
    for id in ["", "earliest", "@0", before.as_str()] {
        let query = format!("{query}&last_event_id={id}");
        assert_eq!(refused(&server, &query).await, unauthenticated, "{id}");
    }
    publish(&server, &token, 3).await;
    assert_eq!(first.take_data(1).await, ["3"]);
    // A later use ends the earlier stream.
    let mut second = Stream::resume(server.addr, &query, &last_id).await;
    assert_eq!(second.take_data(1).await, ["3"]);
    let end = first.rest().await;
    let shutdown = end.iter().find(|event| event.event == "shutdown").expect("a shutdown");
    assert_eq!(shutdown.json()["reason"], "replaced");
    let mut third = Stream::resume(server.addr, &query, &first_id).await;
    assert_eq!(third.take_data(2).await, ["2", "3"]);
}

#[tokio::test]
async fn a_ticket_may_be_narrowed() {
    let server = Server::with_config(&config("")).await;
    let token = token(claims());
    let narrow = ticket(&server, &token, r#"{"topics":["a:1"]}"#).await;
    let forbidden = (403, "forbidden".to_owned());
    assert_eq!(refused(&server, &format!("topic=a:2&ticket={narrow}")).await, forbidden);
    assert_eq!(refused(&server, &format!("topic=a:*&ticket={narrow}")).await, forbidden);
    let _stream = Stream::subscribe(server.addr, &format!("topic=a:1&ticket={narrow}")).await;
    let wide = post(&server, "/events/tickets", &token, r#"{"topics":["a:1","b:1"]}"#).await;
    assert_eq!((wide.status, wide.code().as_str()), (403, "forbidden"));
    let whole = ticket(&server, &token, "{}").await;
    let _stream = Stream::subscribe(server.addr, &format!("topic=a:*&ticket={whole}")).await;
}

#[tokio::test]
async fn a_ticket_needs_a_token_and_a_use_in_time() {
    let server = Server::with_config(&config("ticket_window = \"1s\"")).await;
    let anonymous = request(server.addr, "POST", "/events/tickets", &[], b"").await;
    assert_eq!((anonymous.status, anonymous.code().as_str()), (401, "unauthenticated"));
    let unauthenticated = (401, "unauthenticated".to_owned());
    for forged in ["", "x", &"0".repeat(52), &"f".repeat(52)] {
        let query = format!("topic=a:1&ticket={forged}");
        assert_eq!(refused(&server, &query).await, unauthenticated, "{forged}");
    }
    let token = token(claims());
    let late = ticket(&server, &token, "").await;
    let issued = std::time::Instant::now();
    crate::support::until(crate::support::wait::DEADLINE, "the window passes", async || {
        issued.elapsed() > std::time::Duration::from_millis(1100)
    })
    .await;
    assert_eq!(refused(&server, &format!("topic=a:1&ticket={late}")).await, unauthenticated);
}

#[tokio::test]
async fn a_look_at_the_head_uses_no_ticket_up() {
    let server = Server::with_config(&config("")).await;
    let token = token(claims());
    let ticket = ticket(&server, &token, "").await;
    let path = format!("/events/stream?topic=a:1&ticket={ticket}");
    for _ in 0..2 {
        assert_eq!(request(server.addr, "HEAD", &path, &[], b"").await.status, 200);
        let poll = path.replace("/stream", "/poll");
        assert_eq!(request(server.addr, "HEAD", &poll, &[], b"").await.status, 200);
    }
    let mut stream = Stream::open(server.addr, &path, &[]).await;
    stream.read_connected().await;
    assert_eq!(request(server.addr, "HEAD", &path, &[], b"").await.status, 401);
}

#[tokio::test]
async fn feeds_and_polls_take_tickets() {
    let server = Server::with_config(&config("")).await;
    let token = token(claims());
    let feed = ticket(&server, &token, "").await;
    let path = format!("/events/feed?user=ann&ticket={feed}");
    let mut stream = Stream::open(server.addr, &path, &[]).await;
    stream.read_connected().await;
    let other = ticket(&server, &token, "").await;
    let path = format!("/events/feed?user=bob&ticket={other}");
    assert_eq!(request(server.addr, "GET", &path, &[], b"").await.status, 403);
    // A feed has the posts of all followed authors too.
    let narrow = ticket(&server, &token, r#"{"topics":["notifications:ann"]}"#).await;
    for kind in ["feed", "feed/poll"] {
        let path = format!("/events/{kind}?user=ann&ticket={narrow}");
        assert_eq!(request(server.addr, "GET", &path, &[], b"").await.status, 403, "{kind}");
    }

    let poll = ticket(&server, &token, "").await;
    let query = format!("/events/poll?topic=a:1&wait=0&ticket={poll}");
    let answer = request(server.addr, "GET", &query, &[], b"").await.json();
    let cursor = answer["cursor"].as_str().expect("a cursor").to_owned();
    publish(&server, &token, 5).await;
    let path = format!("{query}&last_event_id={cursor}");
    let answer = request(server.addr, "GET", &path, &[], b"").await.json();
    assert_eq!(answer["events"][0]["data"], json!(5), "{answer}");
    assert_eq!(request(server.addr, "GET", &query, &[], b"").await.status, 401);
}
