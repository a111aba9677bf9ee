//! Revocations in Redis: one sorted set for all instances, by the time of each revocation.

use fanfare_core::{
    access::{Revocation, RevocationStore, RevocationsDown},
    future::BoxFuture,
};
use futures_util::FutureExt;

use super::{RedisFollows, nodes::FollowCall};

/// The shard of the set.
const SHARD: u16 = 0;

impl RevocationStore for RedisFollows {
    fn keep(
        &self,
        revocation: Revocation,
        oldest_ms: u64,
    ) -> BoxFuture<'static, Result<(), RevocationsDown>> {
        let store = self.clone();
        async move {
            let key = store.keys.revocations(SHARD);
            let text =
                serde_json::to_string(&revocation).map_err(|_| RevocationsDown::BridgeDown)?;
            let mut add = redis::cmd("ZADD");
            add.arg(&key).arg(revocation.at_ms).arg(text);
            let mut forget = redis::cmd("ZREMRANGEBYSCORE");
            forget.arg(&key).arg("-inf").arg(format!("({oldest_ms}"));
            let calls = [add, forget].map(|command| FollowCall { shard: SHARD, command });
            store.read(&calls).await.map_err(|_| RevocationsDown::BridgeDown)?;
            Ok(())
        }
        .boxed()
    }

    fn since(&self, from_ms: u64) -> BoxFuture<'static, Result<Vec<Revocation>, RevocationsDown>> {
        let store = self.clone();
        async move {
            let mut command = redis::cmd("ZRANGEBYSCORE");
            command.arg(store.keys.revocations(SHARD)).arg(from_ms).arg("+inf");
            let call = FollowCall { shard: SHARD, command };
            let texts: Vec<String> =
                store.read_one(call).await.map_err(|_| RevocationsDown::BridgeDown)?;
            let revocations = texts.iter().map(|text| serde_json::from_str(text));
            revocations.collect::<Result<_, _>>().map_err(|error| {
                tracing::error!(%error, "revocations: unexpected answer of Redis");
                RevocationsDown::BridgeDown
            })
        }
        .boxed()
    }
}
