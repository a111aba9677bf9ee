//! Questions to the application about open streams: at the end of its earlier answer, and again
//! while it gives none.
//!
//! Not here: asking. The shell asks, and brings the answer.

use std::{
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::Grant,
    sse::ShutdownReason,
    subscription::ResolvedSubscription,
    topic_manager::{
        ManagerState, Renewal, Ticket,
        frame::Frames,
        streams::{Outlet, SlotRef},
    },
};

/// Least time between two questions about one stream: an answer can have a life of 0 ms.
const MIN_PAUSE: Duration = Duration::from_millis(250);

/// Names in a question. The application decides by the caller; the hub checks every topic.
const MAX_NAMES: usize = 1000;

/// A question about one stream.
#[derive(Debug)]
pub struct Question {
    pub reference: SlotRef,
    pub grant: Arc<Grant>,
    /// Shared with the stream: a waiting question copies none of its names.
    subscription: Arc<ResolvedSubscription>,
}

impl Question {
    /// The first topics and patterns of the stream.
    pub fn names(&self) -> Vec<String> {
        self.subscription.names().take(MAX_NAMES).map(str::to_owned).collect()
    }
}

/// The outcome of a question.
#[derive(Debug)]
pub enum Answered {
    Granted(Arc<Grant>),
    Refused,
    /// No answer. The next question is due at `retry_at`.
    Unavailable {
        retry_at: Instant,
    },
}

/// The question about a stream with an ended grant.
#[derive(Debug, Default)]
pub struct Asking {
    state: AskingState,
    last_at: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum AskingState {
    #[default]
    None,
    InFlight,
    /// The application gave no answer.
    Unanswered,
}

impl Asking {
    /// The moment of the next question, at the earliest.
    pub fn earliest(&self, end: Instant) -> Instant {
        self.last_at.map_or(end, |last| end.max(last + MIN_PAUSE))
    }

    /// The grant was replaced: an answer in flight counts no more.
    pub fn end(&mut self) {
        self.state = AskingState::None;
    }

    fn may_begin(&self, is_in_grace: bool) -> bool {
        match self.state {
            AskingState::None => true,
            AskingState::InFlight => false,
            AskingState::Unanswered => is_in_grace,
        }
    }
}

impl<O: Outlet> ManagerState<O> {
    /// Asks the application again, or ends the stream.
    pub(super) fn on_grant_ended(&mut self, reference: SlotRef, end: Instant, now: Instant) {
        let last = end + self.spec.ask_grace;
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let Some(held) = &mut slot.grant else { return };
        if held.grant.asked().is_none() || !held.asking.may_begin(now < last) {
            return slot.outlet.end(ShutdownReason::Token, None, Frames::new());
        }
        held.asking = Asking { state: AskingState::InFlight, last_at: Some(now) };
        // Without an answer until then, the stream ends.
        let cutoff = last.max(now + self.spec.ask_timeout);
        held.due = Some(cutoff);
        self.grants.schedule(cutoff, (reference, cutoff));
        let (grant, subscription) = (held.grant.clone(), slot.subscription.clone());
        self.questions.push(Question { reference, grant, subscription });
    }

    /// Takes the questions to send. Each needs [`Self::on_answered`].
    pub fn take_questions(&mut self) -> Vec<Question> {
        take(&mut self.questions)
    }

    /// Continues a stream with the application's answer. `ticket` is for the removal of topics not
    /// granted any more.
    pub fn on_answered(
        &mut self,
        ticket: Ticket,
        reference: SlotRef,
        answered: &Answered,
        now: Instant,
    ) {
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let Some(held) = &mut slot.grant else { return };
        if held.asking.state != AskingState::InFlight {
            // The client has renewed the grant meanwhile.
            return;
        }
        match answered {
            Answered::Granted(grant) => {
                if self.renew(ticket, reference, grant, now) == Renewal::Forbidden {
                    // The session is another user's.
                    self.end_by_token(reference);
                }
            }
            Answered::Refused => self.end_by_token(reference),
            Answered::Unavailable { retry_at } => {
                held.asking.state = AskingState::Unanswered;
                let last = held.grant.ends_at().map_or(now, |end| end + self.spec.ask_grace);
                let due = (*retry_at).min(last);
                held.due = Some(due);
                self.grants.schedule(due, (reference, due));
            }
        }
    }

    fn end_by_token(&mut self, reference: SlotRef) {
        if let Some(slot) = self.streams.get(reference) {
            slot.outlet.end(ShutdownReason::Token, None, Frames::new());
        }
    }
}
