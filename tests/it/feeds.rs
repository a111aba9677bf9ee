//! Follower fan-out, and feeds.

use serde_json::json;

use crate::support::{
    Server, Stream,
    http::publish,
    social::{fan_out, feed, follow, mute, resume_feed, try_fan_out, unfollow, whole_feed},
};

async fn server() -> Server {
    Server::with_config("[fanout]\npull_above = 3\nchunk = 2\n").await
}

#[tokio::test]
async fn one_call_tells_every_follower_and_who_was_reached() {
    let server = server().await;
    for follower in ["bob", "cy", "di"] {
        follow(server.addr, follower, "ada").await;
    }
    mute(server.addr, "di", &["post", "like"]).await;
    let mut bob = feed(server.addr, "bob").await;
    let mut plain = Stream::subscribe(server.addr, "topic=notifications:bob").await;
    let mut di = feed(server.addr, "di").await;
    let answer =
        fan_out(server.addr, json!({"author": "ada", "event": "post", "data": {"n": 1}})).await;
    let expected =
        json!({"success": true, "mode": "push", "followers": 3, "online": 1, "muted": 1});
    assert_eq!(answer, expected);
    for stream in [&mut bob, &mut plain] {
        let event = stream.next().await;
        assert_eq!((event.event.as_str(), event.json()), ("post", json!({"n": 1})));
    }
    // An event of another type arrives next: the muted one was skipped.
    fan_out(server.addr, json!({"author": "ada", "event": "news", "data": "2"})).await;
    assert_eq!(di.take_data(1).await, ["2"]);
    assert_eq!(bob.take_data(1).await, ["2"]);
    // A follower without a stream gets both from history.
    let mut cy = whole_feed(server.addr, "cy").await;
    assert_eq!(cy.take_data(2).await, ["{\"n\":1}", "2"]);
}

#[tokio::test]
async fn past_the_threshold_followers_pull() {
    let server = server().await;
    for follower in ["a", "b", "c", "d"] {
        follow(server.addr, follower, "star").await;
    }
    mute(server.addr, "c", &["post"]).await;
    let mut a = feed(server.addr, "a").await;
    let mut again = feed(server.addr, "a").await;
    let c = feed(server.addr, "c").await;
    let b = feed(server.addr, "b").await;
    let id = b.last_id().to_owned();
    b.close().await;
    server.until_streams(3).await;
    let answer = fan_out(server.addr, json!({"author": "star", "event": "post", "data": 1})).await;
    let expected =
        json!({"success": true, "mode": "pull", "followers": 4, "online": 1, "muted": 1});
    assert_eq!(answer, expected);
    for stream in [&mut a, &mut again] {
        assert_eq!(stream.take_data(1).await, ["1"]);
    }
    let mut b = resume_feed(server.addr, "b", &id).await;
    assert_eq!(b.take_data(1).await, ["1"]);
    // Kinds muted at the stream's start are not replayed.
    let mut c_again = resume_feed(server.addr, "c", c.last_id()).await;
    let pushed = json!({"author": "star", "event": "other", "data": 2, "mode": "push"});
    assert_eq!(fan_out(server.addr, pushed).await["mode"], "push");
    assert_eq!(c_again.take_data(1).await, ["2"]);
    assert_eq!(a.take_data(1).await, ["2"]);
}

#[tokio::test]
async fn following_and_muting_change_open_feeds_at_once() {
    let server = server().await;
    let mut feed = feed(server.addr, "bob").await;
    let post = async |author: &str, data: &str| {
        let post = json!({"author": author, "data": data, "mode": "pull", "event": "post"});
        fan_out(server.addr, post).await
    };
    post("ada", "before").await;
    follow(server.addr, "bob", "ada").await;
    assert_eq!(post("ada", "1").await["online"], 1);
    assert_eq!(feed.take_data(1).await, ["1"]);
    unfollow(server.addr, "bob", "ada").await;
    assert_eq!(post("ada", "not followed").await["online"], 0);
    follow(server.addr, "bob", "ada").await;
    mute(server.addr, "bob", &["post"]).await;
    assert_eq!(post("ada", "muted").await["muted"], 1);
    mute(server.addr, "bob", &[]).await;
    post("ada", "2").await;
    assert_eq!(feed.take_data(1).await, ["2"]);
}

#[tokio::test]
async fn whom_a_user_began_to_follow_while_away_is_not_missed() {
    let server = server().await;
    let stream = feed(server.addr, "bob").await;
    let id = stream.last_id().to_owned();
    stream.close().await;
    for author in 0..20 {
        follow(server.addr, "bob", &format!("author{author}")).await;
        let author = format!("author{author}");
        fan_out(server.addr, json!({"author": author, "data": author, "mode": "pull"})).await;
    }
    let mut stream = resume_feed(server.addr, "bob", &id).await;
    let mut posts = stream.take_data(20).await;
    posts.sort_unstable();
    let mut expected: Vec<String> = (0..20).map(|author| format!("author{author}")).collect();
    expected.sort_unstable();
    assert_eq!(posts, expected);
}

#[tokio::test]
async fn a_fan_out_that_is_repeated_by_its_id_reaches_nobody_twice() {
    let server = server().await;
    follow(server.addr, "bob", "ada").await;
    let mut stream = feed(server.addr, "bob").await;
    let once = json!({"author": "ada", "data": "once", "id": "1"});
    let first = fan_out(server.addr, once.clone()).await;
    // Three more users follow. The repeated fan-out keeps its mode and reaches them too.
    for follower in ["c", "d", "e"] {
        follow(server.addr, follower, "ada").await;
    }
    let again = fan_out(server.addr, once).await;
    assert_eq!(
        (&first["mode"], &again["mode"], &again["followers"]),
        (&json!("push"), &json!("push"), &json!(4))
    );
    fan_out(server.addr, json!({"author": "ada", "data": "next", "id": "2"})).await;
    assert_eq!(stream.take_data(2).await, ["once", "next"]);
    let mut late = whole_feed(server.addr, "e").await;
    assert_eq!(late.take_data(1).await, ["once"]);
}

#[tokio::test]
async fn likes_by_many_reach_an_author_who_was_away_as_one() {
    let server = server().await;
    for liker in 0..12 {
        let like = json!({"topic": "notifications:ada", "event": "like", "data": {"by": liker}, "collapse": "photo 1"});
        publish(server.addr, like).await;
    }
    let mut ada = whole_feed(server.addr, "ada").await;
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
        let answer = try_fan_out(server.addr, &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body}");
    }
    let too_long = json!({"author": "a", "data": "x".repeat(70_000)});
    assert_eq!(try_fan_out(server.addr, &too_long).await.code(), "payload_too_large");
    for path in ["/events/feed", "/events/feed?user=", "/events/feed?user=a&user=b"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_user"), "{path}");
    }
    assert_eq!(server.get("/events/fanout").await.code(), "method_not_allowed");
}

#[tokio::test]
async fn a_feed_can_be_polled_and_streamed_by_turns() {
    let server = server().await;
    follow(server.addr, "bob", "ada").await;
    let poll = async |query: &str| {
        let answer = server.get(&format!("/events/feed/poll?user=bob&wait=0{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let start = poll("").await;
    assert_eq!(start["events"], json!([]));
    fan_out(server.addr, json!({"author": "ada", "event": "post", "data": "1"})).await;
    // An author's own events reach followers by pull too.
    server.publish(json!({"topic": "posts:ada", "data": "2"})).await;
    let cursor = start["cursor"].as_str().expect("a cursor");
    let answer = poll(&format!("&last_event_id={cursor}")).await;
    let mut data: Vec<_> = answer["events"].as_array().expect("events").iter().collect();
    data.sort_by_key(|event| event["data"].to_string());
    assert_eq!(data.iter().map(|event| &event["data"]).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(data[0]["topic"], "notifications:bob");

    fan_out(server.addr, json!({"author": "ada", "event": "post", "data": "3"})).await;
    let cursor = answer["cursor"].as_str().expect("a cursor");
    let mut stream = resume_feed(server.addr, "bob", cursor).await;
    assert_eq!(stream.take_data(1).await, ["3"]);
    for path in ["/events/feed/poll", "/events/feed/poll?user=a&user=b", "/events/feed/poll?user="]
    {
        assert_eq!(server.get(path).await.status, 400, "{path}");
    }
}
