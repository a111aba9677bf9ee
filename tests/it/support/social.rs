//! Followers, fan-outs and feeds: requests as an application sends them.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{
    Stream,
    http::{Response, request},
};

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];
const NDJSON: [(&str, &str); 1] = [("Content-Type", "application/x-ndjson")];

async fn expect(addr: SocketAddr, method: &str, path: &str, body: &str) -> Value {
    let answer = request(addr, method, path, &JSON, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
    answer.json()
}

pub async fn follow(addr: SocketAddr, follower: &str, author: &str) {
    expect(addr, "PUT", &format!("/events/follows/{follower}/{author}"), "").await;
}

pub async fn unfollow(addr: SocketAddr, follower: &str, author: &str) {
    expect(addr, "DELETE", &format!("/events/follows/{follower}/{author}"), "").await;
}

/// Adds many followers to one author.
pub async fn follow_all(addr: SocketAddr, followers: &[String], author: &str) {
    let line =
        |follower: &String| json!({"follower": follower, "author": author}).to_string() + "\n";
    let body: String = followers.iter().map(line).collect();
    let answer = request(addr, "POST", "/events/follows", &NDJSON, body.as_bytes()).await;
    let last = answer.text().lines().last().unwrap_or_default().to_owned();
    assert!(answer.status == 200 && last.contains("\"success\":true"), "{last}");
}

pub async fn mute(addr: SocketAddr, user: &str, kinds: &[&str]) {
    let body = json!({"muted": kinds}).to_string();
    expect(addr, "PUT", &format!("/events/preferences/{user}"), &body).await;
}

pub async fn try_fan_out(addr: SocketAddr, body: &Value) -> Response {
    request(addr, "POST", "/events/fanout", &JSON, body.to_string().as_bytes()).await
}

pub async fn fan_out(addr: SocketAddr, body: Value) -> Value {
    let answer = try_fan_out(addr, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

pub async fn feed(addr: SocketAddr, user: &str) -> Stream {
    open_feed(addr, &format!("user={user}"), &[]).await
}

/// A feed resumed with its last id; it must miss nothing.
pub async fn resume_feed(addr: SocketAddr, user: &str, id: &str) -> Stream {
    let stream = open_feed(addr, &format!("user={user}"), &[("Last-Event-ID", id)]).await;
    assert_eq!(stream.connected["resumed"], true);
    stream
}

/// A feed with its full history.
pub async fn whole_feed(addr: SocketAddr, user: &str) -> Stream {
    open_feed(addr, &format!("user={user}&last_event_id=earliest"), &[]).await
}

async fn open_feed(addr: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Stream {
    let mut stream = Stream::open(addr, &format!("/events/feed?{query}"), headers).await;
    stream.read_connected().await;
    stream
}
