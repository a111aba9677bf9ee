//! The three cases in `examples/access`, as a reader runs them.

use std::{fs, process::Stdio};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::support::{
    Launch, Server, Stream,
    http::{Response, request},
    repository,
    server::fanfare,
    tokens::{KeyPair, Library, Order, SECRET, key_set, mint, unix_s},
    web::WebServer,
};

fn example(name: &str) -> String {
    let path = repository().join("examples/access").join(name);
    fs::read_to_string(path).expect("the example is there")
}

async fn launch(config: String, environment: &[(&str, &str)]) -> Server {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment = environment.iter().map(owned).collect();
    Server::launch(Launch { config: Some(config), environment, ..Launch::default() }).await
}

async fn publish(server: &Server, topic: &str, headers: &[(&str, &str)]) -> Response {
    let body = json!({ "topic": topic, "data": "news" }).to_string();
    let headers = [headers, &[("Content-Type", "application/json")]].concat();
    request(server.addr, "POST", "/events/publish", &headers, body.as_bytes()).await
}

#[tokio::test]
async fn everybody_reads_the_public_ticker_and_one_program_publishes() {
    let server = launch(example("ticker.toml"), &[("TICKER_KEY", SECRET)]).await;
    let line = ["token", "--publish", "ticker:*"];
    let token = fanfare(&line, &[("FANFARE_TOKEN_KEY", SECRET)]).stdout;
    let bearer = format!("Bearer {}", String::from_utf8_lossy(&token).trim());
    let mut stream = Stream::subscribe(server.addr, "topic=ticker:GOOG").await;
    let published = publish(&server, "ticker:GOOG", &[("Authorization", &bearer)]).await;
    assert_eq!(published.status, 200, "{}", published.text());
    assert_eq!(stream.take_data(1).await, ["news"]);
    assert_eq!(publish(&server, "ticker:GOOG", &[]).await.status, 401);
    assert_eq!(publish(&server, "other", &[("Authorization", &bearer)]).await.status, 403);
    let path = "/events/stream?topic=other";
    assert_eq!(request(server.addr, "GET", path, &[], b"").await.status, 401);
}

/// The example's application.
struct Application {
    url: String,
    _process: Child,
}

impl Application {
    async fn start(secret: &str) -> Self {
        let mut process = Command::new("python3")
            .arg(repository().join("examples/access/application.py"))
            .arg("0")
            .env("WEBHOOK_SECRET", secret)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 runs");
        let output = process.stdout.take().expect("it is piped");
        let line = BufReader::new(output).lines().next_line().await.expect("text");
        Self { url: line.expect("it prints its address"), _process: process }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let addr = self.url.trim_start_matches("http://").parse().expect("an address");
        request(addr, "POST", path, headers, body).await
    }
}

#[tokio::test]
async fn a_session_of_the_application_opens_the_user_s_notifications() {
    let application = Application::start("a secret").await;
    let config = example("sessions.toml").replace("http://127.0.0.1:9000", &application.url);
    let secret = [("FANFARE__ACCESS__WEBHOOK__SECRET", "a secret")];
    let server = launch(config, &secret).await;
    let login = application.post("/login", &[], b"user=ann").await;
    let cookie = login.header("set-cookie").expect("a session").split(';').next();
    let cookie = [("Cookie", cookie.expect("a cookie"))];
    let open = async |topic: &str, headers: &[(&str, &str)]| {
        let path = format!("/events/stream?topic={topic}");
        request(server.addr, "HEAD", &path, headers, b"").await.status
    };
    let path = "/events/stream?topic=notifications:ann";
    let mut stream = Stream::open(server.addr, path, &cookie).await;
    stream.read_connected().await;
    assert_eq!(open("notifications:bob", &cookie).await, 403);
    assert_eq!(open("notifications:ann", &[]).await, 401);
    assert_eq!(open("notifications:ann", &[("Cookie", "session=forged")]).await, 401);
    let own = format!("http://{}", server.addr);
    let page = [cookie[0], ("Origin", own.as_str())];
    assert_eq!(publish(&server, "chat:1", &page).await.status, 200);
    assert_eq!(publish(&server, "notifications:ann", &page).await.status, 403);
    // Questions of anybody else get no decision.
    let question = br#"{"action":"subscribe","topics":[],"address":null}"#;
    assert_eq!(application.post("/decide", &cookie, question).await.status, 400);
}

#[tokio::test]
async fn a_token_of_an_identity_provider_is_enough() {
    let pair = KeyPair::new("RS256");
    let keys = key_set(&[("one", &pair)]);
    let provider = WebServer::start(move |_| (200, keys.clone())).await;
    let url = "https://login.example/.well-known/jwks.json";
    let config = example("provider.toml").replace(url, &provider.url("/jwks.json"));
    let server = launch(config, &[]).await;
    let claims = json!({
        "iss": "https://login.example/", "aud": "fanfare", "sub": "ann", "exp": unix_s() + 600,
    });
    let order = Order::new("RS256", pair.private.clone(), claims);
    let token = mint(Library::Jose, &[order.headers(json!({ "kid": "one" }))]).remove(0);
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let page = [headers[0], headers[1], ("Origin", "https://app.example")];
    let body = br#"{"topics":["rooms:1"]}"#;
    let answer = request(server.addr, "POST", "/events/tickets", &page, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let ticket = answer.json()["ticket"].as_str().expect("a ticket").to_owned();
    let query = format!("topic=rooms:1&ticket={ticket}");
    let mut stream = Stream::subscribe(server.addr, &query).await;
    assert_eq!(publish(&server, "rooms:1", &headers[..1]).await.status, 200);
    assert_eq!(stream.take_data(1).await, ["news"]);
    assert_eq!(publish(&server, "notifications:ann", &headers[..1]).await.status, 403);
}
