//! The promises of [`FollowGraph`] and [`Preferences`] as tests. fanfare's own stores pass them.
//! Call them in a test of your store:
//!
//! ```no_run
//! # use fanfare::follow::{FollowGraph, contract};
//! # async fn test(my_graph: impl FollowGraph) {
//! contract::graph(&my_graph).await;
//! # }
//! ```
//!
//! The tests need an empty store, and leave it empty. They panic on a broken promise.

mod changing;

use std::collections::BTreeSet;

use fanfare_core::{
    follow::{Counts, Follow, FollowGraph, GraphError, Page, Preferences},
    user::User,
};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

/// Followers of one author, in the tests of large sets.
const MANY: usize = 10_000;

/// Names likely to break a store: quotes, wildcards, braces, other alphabets, prefixes of each
/// other.
const ODD_NAMES: [&str; 14] =
    ["{a}", "a{b}c", "'", "\"", "%", "_", "\\", "a:b", "a", "ab", "A", "élan", "用户", "🎺🎺"];

/// Tests every promise of a graph, one after the other.
///
/// # Panics
/// On a broken promise, or on an error of the store.
pub async fn graph(graph: &dyn FollowGraph) {
    edges_are_there_once(graph).await;
    odd_names_are_names(graph).await;
    pages_hold_everybody_once(graph).await;
    large_sets_grow_and_shrink(graph).await;
    changing::walks_are_stable_while_edges_change(graph).await;
    changing::both_directions_agree_after_concurrent_changes(graph).await;
}

/// Tests every promise of preferences, one after the other.
///
/// # Panics
/// On a broken promise, or on an error of the store.
pub async fn preferences(preferences: &dyn Preferences) {
    muted_kinds_are_replaced(preferences).await;
    who_mutes_answers_in_order(preferences).await;
}

fn user(name: &str) -> User {
    User::parse(name).unwrap_or_else(|error| panic!("{name:?}: {error}"))
}

fn edge(follower: &str, author: &str) -> Follow {
    Follow { follower: user(follower), author: user(author) }
}

/// Unwraps an answer of the store.
#[track_caller]
fn answered<T>(answer: Result<T, GraphError>) -> T {
    answer.unwrap_or_else(|error| panic!("error of the store: {error}"))
}

async fn counts(graph: &dyn FollowGraph, name: &str) -> (u64, u64) {
    let Counts { followers, following } = answered(graph.counts(user(name)).await);
    (followers, following)
}

/// One of a user's two sets.
#[derive(Debug, Clone, Copy)]
enum Walked {
    Followers,
    Following,
}

async fn page(
    graph: &dyn FollowGraph,
    walked: Walked,
    name: &str,
    after: Option<String>,
    limit: usize,
) -> Page {
    let page = match walked {
        Walked::Followers => graph.followers(user(name), after, limit).await,
        Walked::Following => graph.following(user(name), after, limit).await,
    };
    let page = answered(page);
    assert!(page.users.len() <= limit, "{} users in a page of {limit}", page.users.len());
    page
}

/// Walks to the end. Returns all names, sorted.
async fn walk(graph: &dyn FollowGraph, walked: Walked, name: &str, limit: usize) -> Vec<String> {
    let (mut met, mut after) = (Vec::new(), None);
    loop {
        let page = page(graph, walked, name, after, limit).await;
        met.extend(page.users.iter().map(|user| user.as_str().to_owned()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    met.sort_unstable();
    assert!(met.windows(2).all(|pair| pair[0] != pair[1]), "a user was returned twice: {met:?}");
    met
}

async fn followers(graph: &dyn FollowGraph, author: &str) -> Vec<String> {
    walk(graph, Walked::Followers, author, 100).await
}

async fn following(graph: &dyn FollowGraph, user: &str) -> Vec<String> {
    walk(graph, Walked::Following, user, 100).await
}

async fn edges_are_there_once(graph: &dyn FollowGraph) {
    assert_eq!(answered(graph.follow(Vec::new()).await), 0);
    let edges = vec![edge("ann", "bob"), edge("cid", "bob"), edge("ann", "bob")];
    assert_eq!(answered(graph.follow(edges).await), 2, "a repeated edge in one call counts once");
    assert_eq!(answered(graph.follow(vec![edge("ann", "bob"), edge("bob", "ann")]).await), 1);
    assert_eq!(followers(graph, "bob").await, ["ann", "cid"]);
    assert_eq!(following(graph, "ann").await, ["bob"]);
    assert_eq!(following(graph, "cid").await, ["bob"]);
    assert_eq!(counts(graph, "bob").await, (2, 1));
    let edges = vec![edge("ann", "bob"), edge("ann", "bob"), edge("bob", "cid")];
    assert_eq!(answered(graph.unfollow(edges).await), 1);
    assert_eq!(followers(graph, "bob").await, ["cid"]);
    assert_eq!(following(graph, "ann").await, [""; 0]);
    assert_eq!(counts(graph, "ann").await, (1, 0));
    assert_eq!(answered(graph.unfollow(vec![edge("cid", "bob"), edge("bob", "ann")]).await), 2);
    for name in ["ann", "bob", "cid", "never-heard-of"] {
        assert_eq!(counts(graph, name).await, (0, 0), "{name}");
        assert_eq!(page(graph, Walked::Followers, name, None, 1).await, Page::default());
    }
}

async fn odd_names_are_names(graph: &dyn FollowGraph) {
    let longest = "é".repeat(super::MAX_USER_BYTES / 2);
    let mut names: Vec<&str> = ODD_NAMES.to_vec();
    names.push(&longest);
    names.sort_unstable();
    let edges = |author: &str| names.iter().map(|name| edge(name, author)).collect::<Vec<_>>();
    for author in &names {
        assert_eq!(answered(graph.follow(edges(author)).await), names.len() as u64);
    }
    for name in &names {
        assert_eq!(followers(graph, name).await, names, "followers of {name:?}");
        assert_eq!(walk(graph, Walked::Following, name, 1).await, names, "followed by {name:?}");
    }
    for author in &names {
        assert_eq!(answered(graph.unfollow(edges(author)).await), names.len() as u64);
        assert_eq!(counts(graph, author).await.0, 0);
    }
}

async fn pages_hold_everybody_once(graph: &dyn FollowGraph) {
    let names: Vec<String> = (0..12).map(|number| format!("p{number:02}")).collect();
    let edges: Vec<Follow> = names.iter().map(|name| edge(name, "paged")).collect();
    answered(graph.follow(edges.clone()).await);
    for limit in [1, 3, 5, 11, 12, 13, 1000] {
        assert_eq!(walk(graph, Walked::Followers, "paged", limit).await, names, "by {limit}");
    }
    let last = page(graph, Walked::Followers, "paged", None, 12).await;
    assert_eq!(last.next, None, "a page with all followers is the last");
    for nowhere in ["no such place", "\0", ""] {
        let answer = graph.followers(user("paged"), Some(nowhere.to_owned()), 1).await;
        assert!(matches!(answer, Err(GraphError::BadPage)), "{nowhere:?}: {answer:?}");
    }
    answered(graph.unfollow(edges).await);
}

async fn large_sets_grow_and_shrink(graph: &dyn FollowGraph) {
    let mut random = StdRng::seed_from_u64(1);
    let mut names: Vec<String> = (0..MANY).map(|number| format!("m{number}")).collect();
    let edges = |names: &[String]| names.iter().map(|name| edge(name, "many")).collect::<Vec<_>>();
    let sorted = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    names.shuffle(&mut random);
    for part in names.chunks(1000) {
        assert_eq!(answered(graph.follow(edges(part)).await), part.len() as u64);
    }
    assert_eq!(counts(graph, "many").await.0, MANY as u64);
    assert_eq!(sorted(&walk(graph, Walked::Followers, "many", 1000).await), sorted(&names));
    assert_eq!(answered(graph.follow(edges(&names[..500])).await), 0);

    names.shuffle(&mut random);
    let (kept, removed) = names.split_at(MANY / 100);
    for part in removed.chunks(1000) {
        assert_eq!(answered(graph.unfollow(edges(part)).await), part.len() as u64);
    }
    assert_eq!(counts(graph, "many").await.0, kept.len() as u64);
    assert_eq!(sorted(&walk(graph, Walked::Followers, "many", 7).await), sorted(kept));

    // In order, like an import.
    names.sort_unstable();
    answered(graph.follow(edges(&names)).await);
    assert_eq!(sorted(&walk(graph, Walked::Followers, "many", 999).await), sorted(&names));
    assert_eq!(answered(graph.unfollow(edges(&names)).await), MANY as u64);
    assert_eq!(counts(graph, "many").await.0, 0);
    assert_eq!(counts(graph, &names[0]).await, (0, 0));
}

async fn muted_kinds_are_replaced(preferences: &dyn Preferences) {
    let muted = async || answered(preferences.muted(user("ann")).await);
    assert_eq!(muted().await, [""; 0]);
    for kinds in [&["like"][..], &["a kind", "{b}:*", "用户"], &["a kind", "zoo"], &[]] {
        // Out of order and repeated.
        let wanted: Vec<String> = kinds.iter().rev().chain(kinds).map(|&k| k.to_owned()).collect();
        answered(preferences.set_muted(user("ann"), wanted).await);
        assert_eq!(muted().await, kinds);
        for kind in ["like", "a kind", "{b}:*", "用户", "zoo", "other"] {
            let users = vec![user("ann"), user("bob")];
            let answer = answered(preferences.who_mutes(kind.to_owned(), users).await);
            assert_eq!(answer, [kinds.contains(&kind), false], "{kind}");
        }
    }
}

async fn who_mutes_answers_in_order(preferences: &dyn Preferences) {
    let mut names: Vec<String> = (0..2000).map(|number| format!("u{number}")).collect();
    names.extend(ODD_NAMES.map(str::to_owned));
    names.shuffle(&mut StdRng::seed_from_u64(2));
    let muting: BTreeSet<&String> = names.iter().step_by(7).collect();
    for name in &muting {
        answered(preferences.set_muted(user(name), vec!["like".to_owned()]).await);
    }
    let users: Vec<User> = names.iter().chain(&names[..3]).map(|name| user(name)).collect();
    let answer = answered(preferences.who_mutes("like".to_owned(), users.clone()).await);
    let expected: Vec<bool> =
        users.iter().map(|user| muting.iter().any(|name| *name == user.as_str())).collect();
    assert_eq!(answer, expected);
    assert_eq!(answered(preferences.who_mutes("like".to_owned(), Vec::new()).await), [false; 0]);
    for name in &muting {
        answered(preferences.set_muted(user(name), Vec::new()).await);
    }
    let answer = answered(preferences.who_mutes("like".to_owned(), users).await);
    assert!(!answer.contains(&true));
}
