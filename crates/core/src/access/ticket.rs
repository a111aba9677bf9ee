//! Tickets: a grant for one stream, for clients unable to send headers. After its first use, a
//! ticket only resumes its stream.

use serde::{Deserialize, Serialize};

use crate::{
    access::GrantText,
    cursor::{Cursor, Epoch},
    future::BoxFuture,
};

/// How far the clocks of instances may differ, in milliseconds.
const CLOCK_MARGIN_MS: u64 = 2000;

/// A ticket as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub grant: GrantText,
    /// Whether it is for some topics of its owner only.
    pub is_narrowed: bool,
    /// The end of the time for its first use, in milliseconds since 1970.
    opens_until_ms: u64,
    opened: Option<OpenedTicket>,
}

/// A ticket after its first use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OpenedTicket {
    first: FirstId,
    /// The client id of its latest stream; none after a poll.
    client: Option<String>,
}

/// A lower bound of the first id of a ticket's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstId {
    epoch: u64,
    unix_ms: u64,
    positions: Vec<(u16, u64)>,
}

impl FirstId {
    /// The stream begins at this position.
    pub fn at(cursor: &Cursor) -> Self {
        Self {
            epoch: cursor.epoch.number(),
            unix_ms: cursor.unix_ms.unwrap_or_default(),
            positions: cursor.positions.iter().collect(),
        }
    }

    /// The stream begins somewhere in the history of this epoch.
    pub fn in_history(epoch: Epoch) -> Self {
        Self { epoch: epoch.number(), unix_ms: 0, positions: Vec::new() }
    }

    /// Whether an id is at or after this one. In the hub's present epoch, if another one began
    /// since, the time decides.
    fn is_before(&self, id: &Cursor, present: Option<Epoch>) -> bool {
        if id.unix_ms.unwrap_or_default() + CLOCK_MARGIN_MS < self.unix_ms {
            return false;
        }
        if id.epoch.number() != self.epoch {
            return present == Some(id.epoch);
        }
        self.positions.iter().all(|(partition, sequence)| {
            id.positions.get(*partition).is_some_and(|reached| reached >= *sequence)
        })
    }
}

/// What a ticket allows at its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketUse {
    /// Open its stream.
    Open,
    /// Resume its stream.
    Resume,
    Nothing,
}

impl Ticket {
    pub fn new(grant: GrantText, is_narrowed: bool, opens_until_ms: u64) -> Self {
        Self { grant, is_narrowed, opens_until_ms, opened: None }
    }

    /// What the ticket allows now, with the last event id of the request. `present` is the hub's
    /// epoch.
    pub fn allows(&self, id: Option<&str>, present: Option<Epoch>, now_ms: u64) -> TicketUse {
        let Some(opened) = &self.opened else {
            let in_time = now_ms <= self.opens_until_ms;
            return if in_time { TicketUse::Open } else { TicketUse::Nothing };
        };
        let id = id.and_then(|id| id.parse::<Cursor>().ok());
        match id.is_some_and(|id| opened.first.is_before(&id, present)) {
            true => TicketUse::Resume,
            false => TicketUse::Nothing,
        }
    }

    /// The ticket after a use by this stream. `first` is for its first use.
    #[must_use]
    pub fn used(&self, first: FirstId, client: Option<String>) -> Self {
        let opened = self.opened.as_ref();
        let first = opened.map_or(first, |opened| opened.first.clone());
        Self { opened: Some(OpenedTicket { first, client }), ..self.clone() }
    }

    /// The client id of the latest stream.
    pub fn client(&self) -> Option<&str> {
        self.opened.as_ref()?.client.as_deref()
    }
}

/// Digits of a ticket's name: 4 for the place of the ticket, and 192 random bits.
pub const TICKET_DIGITS: usize = 52;

/// Tickets of one owner: a page has one or two.
pub const MAX_TICKETS_PER_OWNER: usize = 100;

/// A ticket's name at a place.
pub fn ticket_name(place: u16, random: (u128, u64)) -> String {
    format!("{place:04x}{:032x}{:016x}", random.0, random.1)
}

/// The place in a ticket's name; none for another text.
pub fn ticket_place(name: &str) -> Option<u16> {
    let is_name = name.len() == TICKET_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_name { u16::from_str_radix(&name[..4], 16).ok() } else { None }
}

/// The times of a new ticket, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketLife {
    /// Time for the first use. An unused ticket is kept no longer.
    pub window_ms: u64,
    /// Longest time a used ticket is kept: its owner's tickets are counted for so long.
    pub used_ms: u64,
}

/// The tickets are unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tickets are unavailable")]
pub struct TicketsDown;

/// Stores tickets for all instances. A ticket's text is opaque to it.
pub trait TicketStore: Send + Sync {
    /// Stores a new ticket, and returns its unguessable name of [`TICKET_DIGITS`] hexadecimal
    /// digits. Of too many tickets of one owner, the oldest go.
    fn insert(
        &self,
        owner: String,
        text: String,
        life: TicketLife,
    ) -> BoxFuture<'static, Result<String, TicketsDown>>;

    /// A ticket's text; none after its life.
    fn read(&self, name: String) -> BoxFuture<'static, Result<Option<String>, TicketsDown>>;

    /// Replaces a ticket's text, unless it is another than `old`. Returns whether it did. The ticket
    /// then stays for `life_ms` milliseconds.
    fn replace(
        &self,
        name: String,
        old: String,
        new: String,
        life_ms: u64,
    ) -> BoxFuture<'static, Result<bool, TicketsDown>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Grant;

    fn id(epoch: u64, unix_ms: u64, positions: &[(u16, u64)]) -> Cursor {
        let positions = positions.iter().copied().collect();
        Cursor { positions, ..Cursor::of_event(Epoch::new(epoch), unix_ms, 0, 0) }
    }

    fn opened_at(cursor: &Cursor) -> Ticket {
        let ticket = Ticket::new(Grant::default().to_text(), false, 1000);
        ticket.used(FirstId::at(cursor), Some("one".to_owned()))
    }

    #[test]
    fn a_new_ticket_opens_a_stream_in_time() {
        let ticket = Ticket::new(Grant::default().to_text(), false, 1000);
        for given in [None, Some("earliest"), Some("@5"), Some("garbage")] {
            assert_eq!(ticket.allows(given, None, 1000), TicketUse::Open);
            assert_eq!(ticket.allows(given, None, 1001), TicketUse::Nothing);
        }
    }

    #[test]
    fn a_used_ticket_resumes_at_or_after_its_first_id() {
        let first = id(7, 10_000, &[(1, 5), (3, 9)]);
        let ticket = opened_at(&first);
        let allows = |id: &Cursor| ticket.allows(Some(&id.to_string()), None, u64::MAX);
        for later in [
            first.clone(),
            id(7, 10_001, &[(1, 6), (3, 9)]),
            id(7, 10_001, &[(1, 5), (2, 1), (3, 10)]),
        ] {
            assert_eq!(allows(&later), TicketUse::Resume, "{later}");
        }
        for earlier in [
            id(7, 10_001, &[(1, 4), (3, 9)]),
            id(7, 10_001, &[(1, 5)]),
            id(7, 10_001, &[(2, 5)]),
            id(7, 7_999, &[(1, 5), (3, 9)]),
            id(8, 10_001, &[(1, 5), (3, 9)]),
        ] {
            assert_eq!(allows(&earlier), TicketUse::Nothing, "{earlier}");
        }
        for other in [None, Some("earliest"), Some("@20000"), Some(""), Some("garbage")] {
            assert_eq!(ticket.allows(other, None, 0), TicketUse::Nothing, "{other:?}");
        }
    }

    #[test]
    fn a_new_epoch_ends_no_ticket() {
        let ticket = opened_at(&id(7, 10_000, &[(1, 5)]));
        let (now, other) = (Some(Epoch::new(8)), Some(Epoch::new(9)));
        let returned = id(8, 10_500, &[(1, 1)]).to_string();
        assert_eq!(ticket.allows(Some(&returned), now, 0), TicketUse::Resume);
        assert_eq!(ticket.allows(Some(&returned), other, 0), TicketUse::Nothing);
        let early = id(8, 5_000, &[(1, 1)]).to_string();
        assert_eq!(ticket.allows(Some(&early), now, 0), TicketUse::Nothing);
    }

    #[test]
    fn later_uses_keep_the_first_id() {
        let first = id(7, 10_000, &[(1, 5)]);
        let later = FirstId::at(&id(7, 20_000, &[(1, 50)]));
        let ticket = opened_at(&first).used(later, Some("two".to_owned()));
        assert_eq!(ticket.client(), Some("two"));
        assert_eq!(ticket.allows(Some(&first.to_string()), None, 0), TicketUse::Resume);
    }
}
