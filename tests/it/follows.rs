//! The endpoints of the follow graph and of preferences.

use std::{collections::BTreeSet, fmt::Write as _};

use actix_web::{App, test};
use fanfare::{
    Config, Hub,
    follow::{Counts, Follow, FollowGraph, GraphError, GraphFuture, Page, User},
};
use futures_util::{FutureExt, future::ready};
use serde_json::{Value, json};

use crate::support::{
    Server,
    http::{Lines, Response, get, request},
};

async fn server() -> Server {
    Server::start(&["--no-demo"]).await
}

async fn change(server: &Server, method: &str, edge: &str) -> Value {
    let path = format!("/events/follows/{edge}");
    let response = request(server.addr, method, &path, &[], b"").await;
    assert_eq!(response.status, 200, "{edge}: {}", response.text());
    response.json()
}

async fn import(server: &Server, body: &str) -> Vec<Value> {
    let headers = [("Content-Type", "application/x-ndjson")];
    let response = request(server.addr, "POST", "/events/follows", &headers, body.as_bytes()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    let lines = response.text().lines();
    lines.map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

async fn put_preferences(server: &Server, user: &str, json: &Value) -> Response {
    let path = format!("/events/preferences/{user}");
    let headers = [("Content-Type", "application/json")];
    request(server.addr, "PUT", &path, &headers, json.to_string().as_bytes()).await
}

fn line(follower: impl std::fmt::Display, author: &str) -> String {
    json!({ "follower": follower.to_string(), "author": author }).to_string()
}

/// Walks through all pages of a path. Returns the users in the order of arrival.
async fn walk(server: &Server, path: &str, limit: usize) -> Vec<String> {
    let (mut met, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("{path}?limit={limit}{after}")).await.json();
        let users = page["users"].as_array().expect("a list");
        met.extend(users.iter().map(|user| user.as_str().expect("a name").to_owned()));
        let Some(next) = page["next"].as_str() else { return met };
        assert_eq!(users.len(), limit);
        assert!(next.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{next}");
        after = format!("&after={next}");
    }
}

#[tokio::test]
async fn following_and_unfollowing_tell_what_changed() {
    let server = server().await;
    for changed in [true, false] {
        let told = change(&server, "PUT", "ann/bob").await;
        let expected =
            json!({"success": true, "follower": "ann", "author": "bob", "changed": changed});
        assert_eq!(told, expected);
    }
    change(&server, "PUT", "cid/bob").await;
    let followers = server.get("/events/followers/bob").await.json();
    assert_eq!(followers, json!({"user": "bob", "count": 2, "users": ["ann", "cid"]}));
    let following = server.get("/events/following/ann").await.json();
    assert_eq!(following, json!({"user": "ann", "count": 1, "users": ["bob"]}));
    for changed in [true, false] {
        assert_eq!(change(&server, "DELETE", "ann/bob").await["changed"], changed);
    }
    let followers = server.get("/events/followers/bob").await.json();
    assert_eq!(followers, json!({"user": "bob", "count": 1, "users": ["cid"]}));
    let nobody = server.get("/events/following/ann").await.json();
    assert_eq!(nobody, json!({"user": "ann", "count": 0, "users": []}));
}

#[tokio::test]
async fn pages_hold_everybody_once() {
    let server = server().await;
    let lines: Vec<String> = (0..250).map(|number| line(number, "author")).collect();
    import(&server, &lines.join("\n")).await;
    let everybody: BTreeSet<String> = (0..250).map(|number| number.to_string()).collect();
    for limit in [1, 7, 125, 250, 1000] {
        let met = walk(&server, "/events/followers/author", limit).await;
        assert_eq!(met.len(), 250);
        assert_eq!(met.into_iter().collect::<BTreeSet<_>>(), everybody);
    }
    let page = server.get("/events/followers/author").await.json();
    assert_eq!((page["users"].as_array().map(Vec::len), &page["count"]), (Some(100), &json!(250)));
}

#[tokio::test]
async fn names_in_paths_are_percent_encoded_utf8() {
    let server = server().await;
    let longest = "x".repeat(242);
    let names = [
        ("a%2Fb", "a/b"),
        ("100%25", "100%"),
        ("%7Bx%7D", "{x}"),
        ("1+1", "1+1"),
        ("1%2B1", "1+1"),
        ("%C3%A9lan", "élan"),
        ("a:b", "a:b"),
        ("%F0%9F%8E%BA", "🎺"),
        (longest.as_str(), longest.as_str()),
    ];
    for (encoded, name) in names {
        let told = change(&server, "PUT", &format!("{encoded}/{encoded}")).await;
        assert_eq!((&told["follower"], &told["author"]), (&json!(name), &json!(name)));
        let page = server.get(&format!("/events/followers/{encoded}")).await.json();
        assert_eq!(page["users"], json!([name]));
        let muted = put_preferences(&server, encoded, &json!({"muted": ["like"]})).await;
        assert_eq!(muted.json()["user"], name);
        change(&server, "DELETE", &format!("{encoded}/{encoded}")).await;
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_its_code() {
    let server = server().await;
    let too_long = "x".repeat(300);
    for name in ["%FF", "a%2Cb", "a%20b", "a::b", "%24a", "*", "%00", too_long.as_str()] {
        let edges = [("PUT", format!("follows/{name}/a")), ("DELETE", format!("follows/a/{name}"))];
        let reads = ["followers", "following", "preferences"];
        let reads = reads.map(|read| ("GET", format!("{read}/{name}")));
        for (method, path) in edges.iter().chain(&reads) {
            let told = request(server.addr, method, &format!("/events/{path}"), &[], b"").await;
            assert_eq!((told.status, told.code().as_str()), (400, "bad_user"), "{method} {path}");
        }
        let told = put_preferences(&server, name, &json!({"muted": []})).await;
        assert_eq!((told.status, told.code().as_str()), (400, "bad_user"), "{name}");
    }
    for (query, code) in [
        ("limit=0", "bad_query"),
        ("limit=1001", "bad_query"),
        ("limit=-1", "bad_query"),
        ("limit=many", "bad_query"),
        ("limit=1&limit=2", "bad_query"),
        ("after=nowhere", "bad_page"),
        ("after=", "bad_page"),
    ] {
        for path in ["followers", "following"] {
            let told = get(server.addr, &format!("/events/{path}/a?{query}")).await;
            assert_eq!((told.status, told.code().as_str()), (400, code), "{query}");
        }
    }
    let kinds = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
    for (body, code) in [
        (json!({"muted": kinds(65)}), "bad_preferences"),
        (json!({"muted": ["x".repeat(257)]}), "bad_preferences"),
        (json!({"muted": [""]}), "bad_preferences"),
        (json!({"muted": ["a\nb"]}), "bad_preferences"),
        (json!({"muted": "like"}), "bad_json"),
        (json!([["like"]]), "bad_json"),
        (json!({}), "bad_json"),
    ] {
        let told = put_preferences(&server, "a", &body).await;
        assert_eq!((told.status, told.code().as_str()), (400, code), "{body}");
    }
    let told = put_preferences(&server, "a", &json!({"muted": ["x".repeat(200_000)]})).await;
    assert_eq!((told.status, told.code().as_str()), (413, "payload_too_large"));
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing_and_other_methods_are_refused() {
    let server = server().await;
    let cross_site = [("Sec-Fetch-Site", "cross-site")];
    for (method, path) in [
        ("PUT", "/events/follows/a/b"),
        ("DELETE", "/events/follows/a/b"),
        ("POST", "/events/follows"),
        ("PUT", "/events/preferences/a"),
    ] {
        let told = request(server.addr, method, path, &cross_site, b"{}").await;
        assert_eq!((told.status, told.code().as_str()), (403, "cross_site"), "{method} {path}");
    }
    for (path, allowed) in [
        ("/events/follows", "POST"),
        ("/events/follows/a/b", "PUT, DELETE"),
        ("/events/followers/a", "GET, HEAD"),
        ("/events/following/a", "GET, HEAD"),
        ("/events/preferences/a", "GET, HEAD, PUT"),
    ] {
        let told = request(server.addr, "PATCH", path, &[], b"").await;
        assert_eq!((told.status, told.code().as_str()), (405, "method_not_allowed"), "{path}");
        assert_eq!(told.header("allow"), Some(allowed));
    }
    for path in ["/events/followers/a", "/events/following/a", "/events/preferences/a"] {
        let told = request(server.addr, "HEAD", path, &[], b"").await;
        assert_eq!((told.status, told.body.as_slice()), (200, &b""[..]));
    }
}

#[tokio::test]
async fn preferences_are_replaced_as_a_whole() {
    let server = server().await;
    let read = async || server.get("/events/preferences/ann").await.json();
    assert_eq!(read().await, json!({"user": "ann", "muted": []}));
    for muted in [json!(["like", "view"]), json!(["a kind", "用户"]), json!([])] {
        let told = put_preferences(&server, "ann", &json!({ "muted": muted })).await;
        assert_eq!(told.json(), json!({"success": true, "user": "ann", "muted": muted}));
        assert_eq!(read().await, json!({"user": "ann", "muted": muted}));
    }
    let told = put_preferences(&server, "ann", &json!({"muted": ["b", "a", "b"]})).await;
    assert_eq!(told.json()["muted"], json!(["a", "b"]));
    let most: Vec<String> = (10..74).map(|number| format!("{number}").repeat(128)).collect();
    let told = put_preferences(&server, "ann", &json!({ "muted": most })).await;
    assert_eq!((told.status, &told.json()["muted"]), (200, &json!(most)));
}

#[tokio::test]
async fn lines_are_imported_and_each_that_is_none_is_named() {
    let server = server().await;
    let body = format!(
        "{}\n\n{}\r\n{{\n{}\n[\"a\",\"b\"]\n{}\n{{\"follower\":\"a\"}}\n{}",
        line("ann", "bob"),
        line("c\u{e9}d", "bob"),
        line("two words", "bob"),
        line("ann", "bob"),
        r#"{"follower":"\u0065ve","author":"bob","since":2024}"#,
    );
    let answers = import(&server, &body).await;
    let (last, refused) = answers.split_last().expect("a last line");
    assert_eq!(*last, json!({"success": true, "processed": 8, "followed": 3, "refused": 4}));
    let refused: Vec<(u64, &str)> = refused
        .iter()
        .map(|told| {
            assert!(told["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
            let line = told["line"].as_u64().expect("a number");
            (line, told["error"]["code"].as_str().expect("a code"))
        })
        .collect();
    assert_eq!(refused, [(4, "bad_json"), (5, "bad_user"), (6, "bad_json"), (8, "bad_json")]);
    let mut followers = walk(&server, "/events/followers/bob", 100).await;
    followers.sort_unstable();
    assert_eq!(followers, ["ann", "céd", "eve"]);
    let nothing = import(&server, "").await;
    assert_eq!(nothing, [json!({"success": true, "processed": 0, "followed": 0, "refused": 0})]);
}

#[tokio::test]
async fn an_import_tells_how_far_it_is_before_its_end() {
    const COUNT: u64 = 50_000;
    let server = server().await;
    let mut lines = Lines::open_at(server.addr, "/events/follows", &line(0, "author")).await;
    let mut reported = 0;
    for first in (1..COUNT).step_by(12_500) {
        let end = COUNT.min(first + 12_500);
        let part: Vec<String> = (first..end).map(|number| line(number, "author")).collect();
        lines.writer.send(&part.join("\n")).await;
        // The part is longer than the interval of reports.
        let told = lines.reader.next().await.expect("progress");
        let processed = told["processed"].as_u64().expect("a number");
        assert!(processed > reported && processed <= end, "{told} of {end}");
        assert_eq!((&told["followed"], &told["refused"]), (&json!(processed), &json!(0)));
        assert_eq!(told.get("success"), None);
        reported = processed;
    }
    lines.writer.finish().await;
    let told = lines.reader.next().await.expect("the end");
    let end = json!({"success": true, "processed": COUNT, "followed": COUNT, "refused": 0});
    assert_eq!(told, end);
    assert_eq!(lines.reader.next().await, None);
    assert_eq!(server.get("/events/followers/author").await.json()["count"], COUNT);
}

#[tokio::test]
async fn an_import_stops_at_what_it_cannot_read() {
    let server = server().await;
    let mut body = line("ann", "bob");
    let _ = write!(body, "\n\n{{\"follower\":\"{}\"}}\n", "x".repeat(100_000));
    body += &line("cid", "bob");
    let answers = import(&server, &body).await;
    let [told] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((&told["success"], &told["line"]), (&json!(false), &json!(3)), "{told}");
    assert_eq!(told["error"]["code"], "payload_too_large");
    assert_eq!((&told["processed"], &told["followed"]), (&json!(1), &json!(1)));
    assert_eq!(walk(&server, "/events/followers/bob", 100).await, ["ann"]);
}

/// An application's graph with its database down.
struct Broken;

fn broken<T: Send + 'static>() -> GraphFuture<'static, T> {
    ready(Err(GraphError::Unavailable("the database is away".into()))).boxed()
}

impl FollowGraph for Broken {
    fn follow(&self, _: Vec<Follow>) -> GraphFuture<'_, u64> {
        broken()
    }

    fn unfollow(&self, _: Vec<Follow>) -> GraphFuture<'_, u64> {
        broken()
    }

    fn followers(&self, _: User, _: Option<String>, _: usize) -> GraphFuture<'_, Page> {
        broken()
    }

    fn following(&self, _: User, _: Option<String>, _: usize) -> GraphFuture<'_, Page> {
        broken()
    }

    fn counts(&self, _: User) -> GraphFuture<'_, Counts> {
        broken()
    }
}

#[actix_web::test]
async fn an_applications_graph_that_fails_is_told_as_such() {
    let hub = Hub::builder(Config::default()).follow_graph(Broken).start().expect("it starts");
    let app = test::init_service(App::new().configure(hub.routes("/events").all())).await;
    let put = || test::TestRequest::put().uri("/events/follows/a/b");
    let get = || test::TestRequest::get().uri("/events/followers/a");
    for request in [put(), get()] {
        let response = test::call_service(&app, request.to_request()).await;
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        let told: Value = test::read_body_json(response).await;
        assert_eq!(told["error"]["code"], "graph_down");
    }
    let body = format!("{{\n{}", line("a", "b"));
    let import = test::TestRequest::post().uri("/events/follows").set_payload(body);
    let response = test::call_service(&app, import.to_request()).await;
    let told: Value = test::read_body_json(response).await;
    assert_eq!((&told["success"], &told["line"]), (&json!(false), &json!(1)));
    assert_eq!(told["error"]["code"], "graph_down");
    let mut codes = Vec::new();
    for mode in ["push", "pull", "auto"] {
        let post = json!({ "author": "a", "data": 1, "mode": mode, "id": mode });
        let post = test::TestRequest::post().uri("/events/fanout").set_json(post);
        let response = test::call_service(&app, post.to_request()).await;
        assert_eq!(response.status(), 503, "{mode}");
        let told: Value = test::read_body_json(response).await;
        codes.push(told["error"]["code"].clone());
    }
    assert_eq!(codes, ["graph_down"; 3]);
    // Refused before the publish: the author's topic has no event.
    let posts = test::TestRequest::get().uri("/events/topics/posts:a");
    let told: Value = test::call_and_read_body_json(&app, posts.to_request()).await;
    assert_eq!(told["sequence"], 0);
    // The hub stores the preferences, not the application's graph.
    hub.set_muted("a", vec!["like".to_owned()]).await.expect("they are in memory");
    assert_eq!(hub.muted("a").await.expect("they are in memory"), ["like"]);
    assert_eq!(hub.follow("a", "b").await.expect_err("it fails").code(), "graph_down");
}
