//! Random grants and random subscriptions: a stream gets each event of its granted topics, and never
//! another one. Live, by replay, from the beginning, by a forged cursor, by poll, after a live
//! change, and after a renewal to less.
//!
//! The expected topics follow from an oracle of the test: it compares patterns by all topics of a
//! small universe.

use std::collections::BTreeSet;

use serde_json::{Value, json};

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

/// Segments of published topics.
const SEGMENTS: [&str; 3] = ["a", "b", "c"];

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        // Xorshift: any seed but 0.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    /// A topic or pattern of one to three segments.
    fn pattern(&mut self) -> String {
        let count = 1 + self.below(3);
        let segments = (0..count).map(|place| match self.below(7) {
            0 | 1 => "*",
            2 if place == count - 1 => "**",
            number => SEGMENTS[number % 3],
        });
        segments.collect::<Vec<_>>().join(":")
    }

    fn patterns(&mut self, most: usize) -> BTreeSet<String> {
        (0..=self.below(most)).map(|_| self.pattern()).collect()
    }
}

/// All names of up to `depth` segments.
fn universe(segments: &[&str], depth: usize) -> Vec<String> {
    let mut all: Vec<String> = segments.iter().map(|one| (*one).to_owned()).collect();
    let mut last = all.clone();
    for _ in 1..depth {
        let longer =
            last.iter().flat_map(|name| segments.iter().map(move |one| format!("{name}:{one}")));
        last = longer.collect();
        all.extend(last.iter().cloned());
    }
    all
}

fn matches(pattern: &str, topic: &str) -> bool {
    let topic: Vec<&str> = topic.split(':').collect();
    let pattern: Vec<&str> = pattern.split(':').collect();
    let is_open = pattern.last() == Some(&"**");
    let fixed = if is_open { &pattern[..pattern.len() - 1] } else { &pattern[..] };
    let has_length = if is_open { topic.len() > fixed.len() } else { topic.len() == fixed.len() };
    has_length && fixed.iter().zip(&topic).all(|(wanted, one)| *wanted == "*" || wanted == one)
}

/// Whether one granted pattern contains the whole pattern. Segments of no name stand for all others.
fn is_granted(grant: &BTreeSet<String>, wanted: &str) -> bool {
    let all = universe(&["a", "b", "c", "other"], 4);
    let wanted: Vec<&String> = all.iter().filter(|topic| matches(wanted, topic)).collect();
    grant.iter().any(|granted| wanted.iter().all(|topic| matches(granted, topic)))
}

fn chosen(subscription: &BTreeSet<String>) -> BTreeSet<String> {
    let all = universe(&SEGMENTS, 3).into_iter();
    all.filter(|topic| subscription.iter().any(|pattern| matches(pattern, topic))).collect()
}

/// One grant, and the rights after a renewal.
struct Case {
    prefix: String,
    grant: BTreeSet<String>,
    lesser: BTreeSet<String>,
    token: String,
    lesser_token: String,
}

impl Case {
    fn all(random: &mut Random) -> (Vec<Self>, String) {
        let drawn: Vec<_> = (0..CASES).map(|_| (random.patterns(4), random.patterns(3))).collect();
        let operator = json!({"publish": ["**"], "subscribe": ["**"], "manage": ["**"]});
        let order = |rights: Value| {
            Order::new(
                "HS256",
                SECRET,
                json!({"sub": "ann", "exp": unix_s() + 3600, "fanfare": rights}),
            )
        };
        let of = |number: usize, patterns: &BTreeSet<String>| {
            // Each stream hears the marker behind the events.
            let names = patterns.iter().map(|one| format!("t{number}:{one}"));
            order(json!({"subscribe": names.chain([format!("mark{number}")]).collect::<Vec<_>>()}))
        };
        let mut orders = vec![order(operator)];
        for (number, (grant, lesser)) in drawn.iter().enumerate() {
            orders.extend([of(number, grant), of(number, lesser)]);
        }
        let mut tokens = mint(Library::PyJwt, &orders).into_iter();
        let operator = tokens.next().expect("the operator's");
        let cases = drawn.into_iter().enumerate().map(|(number, (grant, lesser))| Self {
            prefix: format!("t{number}:"),
            grant,
            lesser,
            token: tokens.next().expect("two a case"),
            lesser_token: tokens.next().expect("two a case"),
        });
        (cases.collect(), operator)
    }

    fn marker(&self) -> String {
        self.prefix.trim_end_matches(':').replace('t', "mark")
    }

    /// The names of a request, with the case's prefix.
    fn names(&self, patterns: &BTreeSet<String>) -> Vec<String> {
        patterns.iter().map(|one| format!("{}{one}", self.prefix)).collect()
    }

    fn query(&self, patterns: &BTreeSet<String>) -> String {
        let names = self.names(patterns).into_iter().chain([self.marker()]);
        format!("topics={}", names.collect::<Vec<_>>().join(","))
    }

    async fn open(&self, server: &Server, query: &str) -> Stream {
        let bearer = format!("Bearer {}", self.token);
        Stream::subscribe_with(server.addr, query, &[("Authorization", &bearer)]).await
    }
}

async fn send(server: &Server, method: &str, path: &str, token: &str, body: &str) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    request(server.addr, method, path, &headers, body.as_bytes()).await
}

/// Publishes an event to every topic of the case.
async fn publish_all(server: &Server, operator: &str, case: &Case, round: u32) {
    let events = universe(&SEGMENTS, 3).into_iter().map(|topic| {
        json!({"topic": format!("{}{topic}", case.prefix), "data": format!("{round} {topic}")})
    });
    let body = Value::from_iter(events).to_string();
    let answer = send(server, "POST", "/events/publish", operator, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Reads a stream: all wanted events come once, and no other. A late event of another partition
/// would come before the marker: the marker is published after the last wanted event has come.
async fn read_all(
    server: &Server,
    operator: &str,
    case: &Case,
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
    let marker = format!("marker of {}", stream.connected["clientId"]);
    let body = json!({"topic": case.marker(), "data": marker}).to_string();
    assert_eq!(send(server, "POST", "/events/publish", operator, &body).await.status, 200);
    loop {
        let event = stream.next().await;
        if event.data == marker {
            return;
        }
        assert!(event.data.starts_with("marker"), "{event:?} is not among {wanted:?}");
    }
}

/// The data of these topics in these rounds.
fn data(topics: &BTreeSet<String>, rounds: &[u32]) -> BTreeSet<String> {
    let of = |round: &u32| {
        topics.iter().map(move |topic| format!("{round} {topic}")).collect::<Vec<_>>()
    };
    rounds.iter().flat_map(of).collect()
}

/// Polls from a cursor until all wanted events have come.
async fn poll(server: &Server, case: &Case, query: &str, from: &str, wanted: &BTreeSet<String>) {
    let (mut cursor, mut seen) = (from.to_owned(), BTreeSet::new());
    while seen.len() < wanted.len() {
        let path = format!("/events/poll?{query}&wait=10&last_event_id={cursor}");
        let answer = send(server, "GET", &path, &case.token, "").await.json();
        for event in answer["events"].as_array().expect("events") {
            let data = event["data"].as_str().expect("a text").to_owned();
            assert!(wanted.contains(&data) && seen.insert(data.clone()), "{data} in {wanted:?}");
        }
        answer["cursor"].as_str().expect("a cursor").clone_into(&mut cursor);
    }
}

async fn check(server: &Server, operator: &str, case: &Case, random: &mut Random) {
    let path = format!("/events/cursor?topic={}**", case.prefix);
    let forged = send(server, "GET", &path, operator, "").await.json()["cursor"].clone();
    let forged = forged.as_str().expect("a cursor").to_owned();
    publish_all(server, operator, case, 1).await;

    // The whole subscription is refused, and names the topics without a grant.
    let asked = random.patterns(4);
    let (granted, refused): (BTreeSet<_>, BTreeSet<_>) =
        asked.iter().cloned().partition(|one| is_granted(&case.grant, one));
    let stream = format!("/events/stream?{}&last_event_id=earliest", case.query(&asked));
    if !refused.is_empty() {
        for path in [
            stream.clone(),
            stream.replace("/stream", "/poll"),
            stream.replace("/stream", "/cursor"),
        ] {
            let answer = send(server, "GET", &path, &case.token, "").await;
            assert_eq!(answer.status, 403, "{asked:?} within {:?}: {}", case.grant, answer.text());
            let mut named: Vec<String> =
                serde_json::from_value(answer.json()["error"]["topics"].clone()).expect("names");
            named.sort_unstable();
            assert_eq!(named, case.names(&refused), "within {:?}", case.grant);
        }
    }

    let query = case.query(&granted);
    let mut live = case.open(server, &query).await;
    let mut resumed = case.open(server, &format!("{query}&last_event_id={forged}")).await;
    let mut earliest = case.open(server, &format!("{query}&last_event_id=earliest")).await;
    let mut renewed = case.open(server, &query).await;
    let topics = chosen(&granted);

    // A change keeps within the grant of the stream.
    let added = random.pattern();
    let client = live.connected["clientId"].as_str().expect("an id").to_owned();
    let path = format!("/events/streams/{client}/topics");
    let body = json!({"add": [format!("{}{added}", case.prefix)]}).to_string();
    let answer = send(server, "POST", &path, &case.token, &body).await;
    let may_add = is_granted(&case.grant, &added);
    assert_eq!(answer.status, if may_add { 200 } else { 403 }, "{added} within {:?}", case.grant);
    let changed = if may_add {
        chosen(&granted.iter().cloned().chain([added]).collect())
    } else {
        topics.clone()
    };

    // A renewal to less removes topics.
    let client = renewed.connected["clientId"].as_str().expect("an id").to_owned();
    let path = format!("/events/streams/{client}/token");
    let body = json!({"token": case.lesser_token}).to_string();
    let answer = send(server, "POST", &path, &case.token, &body).await;
    let (kept, lost): (BTreeSet<_>, BTreeSet<_>) =
        granted.iter().cloned().partition(|one| is_granted(&case.lesser, one));
    let mut removed: Vec<String> =
        serde_json::from_value(answer.json()["removed"].clone()).expect("names");
    removed.sort_unstable();
    assert_eq!(removed, case.names(&lost), "{granted:?} within {:?}", case.lesser);

    publish_all(server, operator, case, 2).await;
    poll(server, case, &query, &forged, &data(&topics, &[1, 2])).await;
    for (stream, wanted) in [
        (&mut live, data(&changed, &[2])),
        (&mut renewed, data(&chosen(&kept), &[2])),
        (&mut resumed, data(&topics, &[1, 2])),
        (&mut earliest, data(&topics, &[1, 2])),
    ] {
        read_all(server, operator, case, stream, &wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_gets_all_granted_events_and_no_other() {
    let _heavy = heavy().await;
    let config = format!(
        "[access]\nenabled = true\n[[access.keys]]\nalgorithm = \"HS256\"\nkey = {SECRET:?}\n"
    );
    let server = Server::with_config(&config).await;
    let seed = u64::from(unix_s() as u32) | 1;
    println!("seed {seed}");
    let mut random = Random(seed);
    let (cases, operator) = Case::all(&mut random);
    for case in &cases {
        check(&server, &operator, case, &mut random).await;
    }
}
