//! The tables over a real log: restart, and cleaning.

use std::{path::Path, sync::Arc, time::Duration};

use fanfare_core::{
    access::{Revocation, RevocationStore, Revoked},
    follow::{Follow, FollowGraph, Preferences},
    user::User,
};
use fanfare_log::{Lane, Options, SyncMode, open};

use super::{RecoveredTables, TableLog};
use crate::{follow::memory::MemoryFollows, revocations::Revocations};

struct Running {
    log: Arc<TableLog>,
    follows: Arc<MemoryFollows>,
    revocations: Arc<Revocations>,
}

fn start(directory: &Path) -> Running {
    let options = Options {
        partition_count: 1,
        new_epoch: 1,
        new_salt: 2,
        sync: SyncMode::Never,
        segment_bytes: 4096,
        max_queue_bytes: 1 << 20,
        observer: None,
    };
    let mut recovered = RecoveredTables::default();
    let opened = open(directory, options, |record| {
        assert_eq!(record.lane, Lane::TABLES);
        recovered.on_record(record.kind, record.payload);
    });
    let opened = opened.unwrap();
    let last = opened.last_sequences.get(&Lane::TABLES).copied().unwrap_or(0);
    let revocations = Arc::new(Revocations::new(Duration::from_secs(3600), 1000));
    for one in &recovered.revocations {
        revocations.add(one.clone()).unwrap();
    }
    let store = opened.store.clone();
    let (log, tables) = TableLog::new(opened.store, last, recovered, revocations.clone());
    let follows = Arc::new(MemoryFollows::start(tables, Some(log.clone())));
    store.start_cleaning(log.page_handler(&follows)).unwrap();
    Running { log, follows, revocations }
}

fn user(name: &str) -> User {
    User::parse(name).unwrap()
}

fn edge(follower: usize) -> Follow {
    Follow::parse(&format!("follower{follower}"), "author").unwrap()
}

fn of_token(id: &str) -> Revocation {
    Revocation { revoked: Revoked::TokenId(id.into()), at_ms: 1 }
}

#[actix_web::test]
async fn followers_mutes_and_revocations_survive_a_restart_and_cleaning() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path());
    let Running { log, follows, revocations } = &running;
    follows.follow((0..100).map(edge).collect()).await.unwrap();
    follows.set_muted(user("follower1"), vec!["view".into(), "like".into()]).await.unwrap();
    let revocation = of_token("kept");
    RevocationStore::keep(&**log, revocation.clone(), 0).await.unwrap();
    revocations.add(revocation).unwrap();
    RevocationStore::keep(&**log, of_token("never in force"), 0).await.unwrap();
    // Changes undone again: all but the lasting ones are cleaned.
    while log.store.figures().cleaned_count < 20 {
        follows.follow((100..200).map(edge).collect()).await.unwrap();
        follows.unfollow((50..200).map(edge).collect()).await.unwrap();
        follows.follow((50..100).map(edge).collect()).await.unwrap();
    }
    let figures = log.store.figures();
    assert!(figures.copied_bytes > 0, "{figures:?}");
    drop(running);

    // The store of the dropped actor holds the log until its thread has seen it.
    let running = loop {
        tokio::task::yield_now().await;
        if is_free(directory.path()) {
            break start(directory.path());
        }
    };
    let Running { log, follows, revocations } = &running;
    assert_eq!(follows.counts(user("author")).await.unwrap().followers, 100);
    assert_eq!(follows.counts(user("follower150")).await.unwrap().following, 0);
    assert_eq!(follows.muted(user("follower1")).await.unwrap(), ["like", "view"]);
    assert!(revocations.holds(&of_token("kept")));
    assert!(!revocations.holds(&of_token("never in force")), "cleaned");
    let recovered = log.since(0).await.unwrap();
    assert_eq!(recovered, [of_token("kept")]);
    assert_eq!(log.since(0).await.unwrap(), []);
}

fn is_free(directory: &Path) -> bool {
    let file = std::fs::File::open(directory.join("LOCK")).unwrap();
    file.try_lock().is_ok()
}
