//! Signed tokens of other libraries: every algorithm is accepted, every classic attack refused.

use serde_json::{Value, json};

use crate::support::{
    Launch, Server,
    http::{Response, request},
    server::{fanfare, temporary_file},
    tokens::{ALGORITHMS, KeyPair, LIBRARIES, Library, Order, SECRET, mint, token, unix_s},
};

/// Access control with these keys.
fn config(keys: &str) -> String {
    format!("[access]\nenabled = true\n{keys}")
}

/// The key of [`SECRET`].
fn secret_key() -> String {
    format!("[[access.keys]]\nalgorithm = \"HS256\"\nkey = {SECRET:?}\n")
}

/// Publishes with a token to the only granted topic.
async fn publish_with(server: &Server, token: &str) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    request(server.addr, "POST", "/events/publish", &headers, br#"{"topic":"a","data":1}"#).await
}

async fn is_accepted(server: &Server, token: &str) -> bool {
    let response = publish_with(server, token).await;
    match response.status {
        200 => true,
        401 => {
            assert_eq!(response.code(), "unauthenticated");
            assert_eq!(response.header("www-authenticate"), Some("Bearer"));
            assert!(token.len() < 20 || !response.text().contains(token));
            false
        }
        status => panic!("{status}: {}", response.text()),
    }
}

/// Valid claims with the grant to publish.
fn claims() -> Value {
    json!({ "exp": unix_s() + 600, "sub": "ann", "fanfare": { "publish": ["a"] } })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

#[tokio::test]
async fn tokens_of_every_algorithm_are_accepted_from_two_libraries() {
    let pairs: Vec<KeyPair> = ALGORITHMS.map(KeyPair::new).into();
    let with_names: String = pairs.iter().map(|pair| pair.entry(Some(pair.algorithm))).collect();
    let without_names: String = pairs.iter().map(|pair| pair.entry(None)).collect();
    let named = Server::with_config(&config(&with_names)).await;
    let unnamed = Server::with_config(&config(&without_names)).await;
    for library in LIBRARIES {
        let order = |pair: &KeyPair| Order::new(pair.algorithm, pair.private.clone(), claims());
        let plain: Vec<Order> = pairs.iter().map(order).collect();
        let name = |order: Order| {
            let kid = json!({ "kid": order.algorithm });
            order.headers(kid)
        };
        let named_orders: Vec<Order> = plain.iter().cloned().map(name).collect();
        for (order, token) in plain.iter().zip(mint(library, &plain)) {
            for server in [&named, &unnamed] {
                assert!(is_accepted(server, &token).await, "{library:?} {}", order.algorithm);
            }
        }
        for (order, token) in named_orders.iter().zip(mint(library, &named_orders)) {
            assert!(is_accepted(&named, &token).await, "{library:?} {}", order.algorithm);
            // No key of the second server has a name.
            assert!(!is_accepted(&unnamed, &token).await, "{library:?} {}", order.algorithm);
        }
    }
}

#[tokio::test]
async fn classic_attacks_are_refused() {
    let rsa = KeyPair::new("RS256");
    let other = KeyPair::new("RS256");
    let key = format!("{}\nleeway = \"5m\"\nissuer = \"us\"\naudience = \"hub\"\n", config(""));
    let server = Server::with_config(&(key + &secret_key() + &rsa.entry(Some("rsa")))).await;
    let valid = || {
        let mut claims = claims();
        claims["iss"] = json!("us");
        claims["aud"] = json!("hub");
        claims
    };
    let changed = |name: &str, value: Value| {
        let mut claims = valid();
        claims[name] = value;
        claims
    };
    let order = |claims: Value| Order::new("HS256", SECRET, claims);
    let signed = |claims: Value| Order::new("RS256", rsa.private.clone(), claims);
    let foreign =
        |headers: Value| Order::new("RS256", other.private.clone(), valid()).headers(headers);
    let now = unix_s();
    let jwk: Value = {
        let set = crate::support::tokens::key_set(&[("rsa", &other)]);
        serde_json::from_str::<Value>(&set).expect("JSON")["keys"][0].clone()
    };
    let accepted = [
        order(valid()),
        order(changed("aud", json!(["x", "hub"]))),
        order(changed("exp", json!(now - 100))),
        order(changed("nbf", json!(now + 200))),
        signed(valid()),
        signed(valid()).headers(json!({ "kid": "rsa" })),
        // Keys and addresses of keys in the header are ignored.
        signed(valid()).headers(json!({ "jwk": jwk, "jku": "http://127.0.0.1:1/", "x5u": "x" })),
    ];
    let refused = [
        ("wrong kid", signed(valid()).headers(json!({ "kid": "other" }))),
        ("another key", foreign(json!({}))),
        ("another key of this name", foreign(json!({ "kid": "rsa" }))),
        ("jwk", foreign(json!({ "jwk": jwk }))),
        ("jku", foreign(json!({ "jku": "http://127.0.0.1:1/keys" }))),
        ("x5u", foreign(json!({ "x5u": "http://127.0.0.1:1/cert" }))),
        ("another secret", Order::new("HS256", SECRET.to_uppercase(), valid())),
        ("HS512 of an HS256 key", Order::new("HS512", SECRET, valid())),
        ("PS256 of an RS256 key", Order::new("PS256", rsa.private.clone(), valid())),
        ("crit", order(valid()).headers(json!({ "crit": ["x"], "x": 1 }))),
        ("expired", order(changed("exp", json!(now - 400)))),
        ("not yet valid", order(changed("nbf", json!(now + 4000)))),
        ("exp as text", order(changed("exp", json!((now + 600).to_string())))),
        ("exp as a float", order(changed("exp", json!(now as f64 + 600.5)))),
        ("exp as null", order(changed("exp", Value::Null))),
        ("wrong audience", order(changed("aud", json!("hub2")))),
        ("wrong issuer", order(changed("iss", json!("them")))),
        ("a user of any name", order(changed("sub", json!("*")))),
        ("a user of many names", order(changed("sub", json!("**")))),
        ("a user of two segments", order(changed("sub", json!("ann:x")))),
        ("a user as a number", order(changed("sub", json!(5)))),
        ("an empty user", order(changed("sub", json!("")))),
        ("over-long", order(changed("x", json!("x".repeat(9000))))),
        ("a grant of no pattern", order(changed("fanfare", json!({ "publish": ["a b"] })))),
    ];
    for token in mint(Library::PyJwt, &accepted) {
        assert!(is_accepted(&server, &token).await, "{token}");
    }
    let orders: Vec<Order> = refused.iter().map(|(_, order)| order.clone()).collect();
    for ((attack, _), token) in refused.iter().zip(mint(Library::PyJwt, &orders)) {
        // The head of a request is bounded, too.
        let response = publish_with(&server, &token).await;
        assert!(matches!(response.status, 401 | 431), "{attack}: {}", response.status);
    }
    for name in ["exp", "iss", "aud"] {
        let mut claims = valid();
        claims.as_object_mut().expect("an object").remove(name);
        let token = mint(Library::PyJwt, &[order(claims)]).remove(0);
        assert!(!is_accepted(&server, &token).await, "without {name}");
    }
    let token = mint(Library::PyJwt, &[order(valid())]).remove(0);
    let (unsigned, signature) = token.rsplit_once('.').expect("a token has dots");
    // {"alg":"none","typ":"JWT"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let body = unsigned.split_once('.').expect("a token has dots").1;
    let forged = [
        format!("{none}.{body}."),
        format!("{none}.{body}.{signature}"),
        format!("{unsigned}."),
        unsigned.to_owned(),
        format!("{token}x"),
        "x".to_owned(),
        "a.b.c".to_owned(),
        format!("{token}.{signature}"),
    ];
    for token in forged {
        assert!(!is_accepted(&server, &token).await, "{token}");
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let rsa = KeyPair::new("RS256");
    let server = Server::with_config(&config(&rsa.entry(None))).await;
    // PyJWT refuses to sign this attack; jose takes any bytes.
    for key in [rsa.public.as_str(), rsa.public.trim_end()] {
        let token = mint(Library::Jose, &[Order::new("HS256", key, claims())]).remove(0);
        assert!(!is_accepted(&server, &token).await);
    }
    // As a shared secret, the hub takes no PEM at all.
    let file = rsa.public_file().display().to_string();
    let entry = format!("[[access.keys]]\nalgorithm = \"HS256\"\nfile = {file:?}\n");
    let file = temporary_file("toml", &config(&entry)).display().to_string();
    let output = fanfare(&["serve", "--check", "--config", &file], &[]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("access.keys") && error.contains("not a PEM"), "{error}");
}

#[tokio::test]
async fn a_key_is_inline_in_a_file_or_in_the_environment() {
    let es = KeyPair::new("ES256");
    let server = Server::with_config(&config(&format!(
        "[[access.keys]]\nalgorithm = \"ES256\"\nkey = '''\n{}'''\n{}",
        es.public,
        secret_key()
    )))
    .await;
    let orders =
        [Order::new("ES256", es.private.clone(), claims()), Order::new("HS256", SECRET, claims())];
    for token in mint(Library::Jose, &orders) {
        assert!(is_accepted(&server, &token).await);
    }
    let variable = "[[access.keys]]\nalgorithm = \"HS256\"\nenv = \"TOKEN_KEY\"\n";
    let server = Server::launch(Launch {
        config: Some(config(variable)),
        environment: vec![("TOKEN_KEY".to_owned(), SECRET.to_owned())],
        ..Default::default()
    })
    .await;
    assert!(is_accepted(&server, &token(json!({ "fanfare": { "publish": ["a"] } }))).await);
}

#[tokio::test]
async fn a_token_is_in_the_header_or_in_the_cookie() {
    let server = Server::with_config(&config(&secret_key())).await;
    let token = token(json!({ "fanfare": { "publish": ["a"] } }));
    let own = format!("http://{}", server.addr);
    let cookie = format!("theme=dark; __Host-fanfare={token}");
    let publish = async |headers: &[(&str, &str)]| {
        let headers = [headers, &[("Content-Type", "application/json")]].concat();
        let body = br#"{"topic":"a","data":1}"#;
        let response = request(server.addr, "POST", "/events/publish", &headers, body).await;
        (response.status, if response.status == 200 { String::new() } else { response.code() })
    };
    let with_cookie = ("Cookie", cookie.as_str());
    assert_eq!(publish(&[with_cookie, ("Origin", &own)]).await.0, 200);
    // A cookie comes along by itself, also from a page of another site.
    let refused = (403, "cross_site".to_owned());
    assert_eq!(publish(&[with_cookie]).await, refused);
    assert_eq!(publish(&[with_cookie, ("Origin", "http://evil.example")]).await, refused);
    assert_eq!(publish(&[with_cookie, ("Origin", "null")]).await, refused);
    let missing = (401, "unauthenticated".to_owned());
    assert_eq!(publish(&[]).await, missing);
    assert_eq!(publish(&[("Cookie", "__Host-fanfare=x"), ("Origin", &own)]).await, missing);
    assert_eq!(publish(&[("Authorization", "Basic eDp5")]).await, missing);
}

#[tokio::test]
async fn the_command_signs_tokens_for_its_hub() {
    let es = KeyPair::new("ES384");
    let secret = es.directory.write("secret", &format!("{SECRET}\n")).display().to_string();
    let config = config(&(secret_key() + &es.entry(Some("es"))));
    let server = Server::with_config(&config).await;
    let private = es.private_file().display().to_string();
    let file = es.directory.write("hub.toml", &config).display().to_string();
    let grant = ["--user", "ann", "--publish", "a,b:*", "--subscribe", "n:{user}"];
    for key in [
        &["--key-file", secret.as_str()][..],
        &["--key-file", &private, "--kid", "es"],
        &["--key-file", &private, "--algorithm", "ES384"],
        &["--config", &file],
    ] {
        let output = fanfare(&[&["token"], &grant[..], key].concat(), &[]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        let token = String::from_utf8(output.stdout).expect("a token is text");
        assert!(is_accepted(&server, token.trim()).await, "{key:?}");
    }
    let expired = ["token", "--publish", "a", "--expires", "0s", "--key-file", &secret];
    let output = fanfare(&expired, &[]);
    assert!(output.status.success());
    for wrong in [
        &["--publish", "a", "--subscribe", "**:x"][..],
        &["--publish", "a b"],
        &["--algorithm", "none"],
        &["--algorithm", "RS256"],
        &["--key-file", "/nonexistent"],
    ] {
        let line = [&["token", "--user", "ann"], wrong].concat();
        let output = fanfare(&line, &[("FANFARE_TOKEN_KEY", SECRET)]);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn no_log_line_has_a_token() {
    let server = Server::launch(Launch {
        config: Some(config(&secret_key())),
        log: "trace".to_owned(),
        ..Default::default()
    })
    .await;
    let good = token(with("sub", json!("ann")));
    let bad = format!("{}x", token(json!({ "sub": "bob" })));
    assert!(is_accepted(&server, &good).await);
    assert!(!is_accepted(&server, &bad).await);
    let log = server.log();
    for token in [&good, &bad] {
        let signature = token.rsplit_once('.').expect("a token has dots").1;
        assert!(!log.contains(signature), "a token is in the log");
    }
}
