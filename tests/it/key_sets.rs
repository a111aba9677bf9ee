//! Key sets (JWKS) by URL and by file: fetched, rotated, unavailable.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{
    Server,
    directory::Directory,
    http::request,
    tokens::{KeyPair, Library, Order, key_set, mint, unix_s},
    until,
    web::WebServer,
};

const DEADLINE: Duration = Duration::from_secs(30);

async fn status(server: &Server, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let body = br#"{"topic":"a","data":1}"#;
    request(server.addr, "POST", "/events/publish", &headers, body).await.status
}

fn order(pair: &KeyPair, kid: &str) -> Order {
    let claims = json!({ "exp": unix_s() + 600, "fanfare": { "publish": ["a"] } });
    Order::new(pair.algorithm, pair.private.clone(), claims).headers(json!({ "kid": kid }))
}

fn token(pair: &KeyPair, kid: &str) -> String {
    mint(Library::Jose, &[order(pair, kid)]).remove(0)
}

fn config(source: &str, refresh: &str) -> String {
    format!("[access]\nenabled = true\n[access.jwks]\n{source}\nrefresh = {refresh:?}\n")
}

/// An identity provider.
struct Provider {
    web: WebServer,
    keys: Arc<Mutex<String>>,
}

impl Provider {
    async fn start(keys: String) -> Self {
        let keys = Arc::new(Mutex::new(keys));
        let answered = keys.clone();
        let web = WebServer::start(move |_| (200, answered.lock().clone())).await;
        Self { web, keys }
    }

    fn config(&self, refresh: &str) -> String {
        config(&format!("url = {:?}", self.web.url("/keys")), refresh)
    }
}

#[tokio::test]
async fn keys_rotate_under_load_without_a_refused_valid_token() {
    let (old, new) = (KeyPair::new("ES256"), KeyPair::new("EdDSA"));
    let provider = Provider::start(key_set(&[("old", &old)])).await;
    let server = Arc::new(Server::with_config(&provider.config("1s")).await);
    let (old_token, new_token) = (token(&old, "old"), token(&new, "new"));
    assert_eq!(status(&server, &old_token).await, 200);
    let stopped = Arc::new(Mutex::new(false));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (server, stopped, token) = (server.clone(), stopped.clone(), old_token.clone());
        load.spawn(async move {
            let mut count = 0;
            while !*stopped.lock() {
                assert_eq!(status(&server, &token).await, 200);
                count += 1;
            }
            count
        });
    }
    *provider.keys.lock() = key_set(&[("old", &old), ("new", &new)]);
    // An unknown name makes the hub read the set before its time.
    assert_eq!(status(&server, &new_token).await, 200);
    *stopped.lock() = true;
    let counts: Vec<i32> = load.join_all().await;
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    *provider.keys.lock() = key_set(&[("new", &new)]);
    until(DEADLINE, "the old key is gone", async || status(&server, &old_token).await == 401).await;
    assert_eq!(status(&server, &new_token).await, 200);
}

#[tokio::test]
async fn unknown_names_make_the_hub_read_the_set_at_most_once_in_a_while() {
    let (known, unknown) = (KeyPair::new("ES256"), KeyPair::new("ES256"));
    let provider = Provider::start(key_set(&[("known", &known)])).await;
    let server = Server::with_config(&provider.config("1h")).await;
    assert_eq!(status(&server, &token(&known, "known")).await, 200);
    let before = provider.web.count();
    let orders: Vec<Order> = (0..20).map(|name| order(&unknown, &name.to_string())).collect();
    for token in mint(Library::Jose, &orders) {
        assert_eq!(status(&server, &token).await, 401);
    }
    assert!(provider.web.count() <= before + 1, "{}", provider.web.count());
}

#[tokio::test]
async fn the_last_keys_stay_while_the_provider_is_unavailable() {
    let pair = KeyPair::new("RS256");
    let provider = Provider::start(key_set(&[("one", &pair)])).await;
    let server = Server::with_config(&provider.config("1s")).await;
    let token = token(&pair, "one");
    assert_eq!(status(&server, &token).await, 200);
    let broken = ["", "{}", "<html>", r#"{"keys":[]}"#];
    for (number, body) in broken.into_iter().enumerate() {
        let status_of_set = if number == 0 { 500 } else { 200 };
        provider.web.answers(move |_| (status_of_set, body.to_owned()));
        let count = provider.web.count();
        until(DEADLINE, "the hub reads again", async || provider.web.count() > count + 1).await;
        assert_eq!(status(&server, &token).await, 200, "{body}");
    }
}

#[tokio::test]
async fn without_any_keys_yet_the_answer_is_temporary() {
    let pair = KeyPair::new("ES256");
    let provider = Provider::start(String::new()).await;
    provider.web.answers(|_| (503, String::new()));
    let server = Server::with_config(&provider.config("1h")).await;
    let token = token(&pair, "one");
    assert_eq!(status(&server, &token).await, 503);
    let keys = key_set(&[("one", &pair)]);
    provider.web.answers(move |_| (200, keys.clone()));
    until(DEADLINE, "the keys are there", async || status(&server, &token).await == 200).await;
}

#[tokio::test]
async fn a_key_set_in_a_file_is_read_again() {
    let (old, new) = (KeyPair::new("ES384"), KeyPair::new("ES384"));
    let directory = Directory::new("jwks");
    let file = directory.write("keys.json", &key_set(&[("old", &old)])).display().to_string();
    let server = Server::with_config(&config(&format!("file = {file:?}"), "1s")).await;
    let (old_token, new_token) = (token(&old, "old"), token(&new, "new"));
    assert_eq!(status(&server, &old_token).await, 200);
    directory.write("keys.json", &key_set(&[("new", &new)]));
    until(DEADLINE, "the new key is there", async || status(&server, &new_token).await == 200)
        .await;
    assert_eq!(status(&server, &old_token).await, 401);
}
