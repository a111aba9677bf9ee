//! Issuing and using tickets.

use std::{sync::Arc, time::Duration};

use fanfare_core::{
    access::{
        FirstId, Grant, Ticket, TicketLife, TicketStore, TicketUse, TicketsDown, ticket_place,
    },
    cursor::Epoch,
};

use crate::clock::{now, unix_ms};

/// Longest time between two uses of a ticket: its token has no end in sight, or the application
/// decides again at each use.
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

    /// Issues a ticket. It ends with the grant; if the application decides, with its refusal.
    pub async fn issue(
        &self,
        grant: &Grant,
        is_narrowed: bool,
    ) -> Result<IssuedTicket, TicketsDown> {
        let now_ms = unix_ms();
        let used_ms = life_ms(grant, now_ms);
        let window_ms = (self.window.as_millis() as u64).min(used_ms);
        let ticket = Ticket::new(grant.to_text(), is_narrowed, now_ms + window_ms);
        let text = serde_json::to_string(&ticket).map_err(|_| TicketsDown)?;
        let owner = grant.user().map(|user| user.as_str().to_owned()).unwrap_or_default();
        let name = self.store.insert(owner, text, TicketLife { window_ms, used_ms }).await?;
        Ok(IssuedTicket { name, window_ms })
    }

    /// The ticket of a name, with its grant, perhaps an ended one; none if it is unknown.
    pub async fn find(&self, name: &str) -> Result<Option<ShownTicket>, TicketsDown> {
        if ticket_place(name).is_none() {
            return Ok(None);
        }
        let Some(text) = self.store.read(name.to_owned()).await? else { return Ok(None) };
        let Ok(ticket) = serde_json::from_str::<Ticket>(&text) else { return Ok(None) };
        let grant = Grant::from_text(ticket.grant.clone(), now(), unix_ms());
        let shown = |grant| ShownTicket { name: name.to_owned(), text, ticket, grant };
        Ok(grant.ok().map(Arc::new).map(shown))
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
        let life_ms = life_ms(&shown.grant, unix_ms());
        let (name, old) = (shown.name.clone(), shown.text.clone());
        let replaced = self.store.replace(name, old, text, life_ms).await?;
        let earlier = shown.ticket.client().map(str::to_owned);
        Ok(if replaced { Ok(earlier) } else { Err(UsedMeanwhile) })
    }
}

/// The remaining life of a ticket with this grant.
fn life_ms(grant: &Grant, now_ms: u64) -> u64 {
    let end_ms = grant.expires_at_ms().filter(|_| grant.asked().is_none());
    end_ms.map_or(MAX_LIFE_MS, |end| end.saturating_sub(now_ms).min(MAX_LIFE_MS))
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
