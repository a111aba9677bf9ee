//! A ticket works on any instance: it lies in Redis.

use serde_json::json;

use super::start_with_access;
use crate::support::{RedisServer, Server, Stream, http::request, redis::Options, tokens::token};

async fn post(server: &Server, path: &str, token: &str, body: &str) -> serde_json::Value {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let answer = request(server.addr, "POST", path, &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_ticket_of_one_instance_opens_and_resumes_on_others() {
    let redis = RedisServer::start(Options::default()).await;
    let (one, other) =
        (start_with_access(&redis.url()).await, start_with_access(&redis.url()).await);
    let token = token(json!({ "fanfare": { "subscribe": ["a:*"], "publish": ["a:*"] } }));
    let ticket = post(&one, "/events/tickets", &token, "").await;
    let query = format!("topic=a:1&ticket={}", ticket["ticket"].as_str().expect("a ticket"));
    let mut first = Stream::subscribe(other.addr, &query).await;
    let first_id = first.last_id().to_owned();
    post(&one, "/events/publish", &token, r#"{"topic":"a:1","data":"one"}"#).await;
    assert_eq!(first.take_data(1).await, ["one"]);
    let again = request(one.addr, "GET", &format!("/events/stream?{query}"), &[], b"").await;
    assert_eq!((again.status, again.code().as_str()), (401, "unauthenticated"));
    let mut second = Stream::resume(one.addr, &query, &first_id).await;
    assert_eq!(second.take_data(1).await, ["one"]);
    let end = first.rest().await;
    let shutdown = end.iter().find(|event| event.event == "shutdown").expect("a shutdown");
    assert_eq!(shutdown.json()["reason"], "replaced");
}
