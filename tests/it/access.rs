//! Access control: the grants of callers at every entry point, over both transports.

use serde_json::{Value, json};

use crate::{
    Server,
    support::{
        Stream,
        http::{Response, request},
    },
};

/// Rules for callers without a token.
const RULES: &str = r#"
[access]
enabled = true
[[access.rules]]
who = "anyone"
subscribe = ["ticker:**", "room:*"]
publish = ["chat:*"]
[[access.rules]]
who = "user"
subscribe = ["notifications:{user}"]
"#;

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];
const LINES: [(&str, &str); 1] = [("Content-Type", "application/x-ndjson")];

async fn post(server: &Server, path: &str, body: &Value) -> Response {
    request(server.addr, "POST", path, &JSON, body.to_string().as_bytes()).await
}

fn assert_unauthenticated(answer: &Response, what: &str) {
    assert_eq!(answer.status, 401, "{what}: {}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "unauthenticated", "{what}");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}");
}

#[tokio::test]
async fn anonymous_callers_have_the_rules_for_anyone_only() {
    let server = Server::with_config(RULES).await;
    for query in ["topic=ticker:a", "topic=ticker:*:b", "topic=ticker:**", "topics=room:1,room:*"] {
        Stream::subscribe(server.addr, query).await.close().await;
        assert_eq!(server.get(&format!("/events/cursor?{query}")).await.status, 200, "{query}");
    }
    for query in [
        "topic=secret",
        "topic=**",
        "topic=*:a",
        "topic=room:**",
        "topic=ticker",
        "topics=ticker:a,secret",
        "topic=notifications:42",
        "topic=notifications:{user}",
        "topic=secret&last_event_id=earliest",
        "topic=secret&snapshot=true",
        "topic=secret&last_event_id=@0",
    ] {
        for path in ["stream", "cursor"] {
            let answer = server.get(&format!("/events/{path}?{query}")).await;
            assert_unauthenticated(&answer, query);
        }
    }
    let list = json!({"topics": ["ticker:a", "secret"]});
    assert_unauthenticated(&post(&server, "/events/stream", &list).await, "POST stream");
    for path in ["/stats", "/metrics", "/events/topics/secret", "/events/followers/ann"] {
        assert_unauthenticated(&server.get(path).await, path);
    }
    for path in ["/events/feed?user=ann", "/events/following/ann", "/events/preferences/ann"] {
        assert_unauthenticated(&server.get(path).await, path);
    }
    for path in ["/health/live", "/health/ready", "/events/topics/ticker:a"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn publishes_are_granted_topic_by_topic() {
    let server = Server::with_config(RULES).await;
    let event = |topic: &str| json!({"topic": topic, "data": 1});
    assert_eq!(post(&server, "/events/publish", &event("chat:a")).await.status, 200);
    for body in [
        event("ticker:a"),
        event("notifications:42"),
        json!({"topics": ["chat:a", "ticker:a"], "data": 1}),
        json!([event("chat:a"), event("ticker:a")]),
    ] {
        assert_unauthenticated(&post(&server, "/events/publish", &body).await, &body.to_string());
    }
    // Nothing of the refused lists is published.
    assert_eq!(server.get("/events/topics/ticker:a").await.json()["sequence"], 0);
    let lines = [event("chat:a"), event("ticker:a"), event("chat:b")].map(|line| line.to_string());
    let lines = lines.join("\n");
    let answer = request(server.addr, "POST", "/events/publish", &LINES, lines.as_bytes()).await;
    let answers: Vec<Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let success: Vec<&Value> = answers.iter().map(|answer| &answer["success"]).collect();
    assert_eq!(success, [true, false, true]);
    assert_eq!(answers[1]["error"]["code"], "unauthenticated");
    assert_eq!(answers[2]["topic"], "chat:b");
}

#[tokio::test]
async fn changes_of_users_need_their_user() {
    let server = Server::with_config(RULES).await;
    for (method, path, body) in [
        ("PUT", "/events/follows/ann/bob", ""),
        ("DELETE", "/events/follows/ann/bob", ""),
        ("PUT", "/events/preferences/ann", r#"{"muted":[]}"#),
        ("POST", "/events/fanout", r#"{"author":"ann","data":1}"#),
    ] {
        let answer = request(server.addr, method, path, &JSON, body.as_bytes()).await;
        assert_unauthenticated(&answer, path);
    }
    let edges = br#"{"follower":"ann","author":"bob"}"#;
    let answer = request(server.addr, "POST", "/events/follows", &LINES, edges).await;
    assert!(answer.text().contains("unauthenticated"), "{}", answer.text());
    assert!(answer.text().contains(r#""followed":0"#), "{}", answer.text());
}

#[tokio::test]
async fn topics_are_added_within_the_grant_of_the_stream() {
    let server = Server::with_config(RULES).await;
    let stream = Stream::subscribe(server.addr, "topic=ticker:a").await;
    let client = stream.connected["clientId"].as_str().expect("an id");
    let path = format!("/events/streams/{client}/topics");
    let added = post(&server, &path, &json!({"add": ["room:*", "ticker:b"]})).await;
    assert_eq!(added.json()["topics"], json!(["room:*", "ticker:a", "ticker:b"]));
    let refused = post(&server, &path, &json!({"add": ["ticker:c", "**"]})).await;
    assert_unauthenticated(&refused, "a wider pattern");
    let kept = post(&server, &path, &json!({"remove": ["room:*"]})).await;
    assert_eq!(kept.json()["topics"], json!(["ticker:a", "ticker:b"]));
    stream.close().await;
}

#[tokio::test]
async fn an_invalid_token_never_counts_as_absent() {
    let server = Server::with_config(RULES).await;
    for (name, value) in [
        ("Authorization", "Bearer nonsense"),
        ("Authorization", "Basic YTpi"),
        ("Authorization", ""),
        ("Cookie", "a=b; __Host-fanfare=nonsense"),
    ] {
        let path = "/events/stream?topic=ticker:a";
        let answer = request(server.addr, "GET", path, &[(name, value)], b"").await;
        assert_unauthenticated(&answer, value);
    }
    let other = [("Cookie", "session=1")];
    let topic = "/events/topics/ticker:a";
    assert_eq!(request(server.addr, "GET", topic, &other, b"").await.status, 200);
}
