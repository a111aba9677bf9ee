//! A replay cut in the middle: the client returns with its last id and gets the rest, once and in
//! order, then live events. No `gap`: nothing is missed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde_json::{Value, json};

use super::Server;
use crate::support::{Event, Stream, http::publish};

/// Topics without conflation; their histories reach back to the first event.
const PLAIN: usize = 6;
/// Topics with a history shorter than their events: the losses are older than the replay.
const SHORT: usize = 4;
const SHORT_EVENTS: usize = 5;
/// Topics conflated by key.
const KEYED: usize = 4;
const KEYS: usize = 5;
const ROUNDS: usize = 20;
/// Cuts with an event published before the return.
const BUSY_CUTS: usize = 12;
/// Long enough for several pages in a partition.
const DATA_BYTES: usize = 1500;

pub const CONFIG: &str = "\
    [[topics]]\npattern = \"short:*\"\nhistory = { events = 5, ttl = \"1h\" }\n\
    [[topics]]\npattern = \"keyed:*\"\nconflate = \"latest-by-key\"\n";

fn event(topic: &str, number: usize) -> Value {
    json!({
        "topic": topic,
        "key": format!("k{}", number % KEYS),
        "data": format!("{topic} {number} {}", "x".repeat(DATA_BYTES)),
    })
}

/// Publishes the histories, all topics in turn.
async fn fill(addr: SocketAddr) {
    for number in 0..ROUNDS {
        let plain = (0..PLAIN).map(|topic| event(&format!("plain:{topic}"), number));
        let short = (0..SHORT).map(|topic| event(&format!("short:{topic}"), number));
        let keyed = (0..KEYED).map(|topic| event(&format!("keyed:{topic}"), number));
        let answer = publish(addr, plain.chain(short).chain(keyed).collect()).await;
        assert_eq!(answer[0]["success"], true, "{answer}");
    }
}

/// The numbers received of each topic.
#[derive(Default)]
struct Got(BTreeMap<String, Vec<usize>>);

impl Got {
    fn note(&mut self, event: &Event) {
        // Every stream asks for a snapshot, so `live` follows its rest.
        if event.event == "live" {
            return;
        }
        assert_eq!(event.event, "message", "a replay without a gap: {event:?}");
        let mut words = event.data.split(' ');
        let topic = words.next().expect("a topic").to_owned();
        let number = words.next().and_then(|number| number.parse().ok()).expect("a number");
        let all = self.0.entry(topic).or_default();
        assert!(all.last().is_none_or(|last| *last < number), "once and in order: {event:?}");
        all.push(number);
    }

    /// Whether everything has come.
    fn is_whole(&self, expected: &BTreeMap<String, BTreeSet<usize>>) -> bool {
        expected.iter().all(|(topic, numbers)| {
            let got = self.0.get(topic).map_or(&[][..], |got| got);
            numbers.iter().all(|number| got.contains(number))
        })
    }
}

/// The events due to a stream with these names: all in history, or a snapshot.
fn expected(query: &str, is_snapshot: bool) -> BTreeMap<String, BTreeSet<usize>> {
    let topics = |kind: &'static str, count| (0..count).map(move |n| format!("{kind}:{n}"));
    let newest = |count: usize| (ROUNDS - count..ROUNDS).collect::<BTreeSet<usize>>();
    let mut all = BTreeMap::new();
    all.extend(topics("keyed", KEYED).map(|topic| (topic, newest(KEYS))));
    if !is_snapshot {
        all.extend(topics("plain", PLAIN).map(|topic| (topic, newest(ROUNDS))));
        all.extend(topics("short", SHORT).map(|topic| (topic, newest(SHORT_EVENTS))));
    }
    all.retain(|topic, _| query.contains("**") || query.contains(&topic[..5]));
    all
}

/// Reads some events, is cut and returns, until everything has come.
async fn walk(addrs: &[SocketAddr], query: &str, start: &str, first_number: usize) {
    let mut due = expected(query, start.contains("snapshot"));
    let (mut got, mut id) = (Got::default(), String::new());
    for cut in 0.. {
        let addr = addrs[cut % addrs.len()];
        let mut stream = match &*id {
            "" => Stream::subscribe(addr, &format!("{query}&{start}")).await,
            // The URL stays as it is; the id wins.
            id => Stream::resume(addr, &format!("{query}&snapshot=true"), id).await,
        };
        assert_eq!(stream.connected["resumed"], cut > 0);
        for _ in 0..[1, 4, 2, 9][cut % 4] {
            if got.is_whole(&due) {
                break;
            }
            got.note(&stream.next().await);
            assert!(stream.last_id().len() <= 256, "{}", stream.last_id());
        }
        id = stream.last_id().to_owned();
        stream.abort();
        if cut < BUSY_CUTS {
            let (topic, number) = (format!("plain:{}", cut % PLAIN), first_number + cut);
            publish(addrs[0], event(&topic, number)).await;
            if query.contains("plain") || query.contains("**") {
                due.entry(topic).or_default().insert(number);
            }
        } else if got.is_whole(&due) {
            break;
        }
    }
    for (topic, numbers) in &got.0 {
        let due = due.get(topic).cloned().unwrap_or_default();
        assert!(due.iter().eq(numbers), "{query} {start}: {topic} {numbers:?}, due {due:?}");
    }
}

/// Walks through the histories of all topics, by name and by pattern, on these instances in turn.
pub async fn walk_all(addrs: &[SocketAddr], start: &str) {
    fill(addrs[0]).await;
    let names = |kind: &str, count: usize| {
        (0..count).map(|n| format!("topic={kind}:{n}")).collect::<Vec<_>>().join("&")
    };
    let (plain, short, keyed) =
        (names("plain", PLAIN), names("short", SHORT), names("keyed", KEYED));
    let queries = [
        format!("{plain}&{short}&{keyed}"),
        format!("{keyed}&topic=short:*"),
        "topic=**".to_owned(),
    ];
    for (number, query) in queries.iter().enumerate() {
        // Live events of earlier walks are in history too, except with a snapshot.
        if number > 0 && !start.contains("snapshot") && query.contains("**") {
            continue;
        }
        walk(addrs, query, start, 100 * (number + 1)).await;
    }
}

#[tokio::test]
async fn a_cut_replay_of_all_history_continues_without_a_gap_or_a_double() {
    let server = Server::with_config(CONFIG).await;
    walk_all(&[server.addr], "last_event_id=earliest").await;
}

#[tokio::test]
async fn a_cut_replay_of_patterns_continues_without_a_gap_or_a_double() {
    let server = Server::with_config(CONFIG).await;
    fill(server.addr).await;
    walk(&[server.addr], "topic=**", "last_event_id=earliest", 100).await;
}

#[tokio::test]
async fn a_cut_snapshot_continues_with_its_rest_and_then_everything_since() {
    let server = Server::with_config(CONFIG).await;
    walk_all(&[server.addr], "snapshot=true").await;
}
