//! The actors: thin shells around the states of `fanfare_core`. Every message has a bound:
//!
//! | from | to | message | bound | when full |
//! |---|---|---|---|---|
//! | publisher | partition | `PublishEvents` | a permit for each event, `publish.max_pending` a partition | the publisher waits `publish.max_wait`, then the hub refuses with `at_capacity` |
//! | log elsewhere | partition | `ApplyLogUpdates` | one in flight for each link and partition | updates wait in the link, 64 MiB; then the link ends and catches up later |
//! | journal | partition | `RecordsWritten` | two in flight for each partition | records wait in the partition and keep their publish permits |
//! | log on disk | partition | `DecidePage` | one in flight for each partition | the cleaning waits |
//! | topic manager | partition | `ChangeInterest` | one in flight for each manager and partition | changes gather in the manager: streams opened and closed since |
//! | partition | long turns | `AskForTurn` | one in flight for each partition | changes wait in the partition |
//! | long turns | partition | `ContinueChanges` | one in flight for each partition | |
//! | partition | partition | `TrimHistory` | one in flight for each partition | the sender trims its own history once an eighth over the budget |
//! | instances, hub | partition | `CountSubscribers`, `ReadLastSequence`, `ReadHead` | one a request | |
//! | router | partition | `RecordFanOutMode` | one a running fan-out | |
//! | partition | topic manager | `Deliver` | one in flight for each partition and manager | deliveries gather in the partition and keep their publish permits. A replica has no permits: past 100,000 deliveries it tells the manager that it restarted, and the streams resume |
//! | topic manager | partition | `DeliveriesTaken` | one a `Deliver`, and only if more waits | |
//! | hub | topic manager | `Drain` | one | |
//! | hub | topic manager | `ChangeStreams`, `ListFeedUsers`, `ExpectFeed`, `ForgetFeed`, `RenewGrant`, `EndStreams`, `ListStreams` | 1,024 in flight | the caller waits |
//! | topic manager | topic manager | `GrantAnswered` | one in flight for each manager | answers of the application wait in the asker, one for each stream |
//! | topic manager | topic manager | `DeliverRelinked` | in place of a `Deliver` in flight | |
//! | topic manager | connection | `ChangeTopics` | two a requested change, and one for each added partition | |
//! | hub | fan-out router | `FanOutToFollowers` | one permit each, `fanout.max_pending` | the hub refuses with `at_capacity` |
//! | fan-out router | partition | `FanOutEvent` | permits for its events; one a running fan-out | the fan-out waits |
//! | connection | topic manager | `OpenStream`, `CloseStream` | one of each a stream | streams are bounded |
//! | topic manager | connection | `DeliverFrames`, `BeatHeart` | [`connection::MAILBOX_CAPACITY`] | frames stay with the manager for a later turn, 100,000 references at most; then the stream ends with `slow`. A heartbeat is skipped |
//! | topic manager | connection | `OpenedStream`, `EndStream` | one of each a stream | |
//! | topic manager | connection | `TellRenewal` | one a grant of the stream | |
//! | transport | topic manager | `ContinueReplay` | one in flight for each partition of a stream | |
//! | topic manager | connection | `ReplayPage` | one in flight for each partition of a stream; `hub.max_replays` streams | past `hub.max_replays`, a stream ends with `capacity`, and its client returns and continues |
//!
//! Two rules keep mailboxes safe:
//!
//! - A message with a bound of its own (a permit, one in flight, one per stream) passes the
//!   mailbox's bound (`do_send`). It is never lost and never waits.
//! - A `send` to a full mailbox would wait forever, since nothing wakes it. So a mailbox has room
//!   for everything in flight, and gets this room before anybody has its address.
//!
//! The thread of a publish's sender wakes the thread of its receiver by a system call. So `PublishEvents`, `Deliver` and
//! answers to workers travel by the [`courier`] of the sending thread, at the end of its turn, and `PublishEvents`,
//! `DeliveriesTaken` and answers come through one queue for each receiving thread. The bounds above count messages on
//! this way too.
//!
//! A topic manager and its connections are on one thread. So a connection has a mailbox of its own
//! kind, and the worker's [`connection::RunQueue`] holds each connection with mail once. `ListStreams` also
//! puts one question into the mailbox of each listed stream.

pub(crate) mod connection;
pub(crate) mod courier;
pub(crate) mod partition;
#[cfg(test)]
mod tests;
pub(crate) mod topic_manager;
mod turn;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a part of an actor. After a panic it logs and returns `None`. The actor's state is then
/// unreliable, and the caller must rebuild it.
#[inline]
pub(crate) fn catch<R>(actor: &'static str, work: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => Some(result),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            let panic = text.unwrap_or_else(|| "not a text".to_owned());
            tracing::error!(actor, panic, "actor panicked; rebuilding it");
            None
        }
    }
}
