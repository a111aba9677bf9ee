//! Tickets in Redis, for all instances. A ticket lies in the shard of its owner, and its name begins
//! with the shard.

use fanfare_core::{
    access::{
        MAX_TICKETS_PER_OWNER, TicketLife, TicketStore, TicketsDown, ticket_name, ticket_place,
    },
    future::BoxFuture,
    topic::partition_of,
};
use futures_util::FutureExt;
use redis::FromRedisValue;

use super::{RedisFollows, keys::SHARD_COUNT, nodes::FollowCall, scripts::Script};

impl RedisFollows {
    /// Makes one call of a ticket. A lost answer counts as unavailable: the ticket is then unused, or
    /// its client asks for another.
    async fn of_ticket<T: FromRedisValue>(self, call: FollowCall) -> Result<T, TicketsDown> {
        self.read_one(call).await.map_err(|_| TicketsDown)
    }

    fn ticket_key(&self, name: &str) -> Option<(u16, String)> {
        let shard = ticket_place(name).filter(|shard| *shard < SHARD_COUNT)?;
        Some((shard, self.keys.ticket(shard, name)))
    }
}

impl TicketStore for RedisFollows {
    fn insert(
        &self,
        owner: String,
        text: String,
        life: TicketLife,
    ) -> BoxFuture<'static, Result<String, TicketsDown>> {
        let store = self.clone();
        async move {
            let shard = partition_of(&owner, SHARD_COUNT);
            let name = ticket_name(shard, rand::random());
            let keys = [store.keys.ticket(shard, &name), store.keys.tickets(shard, &owner)];
            let TicketLife { window_ms, used_ms } = life;
            let [window, used] = [window_ms, used_ms].map(|life_ms| life_ms.max(1).to_string());
            let (most, base) = (MAX_TICKETS_PER_OWNER.to_string(), store.keys.ticket(shard, ""));
            let words = [&name, &text, &window, &used, &most, &base].map(String::as_str);
            let call = FollowCall::script(shard, Script::InsertTicket, &keys, &words);
            store.of_ticket::<u64>(call).await?;
            Ok(name)
        }
        .boxed()
    }

    fn read(&self, name: String) -> BoxFuture<'static, Result<Option<String>, TicketsDown>> {
        let store = self.clone();
        async move {
            let Some((shard, key)) = store.ticket_key(&name) else { return Ok(None) };
            let mut command = redis::cmd("GET");
            command.arg(key);
            store.of_ticket(FollowCall { shard, command }).await
        }
        .boxed()
    }

    fn replace(
        &self,
        name: String,
        old: String,
        new: String,
        life_ms: u64,
    ) -> BoxFuture<'static, Result<bool, TicketsDown>> {
        let store = self.clone();
        async move {
            let Some((shard, key)) = store.ticket_key(&name) else { return Ok(false) };
            let life = life_ms.max(1).to_string();
            let words = [&old, &new, &life].map(String::as_str);
            let call = FollowCall::script(shard, Script::UseTicket, &[key], &words);
            store.of_ticket(call).await
        }
        .boxed()
    }
}
