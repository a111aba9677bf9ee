//! Refusals of access control are counted and logged by their reason. No log has a token, ticket or
//! cookie, at any level.

use serde_json::{Value, json};

use crate::{
    Server,
    support::{
        Stream,
        http::{Response, request},
        server::Launch,
        tokens::{Library, Order, SECRET, mint, unix_s},
        web::WebServer,
    },
};

fn config(more: &str) -> Launch {
    let toml = format!(
        "[access]\nenabled = true\nissuer = \"us\"\naudience = \"hub\"\n{more}\n\
         [[access.keys]]\nalgorithm = \"HS256\"\nkid = \"k\"\nkey = {SECRET:?}\n"
    );
    Launch { config: Some(toml), log: "trace".to_owned(), ..Launch::default() }
}

/// Valid claims with changes.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "sub": "ann", "iss": "us", "aud": "hub", "iat": unix_s() - 60, "exp": unix_s() + 3600,
        "fanfare": {"subscribe": ["a:*"], "publish": ["a:*"]},
    });
    let all = claims.as_object_mut().expect("an object");
    all.extend(changes.as_object().expect("an object").clone());
    claims
}

/// Tokens by the reason of their refusal; the first is valid, the second an operator's.
fn tokens() -> Vec<(&'static str, String)> {
    let with = |changes| Order::new("HS256", SECRET, claims(changes)).headers(json!({"kid": "k"}));
    let all = [
        ("valid", with(json!({}))),
        ("operator", with(json!({"sub": "bob", "fanfare": {"manage": ["**"]}}))),
        ("revoked", with(json!({"sub": "eve"}))),
        ("expired", with(json!({"exp": unix_s() - 100}))),
        ("not_yet_valid", with(json!({"nbf": unix_s() + 1000}))),
        ("wrong_issuer", with(json!({"iss": "them"}))),
        ("wrong_audience", with(json!({"aud": "other"}))),
        ("bad_claims", with(json!({"sub": "*"}))),
        ("unknown_key", with(json!({})).headers(json!({"kid": "other"}))),
    ];
    let (reasons, orders): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let mut tokens: Vec<_> = reasons.into_iter().zip(mint(Library::PyJwt, &orders)).collect();
    let (head, signature) = tokens[0].1.rsplit_once('.').expect("three parts");
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{head}.{first}{}", &signature[1..]);
    tokens.push(("bad_signature", forged));
    tokens.push(("malformed", "no-token-at-all-but-secret".to_owned()));
    tokens
}

async fn send(server: &Server, method: &str, path: &str, token: &str, body: &str) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let headers = if token.is_empty() { &headers[1..] } else { &headers[..] };
    request(server.addr, method, path, headers, body.as_bytes()).await
}

async fn count_of(server: &Server, token: &str, reason: &str) -> usize {
    let metrics = send(server, "GET", "/metrics", token, "").await;
    let name = format!("fanfare_access_refusals_total{{reason=\"{reason}\"}} ");
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned));
    line.map_or(0, |count| count.parse().expect("a number"))
}

/// Checks the log: a line for each reason, and none of the secrets.
fn check_log(log: &str, reasons: &[&str], secrets: &[String]) {
    for reason in reasons {
        let line = log.lines().find(|line| {
            line.contains("refused by access control")
                && line.contains(&format!("reason=\"{reason}\""))
        });
        assert!(line.is_some(), "no line of {reason}");
    }
    for secret in secrets {
        // Signature and payload alone are secrets too.
        for part in secret.split('.').filter(|part| part.len() > 8) {
            let line = log.lines().find(|line| line.contains(part));
            assert!(line.is_none(), "a secret in the log: {line:?}");
        }
    }
}

#[tokio::test]
async fn each_refusal_is_counted_and_logged_without_its_token() {
    let server = Server::launch(config("")).await;
    let tokens = tokens();
    let (valid, operator) = (&tokens[0].1, &tokens[1].1);
    let revoked = send(&server, "POST", "/events/revocations", operator, r#"{"user":"eve"}"#).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    let stream = "/events/stream?topic=a:1";
    for (reason, token) in &tokens[2..] {
        for path in [stream, "/events/cursor?topic=a:1", "/events/poll?topic=a:1&wait=0"] {
            let refused = send(&server, "GET", path, token, "").await;
            assert_eq!(refused.status, 401, "{reason} {path}");
        }
        assert_eq!(count_of(&server, operator, reason).await, 3, "{reason}");
    }
    let ticket = send(&server, "POST", "/events/tickets", valid, "").await.json()["ticket"].clone();
    let ticket = ticket.as_str().expect("a ticket").to_owned();
    let with_ticket = format!("{stream}&ticket={ticket}");
    let mut opened = Stream::open(server.addr, &with_ticket, &[]).await;
    opened.read_connected().await;
    assert_eq!(request(server.addr, "GET", &with_ticket, &[], b"").await.status, 401);
    let unknown = format!("{stream}&ticket={}", ticket.chars().rev().collect::<String>());
    assert_eq!(request(server.addr, "GET", &unknown, &[], b"").await.status, 401);
    assert_eq!(send(&server, "GET", stream, "", "").await.status, 401);
    assert_eq!(send(&server, "GET", "/events/stream?topic=b", valid, "").await.status, 403);
    let bearer = format!("Bearer {valid}");
    let lines = "{\"topic\":\"a:1\",\"data\":1}\n{\"topic\":\"b\",\"data\":1}\n";
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/x-ndjson")];
    let answer = request(server.addr, "POST", "/events/publish", &headers, lines.as_bytes()).await;
    assert_eq!(answer.status, 200);
    let cookie = format!("__Host-fanfare={valid}");
    let headers = [("Cookie", cookie.as_str()), ("Origin", "http://evil.example")];
    let answer = request(server.addr, "POST", "/events/publish", &headers, lines.as_bytes()).await;
    assert_eq!(answer.code(), "cross_site");
    // An own token in the body, invalid.
    let client = opened.connected["clientId"].as_str().expect("an id").to_owned();
    let (path, bad) = (format!("/events/streams/{client}/token"), &tokens.last().expect("one").1);
    let body = json!({"token": bad}).to_string();
    assert_eq!(send(&server, "POST", &path, valid, &body).await.status, 401);
    for (reason, count) in
        [("bad_ticket", 2), ("no_token", 1), ("forbidden", 2), ("cross_site", 1), ("malformed", 4)]
    {
        assert_eq!(count_of(&server, operator, reason).await, count, "{reason}");
    }
    let mut reasons: Vec<&str> = tokens[2..].iter().map(|(reason, _)| *reason).collect();
    reasons.extend(["bad_ticket", "no_token", "forbidden", "cross_site"]);
    let mut secrets: Vec<String> = tokens.into_iter().map(|(_, token)| token).collect();
    secrets.extend([ticket, SECRET.to_owned()]);
    check_log(&server.log(), &reasons, &secrets);
}

#[tokio::test]
async fn refusals_of_the_application_are_counted_and_logged_without_the_cookie() {
    let web = WebServer::start(|_| (401, String::new())).await;
    let secret = "the-secret-of-the-webhook";
    let hook = format!("[access.webhook]\nurl = {:?}\nsecret = {secret:?}", web.url("/decide"));
    let server = Server::launch(config(&hook)).await;
    let operator = tokens()[1].1.clone();
    let cookie = "session=a-session-of-somebody";
    let get = async || {
        request(server.addr, "GET", "/events/cursor?topic=a:1", &[("Cookie", cookie)], b"").await
    };
    assert_eq!(get().await.status, 401);
    web.answers(|_| (500, String::new()));
    assert_eq!(get().await.code(), "access_down");
    for reason in ["application", "access_down"] {
        assert_eq!(count_of(&server, &operator, reason).await, 1, "{reason}");
    }
    let secrets = [operator, secret.to_owned(), "a-session-of-somebody".to_owned()];
    check_log(&server.log(), &["application", "access_down"], &secrets);
}
