//! Asking the application again about streams with an ended grant. A herd of questions waits its
//! turn: at most [`MAX_ASKING`] of a worker are in flight. Streams of one credential share a
//! question, by the part of the hub behind [`AskAgain`].

use std::{sync::Arc, time::Duration};

use actix::{Addr, AsyncContext, Context, Handler, Message};
use fanfare_core::{
    access::Grant,
    error::AccessError,
    topic_manager::{Answered, ManagerState, Question, SlotRef},
};
use futures_util::{StreamExt, future::LocalBoxFuture, stream::poll_fn};
use tokio::sync::mpsc;

use super::{ManagerHost, TopicManager};
use crate::clock::now;

/// Questions of one worker in flight.
const MAX_ASKING: usize = 16;

/// The shortest pause after a missing answer. The longest is twice as long, so streams spread.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Asks the application about the caller of an open stream.
pub(crate) trait AskAgain: Send + Sync {
    /// The caller's grant from here on.
    ///
    /// # Errors
    /// The application refuses, or [`AccessError::Down`]: it gives no answer.
    fn ask_again(&self, question: Question) -> LocalBoxFuture<'_, Result<Arc<Grant>, AccessError>>;
}

/// Continue or end a stream by the application's answer.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct GrantAnswered {
    reference: SlotRef,
    answered: Answered,
}

impl TopicManager {
    /// Sends the questions of this turn to the asker.
    pub(super) fn ask_application(&mut self, ctx: &mut Context<Self>) {
        let questions = self.state.as_mut().map(ManagerState::take_questions).unwrap_or_default();
        for question in questions {
            let start = || spawn_asker(self.host.clone(), ctx.address());
            let asker = self.asker.get_or_insert_with(start);
            // The asker ends with its worker only.
            let _ = asker.send(question);
        }
    }
}

/// One task for all questions: an actor polls each of its own futures at every wake. Each stream has
/// at most one question in the queue.
fn spawn_asker(
    host: Arc<ManagerHost>,
    manager: Addr<TopicManager>,
) -> mpsc::UnboundedSender<Question> {
    let (asker, mut questions) = mpsc::unbounded_channel();
    tokio::task::spawn_local(async move {
        let asked = poll_fn(|task| questions.poll_recv(task)).map(|question| ask(&host, question));
        let mut answers = asked.buffer_unordered(MAX_ASKING);
        while let Some(answer) = answers.next().await {
            if manager.send(answer).await.is_err() {
                return;
            }
        }
    });
    asker
}

async fn ask(host: &ManagerHost, question: Question) -> GrantAnswered {
    let reference = question.reference;
    let answered = match host.application.ask_again(question).await {
        Ok(grant) => Answered::Granted(grant),
        Err(AccessError::Down) => {
            let pause = RETRY_PAUSE.mul_f64(1.0 + rand::random::<f64>());
            Answered::Unavailable { retry_at: now() + pause }
        }
        Err(_) => Answered::Refused,
    };
    GrantAnswered { reference, answered }
}

impl Handler<GrantAnswered> for TopicManager {
    type Result = ();

    fn handle(&mut self, message: GrantAnswered, _: &mut Self::Context) {
        let GrantAnswered { reference, answered } = message;
        // Nobody waits for the removal of topics.
        let (ticket, _) = self.next_ticket();
        self.decide(|state| state.on_answered(ticket, reference, &answered, now()));
        self.answer_changes();
        self.tickets.remove(&ticket);
    }
}
