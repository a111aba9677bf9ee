//! Random grants and snapshots: a stream gets the current values of its granted topics, and never
//! those of another one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Case, add, check_refusal, data, forged,
    oracle::{Random, SEGMENTS, chosen, is_granted, universe},
    publish, publish_all, random, read_all, renew, start,
};
use crate::{
    Server,
    support::{Stream, heavy},
};

const POLICIES: &str = "[[topics]]\npattern = \"keyed:**\"\nconflate = \"latest-by-key\"\n\
                        [[topics]]\npattern = \"latest:**\"\nconflate = \"latest\"\n";

/// Publishes a value of another key to every topic of the case.
async fn publish_other_key(server: &Server, operator: &str, case: &Case) {
    let events = universe(&SEGMENTS, 3).into_iter().map(|topic| {
        let name = format!("{}{topic}", case.prefix);
        json!({"topic": name, "key": "y", "data": format!("0 {topic}")})
    });
    publish(server, operator, Value::from_iter(events)).await;
}

/// Reads a snapshot, up to `live`: exactly the wanted values come.
async fn read_snapshot(stream: &mut Stream, wanted: &BTreeSet<String>) {
    let mut seen = BTreeSet::new();
    let mut take = |data: String| {
        assert!(wanted.contains(&data), "{data:?} is not among {wanted:?}");
        assert!(seen.insert(data.clone()), "{data:?} came twice");
    };
    loop {
        let event = stream.next().await;
        match event.event.as_str() {
            "live" => break,
            "batch" => {
                for item in event.json().as_array().expect("items") {
                    take(item["data"].as_str().expect("a text").to_owned());
                }
            }
            _ => take(event.data),
        }
    }
    assert_eq!(&seen, wanted);
}

async fn check(server: &Server, operator: &str, case: &Case, random: &mut Random, rounds: &[u32]) {
    let forged = forged(server, operator).await;
    publish_other_key(server, operator, case).await;
    publish_all(server, operator, case, 1).await;
    let asked = random.patterns(4);
    let granted = check_refusal(server, case, &asked, "&snapshot=true").await;
    let query = format!("{}&snapshot=true", case.query(&granted));
    let topics = chosen(&granted);
    let current = data(&topics, rounds);
    let mut live = case.open(server, &query).await;
    let mut renewed = case.open(server, &query).await;
    let mut resumed = case.open(server, &format!("{query}&last_event_id={forged}")).await;
    let mut earliest = case.open(server, &format!("{query}&last_event_id=earliest")).await;
    let mut batched = case.open(server, &format!("{query}&batch=json")).await;
    for stream in [&mut live, &mut renewed, &mut resumed, &mut earliest, &mut batched] {
        read_snapshot(stream, &current).await;
    }

    let added = random.pattern();
    let may_add = is_granted(&case.grant, &added);
    let status = add(server, &live, &case.token, &format!("{}{added}", case.prefix)).await;
    assert_eq!(status, if may_add { 200 } else { 403 }, "{added} within {:?}", case.grant);
    let changed: BTreeSet<String> =
        granted.iter().cloned().chain(may_add.then_some(added)).collect();
    let (kept, lost): (BTreeSet<_>, BTreeSet<_>) =
        granted.iter().cloned().partition(|one| is_granted(&case.lesser, one));
    let removed = renew(server, &renewed, &case.token, &case.lesser_token).await;
    assert_eq!(removed, case.names(&lost), "{granted:?} within {:?}", case.lesser);

    publish_all(server, operator, case, 2).await;
    for (stream, wanted) in [
        (&mut live, chosen(&changed)),
        (&mut renewed, chosen(&kept)),
        (&mut resumed, topics.clone()),
        (&mut earliest, topics),
    ] {
        read_all(server, operator, &case.marker, stream, &data(&wanted, &[2])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_has_all_granted_values_and_no_other() {
    let _heavy = heavy().await;
    let (server, mut random) = (start(POLICIES).await, random());
    // The rounds with a current value: of both keys, or of the last event.
    for (root, rounds) in [("keyed", &[0, 1][..]), ("latest", &[1])] {
        let (cases, operator) = Case::all(&mut random, root);
        for case in cases.iter().take(10) {
            check(&server, &operator, case, &mut random, rounds).await;
        }
    }
}
