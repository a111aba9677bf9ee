//! The hub as the caller of a request reaches it: every method checks the caller's grant first.

use std::sync::Arc;

use fanfare_core::{
    access::{Grant, MAX_PATTERNS, TicketsDown},
    cursor::Cursor,
    error::{AccessError, PublishError, SubscribeError as Refused},
    event::Event,
    subscription::{ChangeBy, Subscription},
    topic::{Pattern, Topic},
    user::{User, UserError},
};

use super::{Hub, Operator};
use crate::{
    access::IssuedTicket,
    clock::now,
    error::{ChangeError, SubscribeError},
    instances::TopicStatus,
    publisher::CheckedPost,
};

/// A caller and its grant.
#[derive(Clone)]
pub(crate) struct Caller {
    hub: Hub,
    grant: Arc<Grant>,
}

impl Caller {
    pub fn new(hub: Hub, grant: Arc<Grant>) -> Self {
        Self { hub, grant }
    }

    pub fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    /// Checks an event for its topics. It publishes nothing.
    pub fn check(&self, topics: &[String], event: Event) -> Result<CheckedPost, PublishError> {
        self.hub.check(topics, event, &self.grant)
    }

    /// The position now of granted topics.
    pub async fn cursor(&self, subscription: Subscription) -> Result<Cursor, SubscribeError> {
        self.hub.cursor_for(subscription, &self.grant).await
    }

    /// Changes the topics of a stream of this caller.
    pub async fn change_topics(
        &self,
        client_id: &str,
        add: &[String],
        remove: &[String],
    ) -> Result<Vec<String>, ChangeError> {
        let changed = self.hub.change_topics_by(self.by(), client_id, add, remove).await;
        changed.map_err(|error| match error {
            // An anonymous caller needs a token first.
            ChangeError::Access(AccessError::Forbidden { names }) => {
                self.grant.refusal(names).into()
            }
            error => error,
        })
    }

    /// Gives the caller's grant to a stream of the same user. Returns the topics it has lost.
    pub async fn renew(&self, client_id: &str) -> Result<Vec<String>, ChangeError> {
        self.grant.require(!self.grant.is_anonymous())?;
        self.hub.renew(client_id, &self.grant).await
    }

    /// The remaining time of the grant, in milliseconds.
    pub fn expires_ms(&self) -> Option<u64> {
        let left = self.grant.ends_at()?.saturating_duration_since(now());
        Some(left.as_millis() as u64)
    }

    /// Checks the grant for a further event of a long request.
    pub fn check_event(&self) -> Result<(), AccessError> {
        self.hub.parts().access.check_event(&self.grant)
    }

    fn by(&self) -> ChangeBy {
        match self.grant.is_everything() {
            true => ChangeBy::Hub,
            false => ChangeBy::Caller(self.grant.user().map(|user| user.as_str().to_owned())),
        }
    }

    /// A ticket with this grant, or for these topics and patterns of it.
    pub async fn ticket(&self, topics: Option<Vec<String>>) -> Result<IssuedTicket, Refused> {
        if self.grant.is_anonymous() {
            return Err(AccessError::no_token().into());
        }
        let tickets = &self.hub.parts().tickets;
        let issued = match topics {
            None => tickets.issue(&self.grant, false).await,
            Some(names) => tickets.issue(&self.narrowed(names)?, true).await,
        };
        issued.map_err(|TicketsDown| Refused::BridgeDown)
    }

    fn narrowed(&self, names: Vec<String>) -> Result<Grant, Refused> {
        for name in &names {
            Pattern::parse(name)?;
        }
        self.grant.check_subscribe(names.iter().map(String::as_str))?;
        let too_many = |_| Refused::TooManyTopics { max_count: MAX_PATTERNS };
        self.grant.narrowed(names).map_err(too_many)
    }

    /// A granted topic over all instances; `None` while the log is unavailable.
    pub async fn topic_status(&self, topic: Topic) -> Result<Option<TopicStatus>, AccessError> {
        let topic = self.grant.to_read(topic)?;
        Ok(self.hub.parts().instances.topic_status(topic).await)
    }

    /// The hub, for a caller with `manage` of all topics.
    pub fn operator(&self) -> Result<Operator, AccessError> {
        Ok(Operator::new(self.hub.clone(), self.grant.to_operate()?))
    }

    /// The hub, for changes and lists of a user: to the user, or with `manage` of the user's
    /// notifications.
    pub fn acting_as(&self, user: &str) -> Result<&Hub, ActingError> {
        self.grant.require(self.grant.may_act_as(&User::parse(user)?))?;
        Ok(&self.hub)
    }
}

/// Why a caller may not act as a user.
#[derive(Debug)]
pub(crate) enum ActingError {
    User(UserError),
    Access(AccessError),
}

impl From<UserError> for ActingError {
    fn from(error: UserError) -> Self {
        Self::User(error)
    }
}

impl From<AccessError> for ActingError {
    fn from(error: AccessError) -> Self {
        Self::Access(error)
    }
}
