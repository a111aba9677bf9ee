//! The application decides: its webhook is asked once for each credential, and never makes the hub open
//! access.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    Server, Stream,
    http::{Response, request},
    until,
    web::WebServer,
};

const SECRET: &str = "the secret of the webhook";

fn config(url: &str, more: &str) -> String {
    format!(
        "[access]\nenabled = true\n[access.webhook]\nurl = {url:?}\nsecret = {SECRET:?}\n\
         headers = [\"X-Tenant\"]\n{more}\n"
    )
}

fn grant(user: &str, life_ms: u64) -> String {
    json!({
        "user": user,
        "subscribe": ["ticker:*", "notifications:{user}"],
        "publish": ["chat:*"],
        "expiresMs": life_ms,
    })
    .to_string()
}

/// An application granting every session.
async fn application() -> WebServer {
    WebServer::start(|received| match received.header("cookie") {
        Some(cookie) => (200, grant(cookie.trim_start_matches("session="), 60_000)),
        None => (401, String::new()),
    })
    .await
}

async fn publish(server: &Server, topic: &str, headers: &[(&str, &str)]) -> Response {
    let own = format!("http://{}", server.addr);
    let fixed = [("Origin", own.as_str()), ("Content-Type", "application/json")];
    let body = json!({ "topic": topic, "data": 1 }).to_string();
    let headers = [headers, &fixed].concat();
    request(server.addr, "POST", "/events/publish", &headers, body.as_bytes()).await
}

/// HMAC-SHA256 in hexadecimal, by openssl.
fn hmac(secret: &str, text: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", secret, "-r"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ran").stdout;
    let text = String::from_utf8(output).expect("digits");
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_question_has_the_caller_s_credential_and_is_signed() {
    let application = application().await;
    let server = Server::with_config(&config(&application.url("/decide"), "")).await;
    let headers = [("Cookie", "session=ann"), ("X-Tenant", "t1"), ("X-Other", "no")];
    assert_eq!(publish(&server, "chat:1", &headers).await.status, 200);
    let received = application.received().remove(0);
    assert_eq!(received.path(), "/decide");
    assert_eq!(received.header("cookie").as_deref(), Some("session=ann"));
    assert_eq!(received.header("x-tenant").as_deref(), Some("t1"));
    assert_eq!(received.header("x-other"), None);
    let question: Value = serde_json::from_str(&received.body).expect("JSON");
    let expected = json!({ "action": "publish", "topics": ["chat:1"], "address": "127.0.0.1" });
    assert_eq!(question, expected);
    let timestamp = received.header("x-fanfare-timestamp").expect("a timestamp");
    let age = crate::support::tokens::unix_s().abs_diff(timestamp.parse().expect("seconds"));
    assert!(age < 60, "{age}");
    let signed = hmac(SECRET, &format!("{timestamp}.{}", received.body));
    assert_eq!(received.header("x-fanfare-signature"), Some(format!("v1={signed}")));
}

#[tokio::test]
async fn one_answer_serves_all_requests_of_a_credential() {
    let application = application().await;
    let server = Server::with_config(&config(&application.url("/"), "")).await;
    let ann = [("Cookie", "session=ann")];
    let mut stream = Stream::open(server.addr, "/events/stream?topic=ticker:a", &ann).await;
    stream.read_connected().await;
    for _ in 0..5 {
        assert_eq!(publish(&server, "chat:1", &ann).await.status, 200);
    }
    // The known grant lacks these topics: no question.
    let refused = publish(&server, "ticker:a", &ann).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"));
    assert_eq!(application.count(), 1);
    assert_eq!(publish(&server, "chat:1", &[("Cookie", "session=bob")]).await.status, 200);
    assert_eq!(application.count(), 2);
    let anonymous = publish(&server, "chat:1", &[]).await;
    assert_eq!((anonymous.status, anonymous.code().as_str()), (401, "unauthenticated"));
}

#[tokio::test]
async fn a_refused_stream_asks_once_and_the_next_request_again() {
    let application = WebServer::start(|received| match received.header("cookie") {
        Some(_) => (403, String::new()),
        None => (401, String::new()),
    })
    .await;
    let server = Server::with_config(&config(&application.url("/"), "")).await;
    let mut asked = 0;
    for (headers, status) in [(&[("Cookie", "session=ann")][..], 403), (&[], 401)] {
        for path in ["/events/stream?topic=ticker:a", "/events/poll?topic=ticker:a&wait=0"] {
            for _ in 0..2 {
                let refused = request(server.addr, "GET", path, headers, b"").await;
                asked += 1;
                assert_eq!((refused.status, application.count()), (status, asked), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_herd_of_one_credential_asks_once() {
    let application = application().await;
    application.set_silent(true);
    let server = std::sync::Arc::new(Server::with_config(&config(&application.url("/"), "")).await);
    let mut herd = JoinSet::new();
    for _ in 0..50 {
        let server = server.clone();
        herd.spawn(
            async move { publish(&server, "chat:1", &[("Cookie", "session=ann")]).await.status },
        );
    }
    until(Duration::from_secs(20), "a question", async || application.count() > 0).await;
    application.set_silent(false);
    assert!(herd.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(application.count(), 1);
}

#[tokio::test]
async fn an_unavailable_application_never_opens_access() {
    let application = application().await;
    let url = application.url("/");
    let server = Server::with_config(&config(&url, "timeout = \"300ms\"")).await;
    let answers: [(u16, &str); 5] = [
        (500, "{}"),
        (302, "{}"),
        (200, "<html>"),
        (200, r#"{"subscribe":["a b"]}"#),
        (200, r#"{"user":"*","subscribe":["**"]}"#),
    ];
    for (number, (status, body)) in answers.into_iter().enumerate() {
        application.answers(move |_| (status, body.to_owned()));
        let cookie = format!("session={number}");
        let refused = publish(&server, "chat:1", &[("Cookie", &cookie)]).await;
        assert_eq!((refused.status, refused.code().as_str()), (503, "access_down"), "{body}");
        assert!(refused.header("retry-after").is_some());
    }
    // The breaker is open: the application gets hardly any question.
    let count = application.count();
    for number in 0..20 {
        let cookie = format!("session=more{number}");
        assert_eq!(publish(&server, "chat:1", &[("Cookie", &cookie)]).await.status, 503);
    }
    assert!(application.count() <= count + 10, "{} {count}", application.count());
    // A browser comes back by itself.
    let agent = [("Cookie", "session=b"), ("User-Agent", "Mozilla/5.0")];
    let response = request(server.addr, "GET", "/events/stream?topic=ticker:a", &agent, b"").await;
    assert_eq!(response.status, 200);
    assert!(response.text().starts_with("retry: ") && response.text().contains("shutdown"));
    application.answers(|_| (200, grant("ann", 60_000)));
    until(Duration::from_secs(30), "the hub asks again", async || {
        publish(&server, "chat:1", &[("Cookie", "session=again")]).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_session_cookie_needs_the_page_s_origin() {
    let application = application().await;
    let server = Server::with_config(&config(&application.url("/"), "")).await;
    let body = br#"{"topic":"chat:1","data":1}"#;
    for origin in [None, Some("http://evil.example"), Some("null")] {
        let mut headers = vec![("Cookie", "session=ann"), ("Content-Type", "application/json")];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        let response = request(server.addr, "POST", "/events/publish", &headers, body).await;
        assert_eq!((response.status, response.code().as_str()), (403, "cross_site"), "{origin:?}");
    }
    assert_eq!(application.count(), 0);
}
