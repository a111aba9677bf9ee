//! Changing the topics of open streams.

use fanfare_core::{
    cluster::{StreamChange, StreamOutcome},
    error::AccessError,
    subscription::{ChangeBy, StreamLimits, TooMany},
    topic::Pattern,
};

use super::Hub;
use crate::error::ChangeError;

impl Hub {
    /// Changes the topics and patterns of an open stream without a reconnect, on any instance.
    /// `client_id` is from the stream's `connected` event. A name in both lists is added. Each list
    /// has at most `hub.max_topics_per_stream` names, and so has the changed stream.
    ///
    /// Resolves once the change is in force: every later event of an added topic reaches the
    /// stream. Returns all topics and patterns of the stream. A reconnecting client starts with the
    /// topics of its new request.
    ///
    /// # Errors
    /// See [`ChangeError`]. Nothing changes, except after [`ChangeError::Unconfirmed`]; repeating
    /// the call is then safe.
    pub async fn change_topics(
        &self,
        client_id: &str,
        add: &[impl AsRef<str>],
        remove: &[impl AsRef<str>],
    ) -> Result<Vec<String>, ChangeError> {
        self.change_topics_by(ChangeBy::Hub, client_id, add, remove).await
    }

    /// [`Self::change_topics`] by a caller. The stream's instance checks its own grant.
    pub(crate) async fn change_topics_by(
        &self,
        by: ChangeBy,
        client_id: &str,
        add: &[impl AsRef<str>],
        remove: &[impl AsRef<str>],
    ) -> Result<Vec<String>, ChangeError> {
        let is_id = client_id.len() == 32 && client_id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            return Err(ChangeError::UnknownStream);
        }
        let StreamLimits { max_topics, max_patterns, .. } = self.parts().config.hub.stream_limits();
        if add.len().max(remove.len()) > max_topics {
            return Err(ChangeError::TooManyTopics { max_count: max_topics });
        }
        let change = StreamChange {
            client: Some(client_id.to_owned()),
            add: checked(add)?,
            remove: checked(remove)?,
            by,
            ..StreamChange::default()
        };
        // The stream may be on any instance, and the link of any partition reaches all of them.
        let outcomes = self.parts().instances.change_everywhere(0, vec![change]).await?;
        match outcomes.into_iter().next() {
            Some(StreamOutcome::Changed(names)) => Ok(names),
            Some(StreamOutcome::TooMany(TooMany::Topics)) => {
                Err(ChangeError::TooManyTopics { max_count: max_topics })
            }
            Some(StreamOutcome::TooMany(TooMany::Patterns)) => {
                Err(ChangeError::TooManyPatterns { max_count: max_patterns })
            }
            Some(StreamOutcome::Forbidden(names)) => Err(AccessError::Forbidden { names }.into()),
            Some(StreamOutcome::Busy) => Err(ChangeError::AtCapacity),
            Some(StreamOutcome::TooFast) => Err(ChangeError::TooFast),
            Some(StreamOutcome::Ended) | None => Err(ChangeError::UnknownStream),
        }
    }
}

fn checked(names: &[impl AsRef<str>]) -> Result<Vec<String>, ChangeError> {
    let checked = |name: &str| Ok(Pattern::parse(name)?.as_str().to_owned());
    names.iter().map(|name| checked(name.as_ref())).collect()
}
