//! Revocations end the streams of all instances, and reach instances started later.

use serde_json::{Value, json};

use super::start_with_access;
use crate::support::{
    RedisServer, Server, Stream,
    chaos::{ChaosProxy, Mode},
    heavy,
    http::{Response, request},
    redis::{Cluster, Options, REDIS_DEADLINE},
    tokens::{token, unix_s},
    wait::{DEADLINE, until},
};

fn subscriber(user: &str) -> String {
    token(json!({ "sub": user, "iat": unix_s(), "fanfare": { "subscribe": ["a:*"] } }))
}

async fn open(server: &Server, token: &str) -> Stream {
    open_all(server, token, "topic=a:1").await
}

async fn open_all(server: &Server, token: &str, query: &str) -> Stream {
    let bearer = format!("Bearer {token}");
    Stream::subscribe_with(server.addr, query, &[("Authorization", &bearer)]).await
}

async fn send(server: &Server, method: &str, path: &str, token: &str, body: &Value) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    request(server.addr, method, path, &headers, body.to_string().as_bytes()).await
}

/// The reason of the stream's end, and the data of all events before it.
async fn end(stream: &mut Stream) -> (String, Vec<String>) {
    let mut rest = stream.rest().await;
    let last = rest.pop().expect("a stream ends with `shutdown`");
    assert_eq!(last.event, "shutdown");
    let reason = last.json()["reason"].as_str().expect("a reason").to_owned();
    (reason, rest.into_iter().map(|event| event.data).collect())
}

#[tokio::test]
async fn a_revocation_ends_streams_everywhere_and_outlives_the_instances() {
    let redis = RedisServer::start(Options::default()).await;
    let url = redis.url();
    let servers = [
        start_with_access(&url).await,
        start_with_access(&url).await,
        start_with_access(&url).await,
    ];
    let operator = token(json!({ "fanfare": { "manage": ["**"], "publish": ["**"] } }));
    let (ann, bob) = (subscriber("ann"), subscriber("bob"));
    let mut of_ann = Vec::new();
    for server in &servers {
        of_ann.push(open(server, &ann).await);
    }
    let mut of_bob = open(&servers[2], &bob).await;

    let revoke = json!({ "user": "ann" });
    let answer = send(&servers[0], "POST", "/events/revocations", &operator, &revoke).await;
    assert_eq!((answer.status, answer.json()["streams"].clone()), (200, json!(3)));
    let event = json!({ "topic": "a:1", "data": "after" });
    assert_eq!(send(&servers[1], "POST", "/events/publish", &operator, &event).await.status, 200);
    for stream in &mut of_ann {
        assert_eq!(end(stream).await, ("revoked".to_owned(), Vec::new()));
    }
    assert_eq!(of_bob.take_data(1).await, ["after"]);

    let later = start_with_access(&url).await;
    for server in servers.iter().chain([&later]) {
        for (token, status) in [(&ann, 401), (&bob, 200)] {
            let path = "/events/cursor?topic=a:1";
            let answer = send(server, "GET", path, token, &Value::Null).await;
            assert_eq!(answer.status, status, "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn an_instance_cut_off_during_a_revocation_learns_it_after_its_return() {
    let redis = RedisServer::start(Options::append_only()).await;
    let proxy = ChaosProxy::start(redis.addr()).await;
    let (cut, other) =
        (start_with_access(&proxy.url()).await, start_with_access(&redis.url()).await);
    let operator = token(json!({ "fanfare": { "manage": ["**"], "publish": ["**"] } }));
    let (ann, bob) = (subscriber("ann"), subscriber("bob"));
    let (mut of_ann, mut of_bob) = (open(&cut, &ann).await, open(&cut, &bob).await);
    proxy.set(Mode::Cut);
    until(DEADLINE, "the link is cut", async || !cut.is_ready().await).await;
    let revoke = json!({ "user": "ann" });
    until(REDIS_DEADLINE, "the revocation is in force", async || {
        let answer = send(&other, "POST", "/events/revocations", &operator, &revoke).await;
        // Until the instance counts as gone, its answer lacks.
        assert!(answer.status == 200 || answer.code() == "unconfirmed", "{}", answer.text());
        answer.status == 200
    })
    .await;
    // Published after the answer, and received by the instance with its new link.
    let publish = async |data: &str| {
        let event = json!({ "topic": "a:1", "data": data });
        assert_eq!(send(&other, "POST", "/events/publish", &operator, &event).await.status, 200);
    };
    publish("while away").await;
    proxy.set(Mode::Pass);
    assert_eq!(end(&mut of_ann).await, ("revoked".to_owned(), Vec::new()));
    cut.until_ready().await;
    publish("after").await;
    assert_eq!(of_bob.take_data(2).await, ["while away", "after"]);
    let answer = send(&cut, "GET", "/events/cursor?topic=a:1", &ann, &Value::Null).await;
    assert_eq!(answer.status, 401, "{}", answer.text());
}

/// Each master has a link of its own, and a revocation takes all of them.
#[tokio::test]
async fn a_revocation_over_a_redis_cluster_ends_each_stream_once() {
    let _heavy = heavy().await;
    let cluster = Cluster::start().await;
    let url = cluster.url();
    let servers = [start_with_access(&url).await, start_with_access(&url).await];
    let operator = token(json!({ "fanfare": { "manage": ["**"], "publish": ["**"] } }));
    let (ann, bob) = (subscriber("ann"), subscriber("bob"));
    let mut of_ann = Vec::new();
    for server in &servers {
        of_ann.push(open_all(server, &ann, "topic=a:*").await);
    }
    let mut of_bob = open_all(&servers[1], &bob, "topic=a:*").await;

    let revoke = json!({ "user": "ann" });
    let answer = send(&servers[0], "POST", "/events/revocations", &operator, &revoke).await;
    assert_eq!((answer.status, answer.json()["streams"].clone()), (200, json!(2)));
    // Topics of all partitions.
    let topics: Vec<String> = (0..64).map(|number| format!("a:{number}")).collect();
    let events = topics.iter().map(|topic| json!({ "topic": topic, "data": topic }));
    let events = Value::from_iter(events);
    assert_eq!(send(&servers[0], "POST", "/events/publish", &operator, &events).await.status, 200);
    for stream in &mut of_ann {
        assert_eq!(end(stream).await, ("revoked".to_owned(), Vec::new()));
    }
    let mut got = of_bob.take_data(topics.len()).await;
    let mut expected = topics;
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn without_redis_nothing_is_revoked() {
    let mut redis = RedisServer::start(Options::append_only()).await;
    let server = start_with_access(&redis.url()).await;
    let operator = token(json!({ "fanfare": { "manage": ["**"], "publish": ["**"] } }));
    let ann = subscriber("ann");
    let mut stream = open(&server, &ann).await;
    redis.kill();
    until(DEADLINE, "the link is down", async || !server.is_ready().await).await;
    let revoke = json!({ "user": "ann" });
    let answer = send(&server, "POST", "/events/revocations", &operator, &revoke).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "bridge_down"));
    redis.restart().await;
    server.until_ready().await;
    let event = json!({ "topic": "a:1", "data": "still here" });
    assert_eq!(send(&server, "POST", "/events/publish", &operator, &event).await.status, 200);
    let data = stream.take_data(1).await;
    assert_eq!(data, ["still here"]);
}
