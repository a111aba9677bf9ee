//! The scripts of the follow graph and the preferences, and their calls.

use std::sync::LazyLock;

use redis::{Cmd, RedisError, aio::MultiplexedConnection};

/// A script; its Lua file documents keys and arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    /// A set of followers, or of followed authors.
    Set,
    /// Muted kinds of a user.
    Mute,
    /// A new ticket.
    InsertTicket,
    /// A use of a ticket.
    UseTicket,
}

impl Script {
    const ALL: [Self; 4] = [Self::Set, Self::Mute, Self::InsertTicket, Self::UseTicket];

    fn text(self) -> &'static str {
        match self {
            Self::Set => include_str!("set.lua"),
            Self::Mute => include_str!("mute.lua"),
            Self::InsertTicket => include_str!("ticket.lua"),
            Self::UseTicket => include_str!("ticket-use.lua"),
        }
    }

    /// The script's hash in Redis.
    fn hash(self) -> &'static str {
        static HASHES: LazyLock<[redis::Script; 4]> =
            LazyLock::new(|| Script::ALL.map(|script| redis::Script::new(script.text())));
        HASHES[self as usize].get_hash()
    }
}

/// A call of a script. The node must have loaded it.
pub(super) fn call(script: Script, keys: &[String], words: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.hash()).arg(keys.len()).arg(keys).arg(words);
    command
}

/// Loads all scripts on a node.
pub(super) async fn load(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    for script in Script::ALL {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(script.text());
        command.query_async::<()>(connection).await?;
    }
    Ok(())
}
