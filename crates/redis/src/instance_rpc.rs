//! Instance RPC: an instance publishes a call on a partition's `control` channel, and every
//! instance answers on the caller's `answers:<instance>` channel.

use actix::{
    ActorFutureExt, AsyncContext, Context, Handler, MessageResult, ResponseActFuture, WrapFuture,
};
use fanfare_core::{cluster::InstanceAnswers, error::ChangeError};
use redis::aio::ConnectionLike;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    actor::RedisBridge,
    messages::{CallAnswered, CallInstances, CallReceived, QueryLinks, ServeCalls},
    pending_replies::{MAX_CALLS, PendingReply},
    publish_path::PublishPath,
    signature::{MessageKind, Secret},
};

impl RedisBridge {
    /// The connection, a channel, and the secret for its messages.
    fn channel(&self, partition: u16, name: &str) -> Option<(PublishPath, String, Secret)> {
        let path = self.queues[usize::from(partition)].path.clone()?;
        let secret = self.settings.secrets.of(partition)?;
        Some((path, self.settings.names(partition).channel(name), secret))
    }
}

impl Handler<ServeCalls> for RedisBridge {
    type Result = ();

    fn handle(&mut self, message: ServeCalls, _: &mut Self::Context) {
        self.pending.handler = Some(message.0);
    }
}

impl Handler<CallReceived> for RedisBridge {
    type Result = ();

    fn handle(&mut self, message: CallReceived, ctx: &mut Context<Self>) {
        let CallReceived { partition, question, instance, call } = message;
        let channel = self.channel(partition, &format!("answers:{instance}"));
        let Some((mut path, channel, secret)) = channel else { return };
        // Before its start the hub has no streams. The caller counts the missing answer.
        let Some(handler) = &self.pending.handler else { return };
        let execute = handler.handle(call);
        let answer = async move {
            let answer = execute.await;
            let text = serde_json::to_string(&answer).expect("plain texts and numbers serialize");
            let mut publish = redis::cmd("SPUBLISH");
            let text = format!("answer {question} {text}");
            publish.arg(channel).arg(secret.sign(MessageKind::Answer, &text));
            // On failure the caller counts the missing answer.
            let _ = path.connection.req_packed_command(&publish).await;
        };
        ctx.spawn(answer.into_actor(self));
    }
}

impl Handler<CallAnswered> for RedisBridge {
    type Result = ();

    fn handle(&mut self, message: CallAnswered, _: &mut Self::Context) {
        if let Some(waiting) = self.pending.waiting.get_mut(&message.question) {
            waiting.answers.push(message.answer);
            waiting.finish_if_all_answered();
        }
    }
}

impl Handler<QueryLinks> for RedisBridge {
    type Result = MessageResult<QueryLinks>;

    fn handle(&mut self, _: QueryLinks, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.first_partitions())
    }
}

impl Handler<CallInstances> for RedisBridge {
    type Result = ResponseActFuture<Self, Result<InstanceAnswers, ChangeError>>;

    fn handle(&mut self, message: CallInstances, _: &mut Self::Context) -> Self::Result {
        let CallInstances { partition, text, limit } = message;
        let control = self.channel(partition, "control");
        let control = control.filter(|_| self.pending.waiting.len() < MAX_CALLS);
        let Some((mut path, control, secret)) = control else {
            return Box::pin(std::future::ready(Err(ChangeError::BridgeDown)).into_actor(self));
        };
        let question = rand::random();
        let instance = self.settings.instance.clone();
        let (done, is_done) = oneshot::channel();
        // Registered before the publish: an answer may arrive before Redis' reply to the publish.
        let waiting = PendingReply { done: Some(done), ..PendingReply::default() };
        self.pending.waiting.insert(question, waiting);
        let ask = async move {
            let mut publish = redis::cmd("SPUBLISH");
            let text = format!("call {question} {instance} {text}");
            publish.arg(control).arg(secret.sign(MessageKind::Call, &text));
            publish.query_async::<usize>(&mut path.connection).await
        };
        let asked = ask.into_actor(self).map(move |asked, this: &mut Self, _| {
            // Redis replies with the number of receivers: so many answers complete the call. All
            // of them may be here already.
            let waiting = this.pending.waiting.get_mut(&question);
            if let (Ok(asked), Some(waiting)) = (&asked, waiting) {
                waiting.asked = Some(*asked);
                waiting.finish_if_all_answered();
            }
            asked.is_ok()
        });
        let answered = asked.then(move |is_asked, this: &mut Self, _| {
            let limit = limit.unwrap_or(this.settings.timeout).min(this.settings.timeout);
            let wait = async move {
                let are_all = is_asked && timeout(limit, is_done).await.is_ok();
                (is_asked, are_all)
            };
            wait.into_actor(this)
        });
        Box::pin(answered.map(move |(is_asked, are_all), this, _| {
            // Removed in every case: an abandoned entry would count against `MAX_CALLS` forever.
            let waiting = this.pending.waiting.remove(&question).filter(|_| is_asked);
            let answers = waiting.map(|waiting| waiting.answers).ok_or(ChangeError::Unconfirmed)?;
            Ok(InstanceAnswers { answers, are_all })
        }))
    }
}
