//! The promises of a follow graph under concurrent changes of edges.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{Follow, FollowGraph, Walked, answered, counts, edge, page, user, walk};

/// Followers present during the whole test, and followers coming and going.
const STAYING: usize = 700;
const PASSING: usize = 700;

/// Random walks, each with its own changes.
const WALKS: u64 = 20;

/// Changes between two pages.
const CHANGES: usize = 60;

/// A walk returns each permanent follower once, and every other follower at most once.
pub(super) async fn walks_are_stable_while_edges_change(graph: &dyn FollowGraph) {
    // Shuffled: permanent and other followers then alternate in every store's order.
    let names: Vec<String> = (0..STAYING + PASSING).map(|number| format!("w{number:04}")).collect();
    let mut shuffled: Vec<&String> = names.iter().collect();
    shuffled.shuffle(&mut StdRng::seed_from_u64(3));
    let (staying, passing) = shuffled.split_at(STAYING);
    let edges: Vec<Follow> = staying.iter().map(|name| edge(name, "walked")).collect();
    answered(graph.follow(edges).await);
    for seed in 0..WALKS {
        one_walk(graph, staying, passing, StdRng::seed_from_u64(seed)).await;
    }
    let edges: Vec<Follow> = names.iter().map(|name| edge(name, "walked")).collect();
    answered(graph.unfollow(edges).await);
    assert_eq!(counts(graph, "walked").await, (0, 0));
}

async fn one_walk(
    graph: &dyn FollowGraph,
    staying: &[&String],
    passing: &[&String],
    mut random: StdRng,
) {
    let limit = random.random_range(1..200);
    let (mut met, mut after) = (BTreeSet::new(), None);
    loop {
        change_some(graph, passing, &mut random).await;
        let page = page(graph, Walked::Followers, "walked", after, limit).await;
        for user in page.users {
            assert!(met.insert(user.clone()), "{user} was returned twice");
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let missed = staying.iter().find(|name| !met.contains(&user(name)));
    assert_eq!(missed, None, "a walk missed a permanent follower");
    let known: BTreeSet<&str> = staying.iter().chain(passing).map(|name| name.as_str()).collect();
    assert!(met.iter().all(|user| known.contains(user.as_str())));
}

async fn change_some(graph: &dyn FollowGraph, passing: &[&String], random: &mut StdRng) {
    let count = random.random_range(0..CHANGES);
    let pick = |random: &mut StdRng| edge(passing[random.random_range(0..passing.len())], "walked");
    let edges: Vec<Follow> = (0..count).map(|_| pick(random)).collect();
    // Also runs of neighbours: a store with sets in parts then removes whole parts.
    let first = random.random_range(0..passing.len());
    let run = passing[first..].iter().take(count * 4).map(|name| edge(name, "walked")).collect();
    match random.random_range(0..4) {
        0 => answered(graph.unfollow(run).await),
        1 => answered(graph.follow(run).await),
        2 => answered(graph.unfollow(edges).await),
        _ => answered(graph.follow(edges).await),
    };
}

/// After concurrent changes, followers and followed authors have the same edges.
pub(super) async fn both_directions_agree_after_concurrent_changes(graph: &dyn FollowGraph) {
    let names = ["c0", "c1", "c2"];
    let mut random = StdRng::seed_from_u64(4);
    for _ in 0..20 {
        let changes = (0..40).map(|_| {
            let pick = |random: &mut StdRng| names[random.random_range(0..names.len())];
            let edges = vec![edge(pick(&mut random), pick(&mut random))];
            match random.random_range(0..2) {
                0 => graph.follow(edges),
                _ => graph.unfollow(edges),
            }
        });
        join_all(changes).await.into_iter().for_each(|answer| {
            answered(answer);
        });
        assert_both_directions_agree(graph, &names).await;
    }
    let all: Vec<Follow> = names.iter().flat_map(|a| names.iter().map(|b| edge(a, b))).collect();
    answered(graph.unfollow(all).await);
    assert_both_directions_agree(graph, &names).await;
}

async fn assert_both_directions_agree(graph: &dyn FollowGraph, names: &[&str]) {
    let mut directions = [BTreeSet::new(), BTreeSet::new()];
    for name in names {
        let followers = walk(graph, Walked::Followers, name, 100).await;
        let following = walk(graph, Walked::Following, name, 100).await;
        let lengths = (followers.len() as u64, following.len() as u64);
        assert_eq!(counts(graph, name).await, lengths, "{name}");
        directions[0].extend(followers.into_iter().map(|other| (other, (*name).to_owned())));
        directions[1].extend(following.into_iter().map(|other| ((*name).to_owned(), other)));
    }
    assert_eq!(directions[0], directions[1]);
}
