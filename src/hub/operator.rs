//! The hub as operators reach it: counters, lists and ends of streams, followers, revocations.

use fanfare_core::{
    access::{MayOperate, Revoked},
    cluster::StreamFilter,
    sse::ShutdownReason,
};

use super::{Hub, RevokeError};
use crate::{
    error::{ChangeError, FollowError},
    follow::Page,
    metrics::{Gauges, Row},
    process::Process,
};

/// A hub and the proof of its operator.
pub(crate) struct Operator {
    hub: Hub,
    proof: MayOperate,
}

impl Operator {
    pub fn new(hub: Hub, proof: MayOperate) -> Self {
        Self { hub, proof }
    }

    /// Every metric.
    pub fn rows(&self) -> Vec<Row> {
        let parts = self.hub.parts();
        let gauges = Gauges {
            connections: parts.open_streams(),
            history_bytes: parts.budget.used_bytes(),
            request_bytes: parts.requests.held_bytes(),
            remembered_bytes: parts.remembered.used_bytes(),
            replays: parts.replays(),
            idle_topic_bytes: parts.budget.idle_bytes(),
            cluster: parts.instances.cluster.status(),
            disk: parts.log.disk_gauges(),
            process: Process::now(),
        };
        parts.metrics.rows(&gauges, self.proof)
    }

    /// The number of an author's followers, and a page of them: see [`Hub::followers`].
    pub async fn followers(
        &self,
        author: &str,
        after: Option<String>,
        limit: usize,
    ) -> Result<(u64, Page), FollowError> {
        let follows = &self.hub.parts().follows;
        let count = follows.follower_count(author, self.proof).await?;
        Ok((count, follows.followers(author, after, limit, self.proof).await?))
    }

    /// See [`Hub::end_streams`].
    pub async fn end_streams(
        &self,
        filter: StreamFilter,
        reason: ShutdownReason,
    ) -> Result<usize, ChangeError> {
        Ok(self.hub.parts().instances.end_everywhere(filter, reason, self.proof).await?)
    }

    /// See [`Hub::revoke`].
    pub async fn revoke(&self, revoked: Revoked) -> Result<usize, RevokeError> {
        self.hub.revoke_by(revoked, self.proof).await
    }
}
