//! The position of topics now.

use std::sync::Arc;

use actix::Addr;
use fanfare_core::{
    access::Grant,
    cursor::{Cursor, IN_ANOTHER_EPOCH, ReplayMarks},
    error::SubscribeError as Refused,
    subscription::Subscription,
};
use futures_util::future::join_all;

use super::Hub;
use crate::{
    actors::partition::{Partition, ReadHead},
    clock::now,
    error::SubscribeError,
};

impl Hub {
    /// The position now of exactly these topics. A stream opened with it (as its last event id)
    /// begins with every later event. Read it before the state given to a page: then the page
    /// misses no change.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub async fn cursor(&self, subscription: Subscription) -> Result<Cursor, SubscribeError> {
        self.cursor_for(subscription, &Grant::everything()).await
    }

    /// [`Self::cursor`] for a caller.
    pub(crate) async fn cursor_for(
        &self,
        subscription: Subscription,
        grant: &Arc<Grant>,
    ) -> Result<Cursor, SubscribeError> {
        let parts = self.parts();
        let resolved = subscription.resolve(parts.config.hub.stream_limits(), 0, grant)?;
        parts.check_open()?;
        // Before the positions: a topic without one continues from this time.
        let unix_ms = parts.clock.at(now());
        let partitions = resolved.interests(parts.config.hub.partitions);
        let heads = partitions.iter().map(async |(number, _)| {
            let partition: &Addr<Partition> = parts.publisher.partition(*number);
            let head = partition.send(ReadHead).await.ok().flatten();
            head.map(|head| (*number, head)).ok_or(Refused::BridgeDown)
        });
        let heads = join_all(heads).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let epoch = heads.iter().map(|(_, (epoch, _))| *epoch).max();
        let epoch = epoch.ok_or(Refused::NoTopic)?;
        // The epochs of partitions differ only while a new one begins.
        let position = |(number, (own, sequence))| {
            (number, if own == epoch { sequence } else { IN_ANOTHER_EPOCH })
        };
        let positions = heads.into_iter().map(position).collect();
        Ok(Cursor { epoch, unix_ms: Some(unix_ms), positions, marks: ReplayMarks::default() })
    }
}
