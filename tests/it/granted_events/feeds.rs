//! Random follow graphs and grants: a feed gets its user's notifications, all posts of followed
//! authors and the topics added within its grant, and never another event.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    add, data, forged, open, operator,
    oracle::{Random, SEGMENTS, chosen, is_granted, universe},
    order, poll, publish, random, read_all, renew, send, start,
};
use crate::{
    Server,
    support::{
        heavy,
        tokens::{Library, mint},
    },
};

const CASES: usize = 15;

/// One user with a random grant, and the rights after a renewal.
#[derive(Debug)]
struct Case {
    number: usize,
    grant: BTreeSet<String>,
    lesser: BTreeSet<String>,
    token: String,
    lesser_token: String,
}

impl Case {
    /// Random cases, the operator's token, and one of a stranger with the right to subscribe to
    /// everything.
    fn all(random: &mut Random) -> (Vec<Self>, [String; 2]) {
        let drawn: Vec<_> = (0..CASES).map(|_| (random.patterns(4), random.patterns(3))).collect();
        let mut orders = vec![operator(), order("stranger", json!({"subscribe": ["**"]}))];
        for (number, (grant, lesser)) in drawn.iter().enumerate() {
            for patterns in [grant, lesser] {
                let rights = json!({"subscribe": spelt_all(number, patterns)});
                orders.push(order(&format!("u{number}"), rights));
            }
        }
        let mut tokens = mint(Library::PyJwt, &orders).into_iter();
        let mut next = || tokens.next().expect("one for each order");
        let others = [next(), next()];
        let cases = drawn.into_iter().enumerate().map(|(number, (grant, lesser))| {
            let (token, lesser_token) = (next(), next());
            Self { number, grant, lesser, token, lesser_token }
        });
        (cases.collect(), others)
    }

    fn own(&self) -> String {
        format!("notifications:u{}", self.number)
    }

    fn path(&self, query: &str) -> String {
        format!("/events/feed?user=u{}{query}", self.number)
    }

    async fn open(&self, server: &Server, query: &str) -> crate::support::Stream {
        open(server, &self.path(query), &self.token).await
    }

    /// Follows or unfollows an author, by the user.
    async fn follow(&self, server: &Server, method: &str, author: &str) {
        let path = format!("/events/follows/u{}/{}{author}", self.number, self.number);
        let answer = send(server, method, &path, &self.token, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Publishes an event to every topic of the case.
    async fn publish_all(&self, server: &Server, operator: &str, round: u32) {
        let event =
            |name: String, topic: &str| json!({"topic": name, "data": format!("{round} {topic}")});
        let all = universe(&SEGMENTS, 3);
        let events = all.iter().map(|topic| event(spelt(self.number, topic), topic));
        let events = events.chain([event(self.own(), "own")]);
        publish(server, operator, Value::from_iter(events)).await;
    }

    /// The topics of a feed, as in the oracle.
    fn feed(followed: &BTreeSet<&str>, added: &BTreeSet<String>) -> BTreeSet<String> {
        let posts = followed.iter().map(|author| post_of(author));
        posts.chain(chosen(added)).chain(["own".to_owned()]).collect()
    }
}

/// A topic or pattern of the oracle as spelt by a case: the first segment `b` has the posts of the
/// case's authors, `c` the notifications of other users.
fn spelt(number: usize, name: &str) -> String {
    let segment = |(place, segment): (usize, &str)| match (place, segment) {
        (_, "*" | "**") => segment.to_owned(),
        (0, "a") => "t".to_owned(),
        (0, "b") => "posts".to_owned(),
        (0, _) => "notifications".to_owned(),
        _ => format!("{number}{segment}"),
    };
    name.split(':').enumerate().map(segment).collect::<Vec<_>>().join(":")
}

fn spelt_all(number: usize, names: &BTreeSet<String>) -> Vec<String> {
    let mut all: Vec<String> = names.iter().map(|name| spelt(number, name)).collect();
    all.sort_unstable();
    all
}

/// The oracle's topic of an author's posts.
fn post_of(author: &str) -> String {
    format!("b:{author}")
}

async fn check(
    server: &Server,
    [operator, stranger]: &[String; 2],
    case: &Case,
    random: &mut Random,
) {
    let mut followed: BTreeSet<&str> =
        SEGMENTS.into_iter().filter(|_| random.below(2) == 0).collect();
    for author in &followed {
        case.follow(server, "PUT", author).await;
    }
    let forged = forged(server, operator).await;
    case.publish_all(server, operator, 1).await;

    // A feed is for its user only, with any grant.
    for path in [case.path("&last_event_id=earliest"), case.path("").replace("feed", "feed/poll")] {
        for token in [stranger, operator] {
            assert_eq!(send(server, "GET", &path, token, "").await.status, 403);
        }
    }
    let mut live = case.open(server, "").await;
    let mut resumed = case.open(server, &format!("&last_event_id={forged}")).await;
    let mut earliest = case.open(server, "&last_event_id=earliest").await;
    let mut renewed = case.open(server, "").await;
    for pattern in &case.grant {
        let name = spelt(case.number, pattern);
        assert_eq!(add(server, &renewed, &case.token, &name).await, 200, "{name}");
    }

    // The graph changes while the feeds are open.
    let before = followed.clone();
    let changed = SEGMENTS[random.below(3)];
    let is_new = followed.insert(changed);
    if !is_new {
        followed.remove(changed);
    }
    case.follow(server, if is_new { "PUT" } else { "DELETE" }, changed).await;

    // A change keeps within the grant of the stream.
    let added = random.pattern();
    let may_add = is_granted(&case.grant, &added);
    let status = add(server, &live, &case.token, &spelt(case.number, &added)).await;
    assert_eq!(status, if may_add { 200 } else { 403 }, "{added} within {:?}", case.grant);
    let added: BTreeSet<String> = may_add.then_some(added).into_iter().collect();

    // A renewal to less removes added topics only: the graph decides about posts of its authors.
    let by_graph = |name: &String| before.union(&followed).any(|author| post_of(author) == *name);
    let named = case.grant.iter().filter(|name| !by_graph(name)).cloned();
    let (kept, lost): (BTreeSet<_>, BTreeSet<_>) =
        named.partition(|name| is_granted(&case.lesser, name));
    let removed = renew(server, &renewed, &case.token, &case.lesser_token).await;
    assert_eq!(removed, spelt_all(case.number, &lost), "{:?} to {:?}", case.grant, case.lesser);

    println!("{case:?}: {before:?} to {followed:?}, {added:?}");
    case.publish_all(server, operator, 2).await;
    let none = BTreeSet::new();
    let feed = |added| data(&Case::feed(&followed, added), &[2]);
    let early = data(&Case::feed(&before, &none), &[1]);
    let whole: BTreeSet<String> = early.into_iter().chain(feed(&none)).collect();
    let polled = data(&Case::feed(&followed, &none), &[1, 2]);
    let path = case.path("").replace("feed", "feed/poll");
    poll(server, &path, &case.token, &forged, &polled).await;
    for (stream, wanted) in [
        (&mut live, feed(&added)),
        (&mut renewed, feed(&kept)),
        (&mut resumed, whole.clone()),
        (&mut earliest, whole),
    ] {
        read_all(server, operator, &case.own(), stream, &wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_gets_all_events_of_its_user_and_no_other() {
    let _heavy = heavy().await;
    let (server, mut random) = (start("").await, random());
    let (cases, others) = Case::all(&mut random);
    for case in &cases {
        check(&server, &others, case, &mut random).await;
    }
}
