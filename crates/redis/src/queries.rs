//! Single commands to Redis for the hub, beside the publish queues.

use actix::{Handler, ResponseFuture};
use fanfare_core::{cursor::Epoch, error::PublishError};

use crate::{
    actor::RedisBridge,
    messages::{QueryHead, QueryLastSequence, RecordModeInRedis},
};

impl Handler<QueryLastSequence> for RedisBridge {
    type Result = ResponseFuture<Option<u64>>;

    fn handle(&mut self, message: QueryLastSequence, _: &mut Self::Context) -> Self::Result {
        let topic = message.0;
        let partition = topic.partition(self.settings.partition_count);
        let path = self.queues[usize::from(partition)].path.clone();
        let key = self.settings.names(partition).of("topics");
        Box::pin(async move {
            let mut connection = path?.connection;
            let mut command = redis::cmd("ZSCORE");
            command.arg(key).arg(topic.as_str());
            let last: Option<f64> = command.query_async(&mut connection).await.ok()?;
            Some(last.unwrap_or_default() as u64)
        })
    }
}

impl Handler<QueryHead> for RedisBridge {
    type Result = ResponseFuture<Option<(Epoch, u64)>>;

    fn handle(&mut self, message: QueryHead, _: &mut Self::Context) -> Self::Result {
        let path = self.queues[usize::from(message.0)].path.clone();
        let names = self.settings.names(message.0);
        Box::pin(async move {
            let mut connection = path?.connection;
            let mut command = redis::cmd("MGET");
            command.arg(names.of("epoch")).arg(names.of("seq"));
            let head = command.query_async(&mut connection).await.ok()?;
            let (epoch, sequence): (String, u64) = head;
            // The key has more of the epoch, see `publish.lua`.
            let number = epoch.split(' ').next()?.parse().ok()?;
            Some((Epoch::new(number), sequence))
        })
    }
}

impl Handler<RecordModeInRedis> for RedisBridge {
    type Result = ResponseFuture<Result<bool, PublishError>>;

    fn handle(&mut self, message: RecordModeInRedis, _: &mut Self::Context) -> Self::Result {
        let RecordModeInRedis { posts, name, is_pull } = message;
        let partition = posts.partition(self.settings.partition_count);
        let Some(path) = self.queues[usize::from(partition)].path.clone() else {
            return Box::pin(std::future::ready(Err(PublishError::BridgeDown)));
        };
        let window_ms = self.settings.window_ms.max(1);
        let key = self.settings.names(partition).of(&format!("mode:{name}"));
        Box::pin(async move {
            let mut connection = path.connection;
            // `SET NX GET` is atomic: of several fan-outs with this name, the first one decides,
            // also on other instances. A repetition only renews the lifetime.
            let mut both = redis::pipe();
            let mode = if is_pull { "pull" } else { "push" };
            both.cmd("SET").arg(&key).arg(mode).arg("NX").arg("GET").arg("PX").arg(window_ms);
            both.cmd("PEXPIRE").arg(&key).arg(window_ms).ignore();
            let before: Result<(Option<String>,), _> = both.query_async(&mut connection).await;
            // No event is published yet, so the caller may retry the fan-out.
            let (before,) = before.map_err(|_| PublishError::BridgeDown)?;
            Ok(before.map_or(is_pull, |before| before == "pull"))
        })
    }
}
