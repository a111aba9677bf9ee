//! Tests of the store: the promises of every store, and the keeping of changes.

use std::sync::Arc;

use fanfare_core::{
    follow::{Follow, FollowGraph, GraphError, Preferences},
    user::User,
};
use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{KeepChanges, MemoryFollows, TableChange, Tables};
use crate::follow::contract;

type Kept = oneshot::Sender<Result<(), GraphError>>;

/// Keeps changes when the test says so.
#[derive(Default)]
struct Disk {
    waiting: Mutex<Vec<(Vec<TableChange>, Kept)>>,
}

impl KeepChanges for Disk {
    fn set_needed_bytes(&self, _: u64) {}

    fn keep(&self, changes: &[TableChange]) -> BoxFuture<'static, Result<(), GraphError>> {
        let (kept, answer) = oneshot::channel();
        self.waiting.lock().push((changes.to_vec(), kept));
        async move { answer.await.expect("the test answers") }.boxed()
    }
}

impl Disk {
    /// Waits for a change and answers it.
    async fn answer(&self, result: Result<(), GraphError>) -> Vec<TableChange> {
        loop {
            if let Some((changes, kept)) = self.waiting.lock().pop() {
                kept.send(result).expect("the store waits");
                return changes;
            }
            tokio::task::yield_now().await;
        }
    }
}

fn edge(follower: &str) -> Follow {
    Follow::parse(follower, "author").unwrap()
}

#[actix_web::test]
async fn the_graph_in_memory_keeps_every_promise() {
    contract::graph(&MemoryFollows::start(Tables::default(), None)).await;
}

#[actix_web::test]
async fn the_preferences_in_memory_keep_every_promise() {
    contract::preferences(&MemoryFollows::start(Tables::default(), None)).await;
}

#[actix_web::test]
async fn a_change_is_made_after_it_is_kept_and_not_at_all_if_the_disk_is_full() {
    let disk = Arc::new(Disk::default());
    let follows = MemoryFollows::start(Tables::default(), Some(disk.clone()));
    let author = User::parse("author").unwrap();
    let (count, refused) =
        tokio::join!(follows.follow(vec![edge("a")]), disk.answer(Err(GraphError::LogFull)));
    assert!(matches!(count, Err(GraphError::LogFull)));
    assert_eq!(refused, [TableChange::Follow(edge("a"))]);
    assert_eq!(follows.counts(author.clone()).await.unwrap().followers, 0);
    let (count, _) = tokio::join!(follows.follow(vec![edge("a")]), disk.answer(Ok(())));
    assert_eq!(count.unwrap(), 1);
    // A change without effect needs no disk.
    assert_eq!(follows.follow(vec![edge("a")]).await.unwrap(), 0);
    let muted = follows.set_muted(author.clone(), vec!["like".into()]);
    let (muted, _) = tokio::join!(muted, disk.answer(Ok(())));
    muted.unwrap();
    assert_eq!(follows.muted(author).await.unwrap(), ["like"]);
}

#[actix_web::test]
async fn needed_changes_are_told_after_changes_in_flight() {
    let disk = Arc::new(Disk::default());
    let follows = MemoryFollows::start(Tables::default(), Some(disk.clone()));
    let both = follows.follow(vec![edge("a"), edge("b")]);
    tokio::join!(both, disk.answer(Ok(()))).0.unwrap();
    let unfollow = follows.unfollow(vec![edge("a")]);
    let (told, needed) = oneshot::channel();
    let ask = async {
        while disk.waiting.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let asked = vec![TableChange::Follow(edge("a")), TableChange::Follow(edge("b"))];
        let answer = move |needed| told.send(needed).expect("the test waits");
        follows.ask_needed(asked, Box::new(answer));
        // The store answers this call after the question.
        follows.counts(User::parse("b").unwrap()).await.unwrap();
        disk.answer(Ok(())).await
    };
    tokio::join!(unfollow, ask).0.unwrap();
    assert_eq!(needed.await.unwrap(), [false, true]);
}
