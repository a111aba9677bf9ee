//! The time in a cursor, and positions of topics a stream does not have: nothing is lost when topics
//! are added, live or at a reconnect.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{
    RedisServer, Server, Stream,
    http::{Response, get, request},
    redis::Options,
};

/// The topic named in the streams' URLs; [`elsewhere`] finds one of another partition.
const FIRST: &str = "a";

async fn server() -> Server {
    Server::start(&["--no-demo"]).await
}

async fn publish(server: &Server, topic: &str, data: &str) -> Value {
    server.publish(json!({"topic": topic, "data": data})).await
}

/// A topic in another partition than [`FIRST`].
async fn elsewhere(server: &Server) -> String {
    let first = publish(server, FIRST, "probe").await["partition"].clone();
    for number in 0.. {
        let name = format!("b{number}");
        if publish(server, &name, "probe").await["partition"] != first {
            return name;
        }
    }
    unreachable!()
}

async fn change(server: &Server, stream: &Stream, body: Value) -> Response {
    let client = stream.connected["clientId"].as_str().expect("a client id");
    let path = format!("/events/streams/{client}/topics");
    let headers = [("Content-Type", "application/json")];
    request(server.addr, "POST", &path, &headers, body.to_string().as_bytes()).await
}

async fn cursor(server: &Server, query: &str) -> String {
    let answer = get(server.addr, &format!("/events/cursor?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["cursor"].as_str().expect("a cursor").to_owned()
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()
}

#[tokio::test]
async fn a_topic_added_at_a_reconnect_begins_with_the_events_since_the_last_id() {
    let server = server().await;
    let other = elsewhere(&server).await;
    publish(&server, &other, "before").await;
    let mut stream = Stream::subscribe(server.addr, &format!("topic={FIRST}")).await;
    publish(&server, FIRST, "1").await;
    assert_eq!(stream.next().await.data, "1");
    let id = stream.last_id().to_owned();
    drop(stream);
    publish(&server, &other, "2").await;
    publish(&server, FIRST, "3").await;
    let both = format!("topics={FIRST},{other}");
    let mut stream = Stream::resume(server.addr, &both, &id).await;
    assert_eq!(stream.connected["resumed"], true);
    assert_eq!(stream.take_data(2).await, ["2", "3"]);
}

#[tokio::test]
async fn a_topic_added_again_after_a_cut_continues_after_its_position() {
    let server = server().await;
    let other = elsewhere(&server).await;
    let mut stream = Stream::subscribe(server.addr, &format!("topic={FIRST}")).await;
    assert_eq!(change(&server, &stream, json!({"add": [other]})).await.status, 200);
    publish(&server, &other, "1").await;
    assert_eq!(stream.next().await.data, "1");
    let id = stream.last_id().to_owned();
    drop(stream);
    publish(&server, &other, "2").await;
    publish(&server, &other, "3").await;
    // The client comes back with its URL, gets events, is cut again, and only then adds the topic.
    let mut stream = Stream::resume(server.addr, &format!("topic={FIRST}"), &id).await;
    publish(&server, FIRST, "4").await;
    assert_eq!(stream.next().await.data, "4");
    let id = stream.last_id().to_owned();
    drop(stream);
    let mut stream = Stream::resume(server.addr, &format!("topic={FIRST}"), &id).await;
    assert_eq!(change(&server, &stream, json!({"add": [other]})).await.status, 200);
    publish(&server, &other, "5").await;
    assert_eq!(stream.take_data(3).await, ["2", "3", "5"]);
    // Removed and added again on the open stream, it begins live.
    assert_eq!(change(&server, &stream, json!({"remove": [other]})).await.status, 200);
    publish(&server, &other, "6").await;
    assert_eq!(change(&server, &stream, json!({"add": [other]})).await.status, 200);
    publish(&server, &other, "7").await;
    assert_eq!(stream.next().await.data, "7");
}

/// A topic in the partition of [`FIRST`].
async fn beside(server: &Server) -> String {
    let first = publish(server, FIRST, "probe").await["partition"].clone();
    for number in 0.. {
        let name = format!("c{number}");
        if publish(server, &name, "probe").await["partition"] == first {
            return name;
        }
    }
    unreachable!()
}

/// A topic added live is cut off and added again. Its partition belongs to another topic meanwhile, so
/// the events in between cannot come in order: a gap tells them.
async fn add_again_beside(server: &Server) {
    let beside = beside(server).await;
    let mut stream = Stream::subscribe(server.addr, &format!("topic={FIRST}")).await;
    assert_eq!(change(server, &stream, json!({"add": [beside, "quiet"]})).await.status, 200);
    publish(server, &beside, "1").await;
    assert_eq!(stream.next().await.data, "1");
    let id = stream.last_id().to_owned();
    stream.abort();
    publish(server, &beside, "2").await;
    let mut stream = Stream::resume(server.addr, &format!("topic={FIRST}"), &id).await;
    publish(server, FIRST, "3").await;
    assert_eq!(stream.next().await.data, "3");
    assert_eq!(change(server, &stream, json!({"add": ["quiet"]})).await.status, 200);
    assert_eq!(change(server, &stream, json!({"add": [beside]})).await.status, 200);
    publish(server, &beside, "4").await;
    let gap = stream.next().await;
    assert_eq!((&*gap.event, &gap.json()["reason"]), ("gap", &json!("history")), "{gap:?}");
    assert_eq!(gap.json()["topics"], json!([beside]));
    assert_eq!(stream.next().await.data, "4");
    // Removed by the stream itself, the topic begins live.
    assert_eq!(change(server, &stream, json!({"remove": [beside]})).await.status, 200);
    publish(server, &beside, "5").await;
    assert_eq!(change(server, &stream, json!({"add": [beside]})).await.status, 200);
    publish(server, &beside, "6").await;
    assert_eq!(stream.next().await.data, "6");
}

#[tokio::test]
async fn a_topic_added_again_in_a_partition_of_the_stream_is_told_of_its_missed_events() {
    add_again_beside(&server().await).await;
}

#[tokio::test]
async fn a_topic_added_again_is_told_of_its_missed_events_over_redis() {
    let redis = RedisServer::start(Options::default()).await;
    let server = Server::with_config(&format!("redis.url = \"{}\"", redis.url())).await;
    server.until_ready().await;
    add_again_beside(&server).await;
}

/// The clock of a new master may be behind: the partition repeats its last time.
#[tokio::test]
async fn over_redis_the_times_of_a_partition_never_step_back() {
    let redis = RedisServer::start(Options::default()).await;
    let config = format!("redis.url = \"{}\"\nhub.partitions = 1", redis.url());
    let server = Server::with_config(&config).await;
    server.until_ready().await;
    publish(&server, FIRST, "1").await;
    let later = (now_ms() + 3_600_000) * 1000;
    redis.command(&["HSET", "fanfare:{0}:evicted", "* at", &later.to_string()]).await;
    publish(&server, FIRST, "2").await;
    publish(&server, FIRST, "3").await;
    let log = redis.lines(&["XRANGE", "fanfare:{0}:log:a", "-", "+"]).await.join("\n");
    assert_eq!(log.matches(&later.to_string()).count(), 2, "{log}");
    let since = format!("topic={FIRST}&last_event_id=@{}", later / 1000);
    let mut stream = Stream::subscribe(server.addr, &since).await;
    assert_eq!(stream.take_data(2).await, ["2", "3"]);
}

/// The number of reads of logs so far.
async fn log_reads(redis: &RedisServer) -> u64 {
    let stats = redis.lines(&["INFO", "commandstats"]).await;
    let reads = stats.iter().find_map(|line| line.strip_prefix("cmdstat_xrange:calls="));
    reads.map_or(0, |reads| reads.split(',').next().expect("a word").parse().expect("a number"))
}

#[tokio::test]
async fn over_redis_a_start_at_a_time_reads_no_older_events() {
    let redis = RedisServer::start(Options::default()).await;
    let config = format!("redis.url = \"{}\"\nhub.partitions = 1", redis.url());
    let server = Server::with_config(&config).await;
    server.until_ready().await;
    let old = "x".repeat(4096);
    let events: Vec<Value> = (0..500).map(|_| json!({ "topic": FIRST, "data": old })).collect();
    server.publish(Value::Array(events)).await;
    let later = (now_ms() + 3_600_000) * 1000;
    redis.command(&["HSET", "fanfare:{0}:evicted", "* at", &later.to_string()]).await;
    // The first event of its second was an hour before.
    let second = later / 1_000_000;
    let times = redis.lines(&["ZRANGE", "fanfare:{0}:times", "0", "-1"]).await;
    assert!(times[0].ends_with(" 0"), "{times:?}");
    redis
        .command(&["ZADD", "fanfare:{0}:times", &second.to_string(), &format!("{second} 500")])
        .await;
    server.publish(json!({ "topic": FIRST, "data": "new" })).await;
    // An instance without the old events.
    let other = Server::with_config(&config).await;
    other.until_ready().await;
    let before = log_reads(&redis).await;
    let since = format!("topic={FIRST}&last_event_id=@{}", later / 1000);
    let mut stream = Stream::subscribe(other.addr, &since).await;
    assert_eq!(stream.take_data(1).await, ["new"]);
    let reads = log_reads(&redis).await - before;
    assert!(reads <= 4, "{reads} reads");
}

#[tokio::test]
async fn a_live_change_sends_the_new_id_alone() {
    let server = server().await;
    let other = elsewhere(&server).await;
    let mut stream = Stream::subscribe(server.addr, &format!("topic={FIRST}")).await;
    let before = stream.last_id().to_owned();
    assert_eq!(change(&server, &stream, json!({"add": [other]})).await.status, 200);
    publish(&server, FIRST, "1").await;
    assert_eq!(stream.next().await.data, "1");
    let blocks: Vec<&str> = stream.raw_text().split("\n\n").collect();
    let alone: Vec<&&str> = blocks
        .iter()
        .filter(|block| block.starts_with("id: ") && block.lines().count() == 1)
        .collect();
    assert_eq!(alone.len(), 1, "{}", stream.raw_text());
    let id = alone[0].trim_start_matches("id: ").to_owned();
    assert_ne!(id, before);
    drop(stream);
    // The id names the added topic's partition: its events since then are replayed.
    publish(&server, &other, "2").await;
    let both = format!("topics={FIRST},{other}");
    let mut stream = Stream::resume(server.addr, &both, &id).await;
    assert_eq!(stream.take_data(2).await, ["1", "2"]);
}

#[tokio::test]
async fn a_stream_starts_at_a_time() {
    let server = server().await;
    publish(&server, "a", "1").await;
    // Two events of one millisecond cannot be told apart by a time.
    let mut between = now_ms();
    while now_ms() == between {}
    between = now_ms();
    publish(&server, "a", "2").await;
    publish(&server, "b", "3").await;
    let mut stream =
        Stream::subscribe(server.addr, &format!("topics=a,b&last_event_id=@{between}")).await;
    assert_eq!(stream.take_data(2).await, ["2", "3"]);
    let future = now_ms() + 3_600_000;
    let mut stream =
        Stream::subscribe(server.addr, &format!("topic=a&last_event_id=@{future}")).await;
    publish(&server, "a", "live").await;
    assert_eq!(stream.next().await.data, "live");
    let mut stream = Stream::subscribe(server.addr, "topic=b&last_event_id=@1").await;
    let gap = stream.next().await;
    assert_eq!((gap.event.as_str(), &gap.json()["reason"]), ("gap", &json!("history")));
    assert_eq!(stream.next().await.data, "3");
    for bad in ["@", "@x", "@-1", "@1.5", "@99999999999999999999999"] {
        let response =
            get(server.addr, &format!("/events/stream?topic=a&last_event_id={bad}")).await;
        assert_eq!((response.status, response.code().as_str()), (400, "bad_cursor"), "{bad}");
    }
}

#[tokio::test]
async fn evicted_events_since_a_time_are_a_gap_and_older_ones_are_not() {
    let server = Server::with_config("[history]\nevents = 2").await;
    for data in ["1", "2", "3"] {
        publish(&server, "a", data).await;
    }
    let mut between = now_ms();
    while now_ms() == between {}
    between = now_ms();
    publish(&server, "a", "4").await;
    let query = format!("topic=a&last_event_id=@{between}");
    let mut stream = Stream::subscribe(server.addr, &query).await;
    assert_eq!(stream.connected["resumed"], true);
    assert_eq!(stream.next().await.data, "4");
    for data in ["5", "6"] {
        publish(&server, "a", data).await;
    }
    let mut stream = Stream::subscribe(server.addr, &query).await;
    assert_eq!(stream.next().await.event, "gap");
    assert_eq!(stream.take_data(2).await, ["5", "6"]);
}

#[tokio::test]
async fn a_cursor_is_the_position_now() {
    let server = server().await;
    for topic in ["a", "b", "c"] {
        publish(&server, topic, "before").await;
    }
    let names = "topics=a,b,c:*";
    let exact = cursor(&server, names).await;
    publish(&server, "a", "1").await;
    publish(&server, "b", "2").await;
    publish(&server, "c:d", "3").await;
    let mut stream = Stream::resume(server.addr, names, &exact).await;
    assert_eq!(stream.connected["resumed"], true);
    let mut data = stream.take_data(3).await;
    data.sort();
    assert_eq!(data, ["1", "2", "3"]);
    let answer = get(server.addr, "/events/cursor?topic=a").await.json();
    let timestamp = answer["timestamp"].as_u64().expect("a time");
    assert!(u128::from(timestamp).abs_diff(now_ms()) < 60_000);
    for (query, code) in
        [("", "bad_topic"), ("topic=a::b", "bad_topic"), ("topic=a&batch=x", "bad_query")]
    {
        let response = get(server.addr, &format!("/events/cursor?{query}")).await;
        assert_eq!((response.status, response.code().as_str()), (400, code), "{query}");
    }
}

#[tokio::test]
async fn ids_with_16_partitions_stay_short_and_the_event_id_of_a_retry_is_the_first() {
    let server = server().await;
    let event = json!({"topic": "a", "data": 1, "id": "once"});
    let first = server.publish(event.clone()).await;
    assert_eq!(server.publish(event).await, first);
    let mut stream = Stream::subscribe(server.addr, "topic=**").await;
    publish(&server, "a", "1").await;
    stream.next().await;
    assert!(stream.last_id().len() <= 256);
}

#[tokio::test]
async fn an_addition_after_a_long_absence_is_replayed_in_pages() {
    let server = Server::with_config("[history]\nevents = 5000").await;
    let other = elsewhere(&server).await;
    let mut stream = Stream::subscribe(server.addr, &format!("topics={FIRST},{other}")).await;
    publish(&server, &other, "seen").await;
    assert_eq!(stream.next().await.data, "seen");
    let id = stream.last_id().to_owned();
    drop(stream);
    // Several pages of 256 KiB.
    let events: Vec<Value> =
        (0..1000).map(|number| json!({"topic": other, "data": format!("{number:0900}")})).collect();
    let headers = [("Content-Type", "application/json")];
    let body = Value::from(events).to_string();
    let answer = request(server.addr, "POST", "/events/publish", &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200);
    let mut stream = Stream::resume(server.addr, &format!("topic={FIRST}"), &id).await;
    assert_eq!(change(&server, &stream, json!({"add": [other]})).await.status, 200);
    publish(&server, &other, "live").await;
    let data = stream.take_data(1001).await;
    let expected = (0..1000).map(|number| format!("{number:0900}"));
    assert!(data.iter().eq(expected.chain(["live".to_owned()]).collect::<Vec<_>>().iter()));
}
