//! Follower fan-out, and the feeds that it fills.

use serde_json::{Value, json};

use crate::support::{
    Server, Stream,
    http::{Response, publish, request},
};

async fn server() -> Server {
    Server::with_config("[fanout]\npull_above = 3\nchunk = 2\n").await
}

async fn put(server: &Server, path: &str) {
    let answer = request(server.addr, "PUT", path, &[], b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn follow(server: &Server, follower: &str, author: &str) {
    put(server, &format!("/events/follows/{follower}/{author}")).await;
}

async fn unfollow(server: &Server, follower: &str, author: &str) {
    let path = format!("/events/follows/{follower}/{author}");
    assert_eq!(request(server.addr, "DELETE", &path, &[], b"").await.status, 200);
}

async fn mute(server: &Server, user: &str, kinds: &[&str]) {
    let path = format!("/events/preferences/{user}");
    let body = json!({"muted": kinds}).to_string();
    let json = [("Content-Type", "application/json")];
    let answer = request(server.addr, "PUT", &path, &json, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn try_fan_out(server: &Server, body: &Value) -> Response {
    let json = [("Content-Type", "application/json")];
    request(server.addr, "POST", "/events/fanout", &json, body.to_string().as_bytes()).await
}

async fn fan_out(server: &Server, body: Value) -> Value {
    let answer = try_fan_out(server, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn feed(server: &Server, user: &str) -> Stream {
    let mut stream = Stream::open(server.addr, &format!("/events/feed?user={user}"), &[]).await;
    stream.read_connected().await;
    stream
}

async fn resume(server: &Server, user: &str, id: &str) -> Stream {
    let path = format!("/events/feed?user={user}");
    let mut stream = Stream::open(server.addr, &path, &[("Last-Event-ID", id)]).await;
    stream.read_connected().await;
    assert_eq!(stream.connected["resumed"], true);
    stream
}

#[tokio::test]
async fn one_call_tells_every_follower_and_who_was_reached() {
    let server = server().await;
    for follower in ["bob", "cy", "di"] {
        follow(&server, follower, "ada").await;
    }
    mute(&server, "di", &["post", "like"]).await;
    let mut bob = feed(&server, "bob").await;
    let mut plain = Stream::subscribe(server.addr, "topic=notifications:bob").await;
    let mut di = feed(&server, "di").await;
    let answer =
        fan_out(&server, json!({"author": "ada", "event": "post", "data": {"n": 1}})).await;
    let expected =
        json!({"success": true, "mode": "push", "followers": 3, "online": 1, "muted": 1});
    assert_eq!(answer, expected);
    for stream in [&mut bob, &mut plain] {
        let event = stream.next().await;
        assert_eq!((event.event.as_str(), event.json()), ("post", json!({"n": 1})));
    }
    // One that is not muted comes next, so the muted one did not.
    fan_out(&server, json!({"author": "ada", "event": "news", "data": "2"})).await;
    assert_eq!(di.take_data(1).await, ["2"]);
    assert_eq!(bob.take_data(1).await, ["2"]);
    // Who was away finds it.
    let path = "/events/feed?user=cy&last_event_id=earliest";
    let mut cy = Stream::open(server.addr, path, &[]).await;
    cy.read_connected().await;
    assert_eq!(cy.take_data(2).await, ["{\"n\":1}", "2"]);
}

#[tokio::test]
async fn past_the_threshold_followers_pull() {
    let server = server().await;
    for follower in ["a", "b", "c", "d"] {
        follow(&server, follower, "star").await;
    }
    mute(&server, "c", &["post"]).await;
    let mut a = feed(&server, "a").await;
    let mut again = feed(&server, "a").await;
    let c = feed(&server, "c").await;
    let b = feed(&server, "b").await;
    let id = b.last_id().to_owned();
    b.close().await;
    server.until_streams(3).await;
    let answer = fan_out(&server, json!({"author": "star", "event": "post", "data": 1})).await;
    let expected =
        json!({"success": true, "mode": "pull", "followers": 4, "online": 1, "muted": 1});
    assert_eq!(answer, expected);
    for stream in [&mut a, &mut again] {
        assert_eq!(stream.take_data(1).await, ["1"]);
    }
    let mut b = resume(&server, "b", &id).await;
    assert_eq!(b.take_data(1).await, ["1"]);
    // What was muted when the stream began is not replayed to it.
    let mut c_again = resume(&server, "c", c.last_id()).await;
    let pushed = json!({"author": "star", "event": "other", "data": 2, "mode": "push"});
    assert_eq!(fan_out(&server, pushed).await["mode"], "push");
    assert_eq!(c_again.take_data(1).await, ["2"]);
    assert_eq!(a.take_data(1).await, ["2"]);
}

#[tokio::test]
async fn following_and_muting_change_open_feeds_at_once() {
    let server = server().await;
    let mut feed = feed(&server, "bob").await;
    let post = async |author: &str, data: &str| {
        let post = json!({"author": author, "data": data, "mode": "pull", "event": "post"});
        fan_out(&server, post).await
    };
    post("ada", "before").await;
    follow(&server, "bob", "ada").await;
    assert_eq!(post("ada", "1").await["online"], 1);
    assert_eq!(feed.take_data(1).await, ["1"]);
    unfollow(&server, "bob", "ada").await;
    assert_eq!(post("ada", "not followed").await["online"], 0);
    follow(&server, "bob", "ada").await;
    mute(&server, "bob", &["post"]).await;
    assert_eq!(post("ada", "muted").await["muted"], 1);
    mute(&server, "bob", &[]).await;
    post("ada", "2").await;
    assert_eq!(feed.take_data(1).await, ["2"]);
}

#[tokio::test]
async fn whom_a_user_began_to_follow_while_away_is_not_missed() {
    let server = server().await;
    let stream = feed(&server, "bob").await;
    let id = stream.last_id().to_owned();
    stream.close().await;
    for author in 0..20 {
        follow(&server, "bob", &format!("author{author}")).await;
        let author = format!("author{author}");
        fan_out(&server, json!({"author": author, "data": author, "mode": "pull"})).await;
    }
    let mut stream = resume(&server, "bob", &id).await;
    let mut posts = stream.take_data(20).await;
    posts.sort_unstable();
    let mut expected: Vec<String> = (0..20).map(|author| format!("author{author}")).collect();
    expected.sort_unstable();
    assert_eq!(posts, expected);
}

#[tokio::test]
async fn a_fan_out_that_is_repeated_by_its_id_reaches_nobody_twice() {
    let server = server().await;
    follow(&server, "bob", "ada").await;
    let mut stream = feed(&server, "bob").await;
    let once = json!({"author": "ada", "data": "once", "id": "1"});
    let first = fan_out(&server, once.clone()).await;
    // Others follow meanwhile: it stays what it was, and they get it too.
    for follower in ["c", "d", "e"] {
        follow(&server, follower, "ada").await;
    }
    let again = fan_out(&server, once).await;
    assert_eq!(
        (&first["mode"], &again["mode"], &again["followers"]),
        (&json!("push"), &json!("push"), &json!(4))
    );
    fan_out(&server, json!({"author": "ada", "data": "next", "id": "2"})).await;
    assert_eq!(stream.take_data(2).await, ["once", "next"]);
    let path = "/events/feed?user=e&last_event_id=earliest";
    let mut late = Stream::open(server.addr, path, &[]).await;
    late.read_connected().await;
    assert_eq!(late.take_data(1).await, ["once"]);
}

#[tokio::test]
async fn likes_by_many_reach_an_author_who_was_away_as_one() {
    let server = server().await;
    for liker in 0..12 {
        let like = json!({"topic": "notifications:ada", "event": "like", "data": {"by": liker}, "collapse": "photo 1"});
        publish(server.addr, like).await;
    }
    let path = "/events/feed?user=ada&last_event_id=earliest";
    let mut ada = Stream::open(server.addr, path, &[]).await;
    ada.read_connected().await;
    assert_eq!(ada.next().await.json(), json!({"by": 11, "collapsed": 12}));
}

#[tokio::test]
async fn what_cannot_be_fanned_out_is_refused() {
    let server = server().await;
    for (body, code) in [
        (json!({"author": "a b", "data": 1}), "bad_user"),
        (json!({"author": "*", "data": 1}), "bad_user"),
        (json!({"author": "a"}), "bad_event"),
        (json!({"author": "a", "data": 1, "event": "gap"}), "bad_event"),
        (json!({"author": "a", "data": 1, "collapse": "k"}), "bad_event"),
        (json!({"author": "a", "data": 1, "mode": "some"}), "bad_json"),
        (json!({"data": 1}), "bad_json"),
        (json!([]), "bad_json"),
    ] {
        let answer = try_fan_out(&server, &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body}");
    }
    let too_long = json!({"author": "a", "data": "x".repeat(70_000)});
    assert_eq!(try_fan_out(&server, &too_long).await.code(), "payload_too_large");
    for path in ["/events/feed", "/events/feed?user=", "/events/feed?user=a&user=b"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_user"), "{path}");
    }
    assert_eq!(server.get("/events/fanout").await.code(), "method_not_allowed");
}
