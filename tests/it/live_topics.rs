//! Topics added to and removed from an open stream, and events merged before they are sent.

use serde_json::{Value, json};

use crate::support::{
    Server, Stream,
    http::{Response, publish, request},
};

async fn change(server: &Server, client: &str, body: Value) -> Response {
    let path = format!("/events/streams/{client}/topics");
    let json = [("Content-Type", "application/json")];
    request(server.addr, "POST", &path, &json, body.to_string().as_bytes()).await
}

fn client_of(stream: &Stream) -> String {
    stream.connected["clientId"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn topics_come_and_go_on_an_open_stream() {
    let server = Server::start(&["--no-demo"]).await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let client = client_of(&stream);
    let answer = change(&server, &client, json!({"add": ["b", "c:*"], "remove": ["a"]})).await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"success": true, "topics": ["b", "c:*"]}))
    );
    // A change applies from its answer on.
    for (topic, data) in [("a", "no"), ("b", "1"), ("c:x", "2"), ("c", "no")] {
        publish(server.addr, json!({"topic": topic, "data": data})).await;
    }
    let answer = change(&server, &client, json!({"remove": ["c:*", "never:there"]})).await;
    assert_eq!(answer.json()["topics"], json!(["b"]));
    for (topic, data) in [("c:x", "no"), ("b", "3")] {
        publish(server.addr, json!({"topic": topic, "data": data})).await;
    }
    let mut data = stream.take_data(3).await;
    data.sort_unstable();
    assert_eq!(data, ["1", "2", "3"]);
    assert_eq!(server.get("/events/topics/c:x").await.json()["subscribers"], 0);
    assert_eq!(server.get("/events/topics/b").await.json()["subscribers"], 1);
    stream.close().await;
    server.settled().await;
}

#[tokio::test]
async fn an_id_of_a_changed_stream_resumes_all_that_it_has() {
    let server = Server::start(&["--no-demo"]).await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let client = client_of(&stream);
    let names: Vec<String> = (0..40).map(|number| format!("b:{number}")).collect();
    assert_eq!(change(&server, &client, json!({"add": names})).await.status, 200);
    publish(server.addr, json!({"topic": "a", "data": "seen"})).await;
    assert_eq!(stream.take_data(1).await, ["seen"]);
    let id = stream.last_id().to_owned();
    stream.abort();
    for name in &names {
        publish(server.addr, json!({"topic": name, "data": name})).await;
    }
    let all = format!("topic=a&topics={}", names.join(","));
    let mut stream = Stream::resume(server.addr, &all, &id).await;
    assert_eq!(stream.connected["resumed"], true);
    let mut data = stream.take_data(40).await;
    data.sort_unstable();
    let mut names = names;
    names.sort_unstable();
    assert_eq!(data, names);
}

#[tokio::test]
async fn topics_of_a_stream_that_change_too_fast_are_refused() {
    let config = "hub.max_topics_per_stream = 100\nstream.topic_changes_per_second = 1";
    let server = Server::with_config(config).await;
    let stream = Stream::subscribe(server.addr, "topic=a").await;
    let client = client_of(&stream);
    let names: Vec<String> = (0..99).map(|number| format!("b:{number}")).collect();
    // As many at once as a stream may have, whatever was changed before them.
    assert_eq!(change(&server, &client, json!({"add": names})).await.status, 200);
    assert_eq!(change(&server, &client, json!({"remove": names})).await.status, 200);
    let refused = change(&server, &client, json!({"add": ["c"]})).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let status = server.get("/events/topics/c").await.json();
    assert_eq!(status["subscribers"], 0, "{status}");
    // Another stream has a pace of its own.
    let other = Stream::subscribe(server.addr, "topic=a").await;
    assert_eq!(change(&server, &client_of(&other), json!({"add": ["c"]})).await.status, 200);
}

#[tokio::test]
async fn a_change_of_no_stream_or_of_too_many_topics_is_refused() {
    let server = Server::with_config("[hub]\nmax_topics_per_stream = 3\n").await;
    let stream = Stream::subscribe(server.addr, "topic=a").await;
    let client = client_of(&stream);
    let other = if client.ends_with('0') { "1" } else { "0" };
    let guessed = format!("{}{other}", &client[..31]);
    for id in ["x", "00000000000000000000000000000000", &guessed, "%C3%A9"] {
        let answer = change(&server, id, json!({"add": ["b"]})).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "unknown_stream"), "{id}");
    }
    for (body, code) in [
        (json!({"add": ["b", "c", "d"]}), "too_many_topics"),
        (json!({"add": ["$own"]}), "bad_topic"),
        (json!({"remove": [""]}), "bad_topic"),
        (json!({"add": "b"}), "bad_json"),
        (json!(["b"]), "bad_json"),
        (json!({"ad": ["b"]}), "bad_json"),
    ] {
        let answer = change(&server, &client, body.clone()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body}");
    }
    let answer = change(&server, &client, json!({"add": ["b", "c"]})).await;
    assert_eq!(answer.json()["topics"], json!(["a", "b", "c"]));
}

#[tokio::test]
async fn events_of_one_collapse_key_merge_into_the_newest_until_they_are_sent() {
    let server = Server::start(&["--no-demo"]).await;
    let like = |who: &str, photo: &str| {
        let collapse = format!("like:{photo}");
        json!({"topic": "n", "event": "like", "data": {"who": who}, "collapse": collapse})
    };
    let mut stream = Stream::subscribe(server.addr, "topic=n").await;
    publish(server.addr, like("ada", "1")).await;
    assert_eq!(stream.next().await.json(), json!({"who": "ada"}));
    let id = stream.last_id().to_owned();
    stream.abort();
    for (who, photo) in [("bob", "1"), ("cy", "2"), ("di", "1"), ("eve", "1")] {
        publish(server.addr, like(who, photo)).await;
    }
    let mut stream = Stream::resume(server.addr, "topic=n", &id).await;
    assert_eq!(stream.next().await.json(), json!({"who": "cy"}));
    assert_eq!(stream.next().await.json(), json!({"who": "eve", "collapsed": 3}));
    // Sent events are not counted again.
    publish(server.addr, like("flo", "1")).await;
    assert_eq!(stream.next().await.json(), json!({"who": "flo"}));

    let refused = json!({"topic": "n", "data": "text", "collapse": "k"});
    let answer = crate::support::http::try_publish(server.addr, &refused).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_event"));
}

#[tokio::test]
async fn events_of_one_tick_and_collapse_key_are_one() {
    let config = "[delivery]\nflush = \"tick\"\ntick = \"300ms\"\n";
    let server = Server::with_config(config).await;
    let mut stream = Stream::subscribe(server.addr, "topic=n").await;
    // One request, so one tick. Rarely a tick begins in the middle of the request.
    let likes: Vec<Value> =
        (0..12).map(|n| json!({"topic": "n", "data": {"n": n}, "collapse": "k"})).collect();
    publish(server.addr, json!(likes)).await;
    let mut counted = 0;
    while counted < 12 {
        let data = stream.next().await.json();
        counted += data["collapsed"].as_u64().unwrap_or(1);
        assert_eq!(data["n"], counted - 1);
    }
    assert_eq!(counted, 12);
}
