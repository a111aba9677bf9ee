//! The actors: thin shells around states that decide.
//!
//! | from | to | message | bound | when full |
//! |---|---|---|---|---|
//! | hub | partition | `PublishEvents` | a place for each event, `publish.max_pending` a partition | the publisher waits `publish.max_wait`, then is refused with `at_capacity` |
//! | partition | bridge to Redis | see `bridge::redis` | | |
//! | bridge to Redis | partition | `TakeNews` | one unanswered a link and partition | pushes wait in the link, 64 MiB; then it ends and catches up later |
//! | topic manager | partition | `ChangeInterest` | one unanswered a manager and partition | changes gather in the manager: what streams came and went since |
//! | partition | partition | `TrimHistory` | one unanswered a partition | the sender trims its own history once an eighth over the budget |
//! | hub | partition | `AskTopic` | one a request | |
//! | partition | topic manager | `Deliver` | one not taken a partition and manager | deliveries gather in the partition; they keep their publishers' places. With Redis they have none: past 100,000 the manager is told that the partition restarted, and its streams resume |
//! | topic manager | partition | `DeliveriesTaken` | one a `Deliver`, and only where more waits | |
//! | hub | topic manager | `Drain` | one | |
//! | hub | topic manager | `ChangeStreams`, `ListFeedUsers`, `ExpectFeed`, `ForgetFeed` | 1,024 asked at once | whoever asks waits |
//! | topic manager | connection | `ChangeTopics` | one a change that was asked for, and one for each partition that it adds | |
//! | hub | fan-out router | `FanOutToFollowers` | one place each, `fanout.max_pending` | refused with `at_capacity` |
//! | fan-out router | partition | `FanOutEvent` | places for its events, as publishes have; one a running fan-out | the fan-out waits |
//! | hub | partition | `SettleFanOut` | one a running fan-out | |
//! | connection | topic manager | `OpenStream`, `CloseStream` | one of each a stream | streams are bounded |
//! | topic manager | connection | `DeliverFrames`, `BeatHeart` | [`connection::MAILBOX_CAPACITY`] | frames stay with the manager for a later turn, 100,000 references at most; then the stream ends with `slow`. A heartbeat is left out |
//! | topic manager | connection | `OpenedStream`, `EndStream` | one of each a stream | |
//! | transport | connection | `CloseTransport` | as the manager's | the mailbox is not empty, so the actor runs and sees that its transport is gone. A raw stream holds its connection, and drops it instead |
//!
//! Where a message is bounded by something else than its mailbox it is sent past the
//! mailbox's bound (`do_send`). A `send` to a full mailbox would wait for ever, as nothing
//! wakes it: so mailboxes that are sent to have room for all that can be on its way, and get
//! that room before anybody has their address.

pub(crate) mod connection;
pub(crate) mod partition;
#[cfg(test)]
mod tests;
pub(crate) mod topic_manager;
mod turn;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::time::Instant;

/// Tokio's clock, so that tests can pause it.
pub(crate) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Runs a piece of an actor that may panic; a panic is logged and gives `None`. What the
/// piece was changing is then not to be trusted: the caller rebuilds it.
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
