//! Issuing and using tickets.

use std::{sync::Arc, time::Duration};

use fanfare_core::{
    access::{FirstId, Grant, Ticket, TicketStore, TicketUse, TicketsDown, ticket_place},
    cursor::Epoch,
};

use crate::clock::{now, unix_ms};

/// Longest life of a ticket: that of a token without an end in sight.
const MAX_LIFE_MS: u64 = 30 * 24 * 3600 * 1000;

/// The tickets of a hub.
pub(crate) struct Tickets {
    store: Arc<dyn TicketStore>,
    window: Duration,
}

/// A ticket for a client.
pub(crate) struct IssuedTicket {
    pub name: String,
    /// Time for its first use.
    pub window_ms: u64,
}

/// A ticket shown by a request, as stored.
pub(crate) struct ShownTicket {
    name: String,
    text: String,
    ticket: Ticket,
    pub grant: Arc<Grant>,
}

impl Tickets {
    pub fn new(store: Arc<dyn TicketStore>, window: Duration) -> Self {
        Self { store, window }
    }

    /// Issues a ticket. It ends with the grant.
    pub async fn issue(
        &self,
        grant: &Grant,
        is_narrowed: bool,
    ) -> Result<IssuedTicket, TicketsDown> {
        let now_ms = unix_ms();
        let left_ms = grant.expires_at_ms().map_or(MAX_LIFE_MS, |end| end.saturating_sub(now_ms));
        let window_ms = (self.window.as_millis() as u64).min(left_ms);
        let ticket = Ticket::new(grant.to_text(), is_narrowed, now_ms + window_ms);
        let text = serde_json::to_string(&ticket).map_err(|_| TicketsDown)?;
        let owner = grant.user().map(|user| user.as_str().to_owned()).unwrap_or_default();
        let name = self.store.insert(owner, text, left_ms.min(MAX_LIFE_MS)).await?;
        Ok(IssuedTicket { name, window_ms })
    }

    /// The ticket of a name, with its grant; none if it is unknown or ended.
    pub async fn find(&self, name: &str) -> Result<Option<ShownTicket>, TicketsDown> {
        if ticket_place(name).is_none() {
            return Ok(None);
        }
        let Some(text) = self.store.read(name.to_owned()).await? else { return Ok(None) };
        let Ok(ticket) = serde_json::from_str::<Ticket>(&text) else { return Ok(None) };
        let grant = Grant::from_text(ticket.grant.clone(), now(), unix_ms());
        let grant = grant.ok().filter(|grant| !grant.has_ended(now()));
        let shown = |grant| ShownTicket { name: name.to_owned(), text, ticket, grant };
        Ok(grant.map(Arc::new).map(shown))
    }

    /// Notes a use of the ticket by a stream. Returns the stream to end in its favour.
    ///
    /// # Errors
    /// `Ok(Err(_))`: another use was faster.
    pub async fn begin(
        &self,
        shown: &ShownTicket,
        first: FirstId,
        client: Option<String>,
    ) -> Result<Result<Option<String>, UsedMeanwhile>, TicketsDown> {
        let used = shown.ticket.used(first, client);
        let text = serde_json::to_string(&used).map_err(|_| TicketsDown)?;
        let replaced = self.store.replace(shown.name.clone(), shown.text.clone(), text).await?;
        let earlier = shown.ticket.client().map(str::to_owned);
        Ok(if replaced { Ok(earlier) } else { Err(UsedMeanwhile) })
    }
}

/// Another request used the ticket at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UsedMeanwhile;

impl ShownTicket {
    /// Whether it is for some topics of its owner only.
    pub fn is_narrowed(&self) -> bool {
        self.ticket.is_narrowed
    }

    /// What the ticket allows now.
    pub fn allows(&self, id: Option<&str>, present: Option<Epoch>) -> TicketUse {
        self.ticket.allows(id, present, unix_ms())
    }
}
