//! The shell's part of a partition with its log on disk: batches to the journal, its answers, and
//! the answers to publishers.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use actix::{AsyncContext, Context, Handler, WeakAddr};
use fanfare_core::{
    error::PublishError,
    fan_out::FannedOut,
    journal::{Journal, JournalError},
    log::Reply,
    partition::{Outcome, PartitionState, Taken},
};
use tokio::sync::oneshot;

use super::{
    Partition,
    answers::AnswerSlot,
    messages::{DecidePage, RecordsWritten},
};
use crate::clock::now;

/// An accepted publish without its answer.
pub(super) enum Waiting {
    Publish(AnswerSlot),
    FanOut(oneshot::Sender<Result<FannedOut, PublishError>>),
    Mode(oneshot::Sender<Result<bool, PublishError>>),
}

/// The journal of a partition, and the publishers waiting for it, in order.
pub(super) struct JournalLink {
    journal: Arc<dyn Journal>,
    own: Option<WeakAddr<Partition>>,
    pub waiting: VecDeque<Waiting>,
}

impl JournalLink {
    #[cfg(feature = "log")]
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self { journal, own: None, waiting: VecDeque::new() }
    }

    /// Checks that the journal takes further events.
    pub fn check(&self) -> Result<(), JournalError> {
        self.journal.check()
    }
}

impl Partition {
    pub(super) fn start_journal(&mut self, ctx: &mut Context<Self>) {
        if let Some(link) = &mut self.journal {
            link.own = Some(ctx.address().downgrade());
        }
    }

    /// Applies written records, and answers their publishers. Returns whether more wait.
    pub(super) fn apply_written(&mut self) -> bool {
        if self.journal.is_none() {
            return false;
        }
        let apply = |state: &mut PartitionState<_>| state.journaled().map(|own| own.apply(now()));
        // After a panic, the rest follows in the next turn.
        let has_more = self.decide(apply).is_none_or(|applied| applied.unwrap_or_default());
        self.answer_publishers();
        has_more
    }

    /// Hands the gathered records to the journal.
    pub(super) fn send_batches(&mut self) {
        let Some(link) = &self.journal else { return };
        let Some(state) = self.state.as_mut().and_then(|state| state.journaled()) else { return };
        while let Some(records) = state.take_batch() {
            let own = link.own.clone();
            let written = Reply::new(move |result| {
                // Without a partition the hub has stopped. Two are in flight at most, so the message
                // passes the mailbox's bound.
                if let Some(own) = own.and_then(|own| own.upgrade()) {
                    own.do_send(RecordsWritten(result));
                }
            });
            link.journal.write(self.number, records, written);
        }
    }

    fn answer_publishers(&mut self) {
        let Some(state) = self.state.as_mut().and_then(|state| state.journaled()) else { return };
        for outcome in state.take_outcomes() {
            let waiting = self.journal.as_mut().and_then(|link| link.waiting.pop_front());
            match (outcome, waiting) {
                (Outcome::Published(taken), Some(Waiting::Publish(answer))) => {
                    self.answer_publish(answer, taken);
                }
                (Outcome::FannedOut(fanned_out), Some(Waiting::FanOut(answer))) => {
                    self.answer_fan_out(answer, fanned_out);
                }
                (Outcome::Mode(mode), Some(Waiting::Mode(answer))) => drop(answer.send(mode)),
                // A bug: dropped answers tell their publishers.
                _ => tracing::error!(partition = self.number, "an answer of another kind"),
            }
        }
    }

    pub(super) fn answer_publish(&self, answer: AnswerSlot, taken: Result<Taken, PublishError>) {
        answer.send(taken.map(|taken| {
            if taken.is_new {
                self.metrics.published.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(partition) = taken.trim {
                self.ask_to_trim(partition);
            }
            taken.published
        }));
    }

    pub(super) fn answer_fan_out(
        &self,
        answer: oneshot::Sender<Result<FannedOut, PublishError>>,
        fanned_out: Result<(FannedOut, Vec<u16>), PublishError>,
    ) {
        // The router may be gone: then the answer is dropped.
        let _ = answer.send(fanned_out.map(|(fanned_out, trims)| {
            self.metrics.published.fetch_add(fanned_out.new as u64, Ordering::Relaxed);
            trims.into_iter().for_each(|partition| self.ask_to_trim(partition));
            fanned_out
        }));
    }

    /// Reports the bytes still needed on disk.
    pub(super) fn report_needed_bytes(&mut self) {
        let Some(link) = &self.journal else { return };
        let needed = self.state.as_mut().and_then(|state| state.journaled()?.needed_bytes().into());
        link.journal.set_needed_bytes(self.number, needed.unwrap_or_default());
    }
}

impl Handler<RecordsWritten> for Partition {
    type Result = ();

    /// The end of the turn applies the records.
    fn handle(&mut self, message: RecordsWritten, _: &mut Self::Context) {
        self.decide(|state| state.journaled().map(|own| own.on_written(message.0)));
        // Give the journal the next batch at once: it is idle.
        self.send_batches();
    }
}

impl Handler<DecidePage> for Partition {
    type Result = ();

    fn handle(&mut self, message: DecidePage, _: &mut Self::Context) {
        let DecidePage { records, is_repeated, keep } = message;
        let kept = self.decide(|state| state.journaled()?.keep_of(records, is_repeated, now()));
        // Before any later batch. Dropped without an answer, the page comes again.
        if let Some(kept) = kept.flatten() {
            keep.send(kept);
        }
    }
}
