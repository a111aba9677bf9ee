//! The admission of a stream: by its caller's credential, or by a ticket.

use std::{sync::Arc, time::Duration};

use actix_web::dev::RequestHead;
use fanfare_core::{
    access::{FirstId, Grant, TicketUse, TicketsDown},
    cluster::StreamFilter,
    cursor::Cursor,
    error::{AccessError, SubscribeError},
    sse::ShutdownReason,
    subscription::Subscription,
};

use tokio::time::timeout;

use super::Hub;
use crate::{
    access::{Action, ShownTicket, UsedMeanwhile},
    actors::connection::NewStream,
};

/// Longest wait for the end of a ticket's earlier stream.
const MAX_REPLACING: Duration = Duration::from_secs(1);

/// The ticket is unknown, ended, or used before.
const BAD_TICKET: AccessError = AccessError::Unauthenticated { reason: "bad_ticket" };

/// The grant of an admitted stream.
pub(crate) struct Admission {
    pub grant: Arc<Grant>,
    used: Option<UsedTicket>,
}

struct UsedTicket {
    shown: ShownTicket,
    /// A lower bound of the stream's first id.
    first: FirstId,
}

/// The kind of an admitted stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UseKind {
    Stream,
    /// The feed of a user: its topics follow from the user, not from the grant.
    Feed,
    /// A stream ended by its first answer.
    Poll,
    /// A feed ended by its first answer.
    FeedPoll,
}

impl Hub {
    /// Admits a stream of this subscription. A ticket wins over other credentials.
    pub(crate) async fn admit(
        &self,
        head: &RequestHead,
        ticket: Option<&str>,
        subscription: &Subscription,
        kind: UseKind,
    ) -> Result<Admission, SubscribeError> {
        match ticket.filter(|_| self.parts().config.access.enabled) {
            Some(name) => self.admit_by_ticket(name, subscription, kind).await,
            None => {
                let action = Action::Subscribe(subscription.names());
                let grant = self.caller(head, action).await?.grant().clone();
                Ok(Admission { grant, used: None })
            }
        }
    }

    async fn admit_by_ticket(
        &self,
        name: &str,
        subscription: &Subscription,
        kind: UseKind,
    ) -> Result<Admission, SubscribeError> {
        let found = self.parts().tickets.find(name).await;
        let shown = found.map_err(tickets_down)?.ok_or(BAD_TICKET)?;
        let access = &self.parts().access;
        let grant = access.grant_of_ticket(shown.grant.clone(), subscription.names()).await?;
        let is_feed = matches!(kind, UseKind::Feed | UseKind::FeedPoll);
        // A feed has more topics than those of the ticket, from time to time others.
        grant.require(!is_feed || !shown.is_narrowed())?;
        let checked = if is_feed { Grant::everything() } else { grant.clone() };
        // Before the stream, so the stream's first id is not earlier.
        let now = self.cursor_for(subscription.clone(), &checked).await?;
        let id = subscription.start_id();
        if shown.allows(id, Some(now.epoch)) == TicketUse::Nothing {
            return Err(BAD_TICKET.into());
        }
        let first = match (id.map(str::parse::<Cursor>), subscription.starts_with_snapshot()) {
            (Some(Ok(cursor)), _) => FirstId::at(&cursor),
            (None, false) => FirstId::at(&now),
            _ => FirstId::in_history(now.epoch),
        };
        Ok(Admission { grant, used: Some(UsedTicket { shown, first }) })
    }

    /// Notes the use of the admission's ticket by a new stream, and ends the ticket's earlier stream.
    pub(crate) async fn begin(
        &self,
        admission: Admission,
        stream: NewStream,
        kind: UseKind,
    ) -> Result<NewStream, SubscribeError> {
        let Some(UsedTicket { shown, first }) = admission.used else { return Ok(stream) };
        let is_poll = matches!(kind, UseKind::Poll | UseKind::FeedPoll);
        let client = (!is_poll).then(|| stream.client_id());
        let begun = self.parts().tickets.begin(&shown, first, client).await;
        let refused: SubscribeError = match begun {
            Ok(Ok(earlier)) => {
                if let Some(earlier) = earlier {
                    self.end_replaced(earlier).await;
                }
                return Ok(stream);
            }
            Ok(Err(UsedMeanwhile)) => BAD_TICKET.into(),
            Err(down) => tickets_down(down),
        };
        // A running stream takes back its announcements; a new one would leave them.
        drop(stream.start());
        Err(refused)
    }
}

impl Hub {
    /// Ends a ticket's earlier stream. It may have ended, or be on an instance without a link: its
    /// end is no condition for the later stream.
    async fn end_replaced(&self, client: String) {
        let earlier = StreamFilter::all().client(client);
        let ended = self.end_streams(earlier, ShutdownReason::Replaced);
        if let Ok(Err(error)) = timeout(MAX_REPLACING, ended).await {
            tracing::debug!(%error, "the earlier stream of a ticket may be open still");
        }
    }
}

fn tickets_down(TicketsDown: TicketsDown) -> SubscribeError {
    SubscribeError::BridgeDown
}
