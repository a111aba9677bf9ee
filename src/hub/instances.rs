//! What concerns streams wherever they are: on which worker, and on which instance.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{Hub, Shared};
use crate::{
    actors::topic_manager::{ChangeStreams, ListFeedUsers, Outcome, Whose},
    domain::topic::{Pattern, Topic},
    error::ChangeError,
    subscription::Change,
};

/// How long the streams of an instance may take to change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(3);

impl Hub {
    /// Changes the topics and patterns of an open stream, without a reconnect. It is answered
    /// with all that the stream has then, once it gets whatever is published from now on. A
    /// client that reconnects begins with the topics that it asks for then.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing is changed but for [`ChangeError::Unconfirmed`].
    pub async fn change_topics(
        &self,
        client_id: &str,
        add: &[impl AsRef<str>],
        remove: &[impl AsRef<str>],
    ) -> Result<Vec<String>, ChangeError> {
        let add = parse(add)?;
        let remove = parse(remove)?;
        let shared = self.shared();
        let (stream, secret) = shared.client(client_id).ok_or(ChangeError::UnknownStream)?;
        let change = Change { add, remove, muted: None };
        let changes = [(Whose::Client { stream, secret }, change)];
        let outcomes = shared.change_streams(changes.into()).await?;
        match outcomes.into_iter().next() {
            Some(Outcome::Changed(names)) => Ok(names.into()),
            Some(Outcome::TooManyTopics) => Err(ChangeError::TooManyTopics {
                max_count: shared.config.hub.max_topics_per_stream,
            }),
            Some(Outcome::Ended) | None => Err(ChangeError::UnknownStream),
        }
    }
}

fn parse(names: &[impl AsRef<str>]) -> Result<Vec<Pattern>, ChangeError> {
    names.iter().map(|name| Ok(Pattern::parse(name.as_ref())?)).collect()
}

impl Shared {
    /// Changes streams of this instance, and returns when all of it is in force.
    pub async fn change_streams(
        &self,
        changes: Arc<[(Whose, Change)]>,
    ) -> Result<Vec<Outcome>, ChangeError> {
        let change = async {
            let _place = self.asks.acquire().await;
            let managers = self.managers.lock().clone();
            let asked = managers.iter().map(|manager| manager.send(ChangeStreams(changes.clone())));
            join_all(asked).await
        };
        let changed = timeout(CHANGE_TIMEOUT, change).await;
        let changed = changed.map_err(|_| ChangeError::Unconfirmed)?;
        // A worker that has ended has no streams.
        Ok(changed.into_iter().filter_map(Result::ok).flatten().collect())
    }

    /// The users who have a feed on this instance that wants a topic, see [`ListFeedUsers`].
    pub async fn feed_users(&self, topic: &Topic, kind: &str) -> Vec<(u64, bool)> {
        let _place = self.asks.acquire().await;
        let managers = self.managers.lock().clone();
        let ask = || ListFeedUsers { topic: topic.clone(), kind: kind.to_owned() };
        let asked = managers.iter().map(|manager| manager.send(ask()));
        join_all(asked).await.into_iter().filter_map(Result::ok).flatten().collect()
    }
}
