//! Random grants and random subscriptions: a stream gets each event of its granted topics, and never
//! another one. Live, by replay, from the beginning, by a forged cursor, by poll, after a live
//! change, and after a renewal to less.
//!
//! `feeds` does the same for feeds, `snapshots` for snapshots. The expected topics follow from the
//! test's own `oracle`.

#[path = "granted_events/feeds.rs"]
mod feeds;
#[path = "granted_events/oracle.rs"]
mod oracle;
#[path = "granted_events/snapshots.rs"]
mod snapshots;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::oracle::{Random, SEGMENTS, chosen, is_granted, universe};
use crate::{
    Server,
    support::{
        Event, Stream, heavy,
        http::{Response, request},
        tokens::{Library, Order, SECRET, mint, unix_s},
    },
};

/// Grants tried on each transport.
const CASES: usize = 25;

/// One grant, and the rights after a renewal.
struct Case {
    prefix: String,
    marker: String,
    grant: BTreeSet<String>,
    lesser: BTreeSet<String>,
    token: String,
    lesser_token: String,
}

/// A token of a user to be signed.
fn order(user: &str, rights: Value) -> Order {
    let claims = json!({"sub": user, "exp": unix_s() + 3600, "fanfare": rights});
    Order::new("HS256", SECRET, claims)
}

fn operator() -> Order {
    order("operator", json!({"publish": ["**"], "subscribe": ["**"], "manage": ["**"]}))
}

impl Case {
    /// Random cases with topics below `root`, and the operator's token.
    fn all(random: &mut Random, root: &str) -> (Vec<Self>, String) {
        let drawn: Vec<_> = (0..CASES).map(|_| (random.patterns(4), random.patterns(3))).collect();
        let of = |number: usize, patterns: &BTreeSet<String>| {
            // Each stream hears the marker behind the events.
            let names = patterns.iter().map(|one| format!("{root}:{number}:{one}"));
            let names: Vec<String> = names.chain([format!("mark:{root}:{number}")]).collect();
            order("ann", json!({"subscribe": names}))
        };
        let mut orders = vec![operator()];
        for (number, (grant, lesser)) in drawn.iter().enumerate() {
            orders.extend([of(number, grant), of(number, lesser)]);
        }
        let mut tokens = mint(Library::PyJwt, &orders).into_iter();
        let operator = tokens.next().expect("the operator's");
        let cases = drawn.into_iter().enumerate().map(|(number, (grant, lesser))| Self {
            prefix: format!("{root}:{number}:"),
            marker: format!("mark:{root}:{number}"),
            grant,
            lesser,
            token: tokens.next().expect("two a case"),
            lesser_token: tokens.next().expect("two a case"),
        });
        (cases.collect(), operator)
    }

    /// The names of a request, with the case's prefix.
    fn names(&self, patterns: &BTreeSet<String>) -> Vec<String> {
        patterns.iter().map(|one| format!("{}{one}", self.prefix)).collect()
    }

    fn query(&self, patterns: &BTreeSet<String>) -> String {
        let names = self.names(patterns).into_iter().chain([self.marker.clone()]);
        format!("topics={}", names.collect::<Vec<_>>().join(","))
    }

    async fn open(&self, server: &Server, query: &str) -> Stream {
        open(server, &format!("/events/stream?{query}"), &self.token).await
    }
}

async fn open(server: &Server, path: &str, token: &str) -> Stream {
    let bearer = format!("Bearer {token}");
    let mut stream = Stream::open(server.addr, path, &[("Authorization", &bearer)]).await;
    stream.read_connected().await;
    stream
}

async fn send(server: &Server, method: &str, path: &str, token: &str, body: &str) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    request(server.addr, method, path, &headers, body.as_bytes()).await
}

/// Publishes an event to every topic of the case.
async fn publish_all(server: &Server, operator: &str, case: &Case, round: u32) {
    let events = universe(&SEGMENTS, 3).into_iter().map(|topic| {
        let name = format!("{}{topic}", case.prefix);
        json!({"topic": name, "key": "x", "data": format!("{round} {topic}")})
    });
    publish(server, operator, Value::from_iter(events)).await;
}

async fn publish(server: &Server, operator: &str, events: Value) {
    let answer = send(server, "POST", "/events/publish", operator, &events.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Reads a stream: all wanted events come once, and no other. A late event of another partition
/// would come before the marker: the marker is published after the last wanted event has come.
async fn read_all(
    server: &Server,
    operator: &str,
    marker: &str,
    stream: &mut Stream,
    wanted: &BTreeSet<String>,
) {
    let mut seen = BTreeSet::new();
    let mut take = |event: &Event| {
        assert_eq!(event.event, "message", "{event:?}");
        assert!(wanted.contains(&event.data), "{event:?} is not among {wanted:?}");
        assert!(seen.insert(event.data.clone()), "{event:?} came twice");
        seen.len()
    };
    let mut count = 0;
    while count < wanted.len() {
        let event = stream.next().await;
        // Of streams read before.
        if !event.data.starts_with("marker") {
            count = take(&event);
        }
    }
    let data = format!("marker of {}", stream.connected["clientId"]);
    publish(server, operator, json!({"topic": marker, "data": data})).await;
    loop {
        let event = stream.next().await;
        if event.data == data {
            return;
        }
        assert!(event.data.starts_with("marker"), "{event:?} is not among {wanted:?}");
    }
}

/// Adds a topic or pattern to an open stream. Returns the status.
async fn add(server: &Server, stream: &Stream, token: &str, name: &str) -> u16 {
    let path = format!("/events/streams/{}/topics", client(stream));
    send(server, "POST", &path, token, &json!({"add": [name]}).to_string()).await.status
}

/// Renews the token of an open stream. Returns the removed topics and patterns, sorted.
async fn renew(server: &Server, stream: &Stream, token: &str, later: &str) -> Vec<String> {
    let path = format!("/events/streams/{}/token", client(stream));
    let answer = send(server, "POST", &path, token, &json!({"token": later}).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let removed = answer.json()["removed"].clone();
    let mut removed: Vec<String> = serde_json::from_value(removed).expect("names");
    removed.sort_unstable();
    removed
}

fn client(stream: &Stream) -> &str {
    stream.connected["clientId"].as_str().expect("an id")
}

/// The data of these topics in these rounds.
fn data(topics: &BTreeSet<String>, rounds: &[u32]) -> BTreeSet<String> {
    let of = |round: &u32| {
        topics.iter().map(move |topic| format!("{round} {topic}")).collect::<Vec<_>>()
    };
    rounds.iter().flat_map(of).collect()
}

/// Polls from a cursor until all wanted events have come.
async fn poll(server: &Server, path: &str, token: &str, from: &str, wanted: &BTreeSet<String>) {
    let (mut cursor, mut seen) = (from.to_owned(), BTreeSet::new());
    while seen.len() < wanted.len() {
        let path = format!("{path}&wait=10&last_event_id={cursor}");
        let answer = send(server, "GET", &path, token, "").await.json();
        for event in answer["events"].as_array().expect("events") {
            let data = event["data"].as_str().expect("a text").to_owned();
            assert!(wanted.contains(&data) && seen.insert(data.clone()), "{data} in {wanted:?}");
        }
        answer["cursor"].as_str().expect("a cursor").clone_into(&mut cursor);
    }
}

/// Asks for a whole subscription. It is refused, and the refusal names the topics without a grant.
/// Returns the granted ones.
async fn check_refusal(
    server: &Server,
    case: &Case,
    asked: &BTreeSet<String>,
    more: &str,
) -> BTreeSet<String> {
    let (granted, refused): (BTreeSet<_>, BTreeSet<_>) =
        asked.iter().cloned().partition(|one| is_granted(&case.grant, one));
    if refused.is_empty() {
        return granted;
    }
    for kind in ["stream", "poll", "cursor"] {
        let path = format!("/events/{kind}?{}{more}", case.query(asked));
        let answer = send(server, "GET", &path, &case.token, "").await;
        assert_eq!(answer.status, 403, "{asked:?} within {:?}: {}", case.grant, answer.text());
        let named = answer.json()["error"]["topics"].clone();
        let mut named: Vec<String> = serde_json::from_value(named).expect("names");
        named.sort_unstable();
        assert_eq!(named, case.names(&refused), "within {:?}", case.grant);
    }
    granted
}

/// A cursor by the operator: the case's caller did not get it from the hub.
async fn forged(server: &Server, operator: &str) -> String {
    let answer = send(server, "GET", "/events/cursor?topic=**", operator, "").await.json();
    answer["cursor"].as_str().expect("a cursor").to_owned()
}

async fn check(server: &Server, operator: &str, case: &Case, random: &mut Random) {
    let forged = forged(server, operator).await;
    publish_all(server, operator, case, 1).await;

    let asked = random.patterns(4);
    let granted = check_refusal(server, case, &asked, "&last_event_id=earliest").await;
    let query = case.query(&granted);
    let mut live = case.open(server, &query).await;
    let mut resumed = case.open(server, &format!("{query}&last_event_id={forged}")).await;
    let mut earliest = case.open(server, &format!("{query}&last_event_id=earliest")).await;
    let mut renewed = case.open(server, &query).await;
    let topics = chosen(&granted);

    // A change keeps within the grant of the stream.
    let added = random.pattern();
    let may_add = is_granted(&case.grant, &added);
    let status = add(server, &live, &case.token, &format!("{}{added}", case.prefix)).await;
    assert_eq!(status, if may_add { 200 } else { 403 }, "{added} within {:?}", case.grant);
    let changed: BTreeSet<String> =
        granted.iter().cloned().chain(may_add.then_some(added)).collect();
    let changed = chosen(&changed);

    // A renewal to less removes topics.
    let removed = renew(server, &renewed, &case.token, &case.lesser_token).await;
    let (kept, lost): (BTreeSet<_>, BTreeSet<_>) =
        granted.iter().cloned().partition(|one| is_granted(&case.lesser, one));
    assert_eq!(removed, case.names(&lost), "{granted:?} within {:?}", case.lesser);

    publish_all(server, operator, case, 2).await;
    let polled = format!("/events/poll?{query}");
    poll(server, &polled, &case.token, &forged, &data(&topics, &[1, 2])).await;
    for (stream, wanted) in [
        (&mut live, data(&changed, &[2])),
        (&mut renewed, data(&chosen(&kept), &[2])),
        (&mut resumed, data(&topics, &[1, 2])),
        (&mut earliest, data(&topics, &[1, 2])),
    ] {
        read_all(server, operator, &case.marker, stream, &wanted).await;
    }
}

/// A server with access control and this configuration.
async fn start(more: &str) -> Server {
    Server::with_config(&format!(
        "[access]\nenabled = true\n[[access.keys]]\nalgorithm = \"HS256\"\nkey = {SECRET:?}\n{more}"
    ))
    .await
}

/// Another seed at each run, printed for a failed one.
fn random() -> Random {
    let seed = u64::from(unix_s() as u32) | 1;
    println!("seed {seed}");
    Random(seed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_gets_all_granted_events_and_no_other() {
    let _heavy = heavy().await;
    let (server, mut random) = (start("").await, random());
    let (cases, operator) = Case::all(&mut random, "t");
    for case in &cases {
        check(&server, &operator, case, &mut random).await;
    }
}
