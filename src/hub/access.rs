//! The hub's methods for open streams and their tokens: lists, ends, renewals, revocations.

use std::sync::Arc;

use fanfare_core::{
    access::{Grant, MayOperate, Revocation, RevocationsDown, Revoked},
    cluster::{StreamFilter, StreamInfo},
    error::ErrorCode,
    sse::ShutdownReason,
};

use super::Hub;
use crate::{clock::unix_ms, error::ChangeError};

/// Why tokens were not revoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// The hub keeps too many revocations (`access.max_revocations`). Nothing was revoked.
    #[error("the hub keeps too many revocations")]
    AtCapacity,
    /// The disk of the log is full. Nothing was revoked.
    #[error("{}", RevocationsDown::LogFull)]
    LogFull,
    /// The log on disk has failed. Nothing is revoked, or only after a restart.
    #[error("{}", RevocationsDown::LogFailed)]
    LogFailed,
    /// Redis is unavailable, and nothing was revoked; or not every instance answered, and the
    /// revocation may be in force. Repeating it is safe.
    #[error(transparent)]
    Instances(#[from] ChangeError),
}

impl RevokeError {
    /// The stable code.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::AtCapacity => ErrorCode::AtCapacity,
            Self::LogFull => ErrorCode::LogFull,
            Self::LogFailed => ErrorCode::LogFailed,
            Self::Instances(error) => error.error_code(),
        }
    }
}

impl Hub {
    /// The open streams of all instances, at most 10,000 of each instance, in any order.
    ///
    /// # Errors
    /// Redis is unavailable, or an instance did not answer in time.
    pub async fn streams(&self, filter: StreamFilter) -> Result<Vec<StreamInfo>, ChangeError> {
        let operator = MayOperate::of_application();
        Ok(self.parts().instances.streams_everywhere(filter, usize::MAX, operator).await?)
    }

    /// Ends streams on all instances, for example after a logout. They get `shutdown` with this
    /// reason, and nothing more. Returns their number, once all have ended. A client may return: its
    /// login must refuse it.
    ///
    /// # Errors
    /// Redis is unavailable, and no stream has ended; or an instance did not answer in time.
    /// Repeating the call is safe.
    pub async fn end_streams(
        &self,
        filter: StreamFilter,
        reason: ShutdownReason,
    ) -> Result<usize, ChangeError> {
        let operator = MayOperate::of_application();
        Ok(self.parts().instances.end_everywhere(filter, reason, operator).await?)
    }

    /// Revokes tokens, and ends their streams on all instances. Returns the number of ended streams,
    /// once none of them gets anything more. Until the tokens would have ended
    /// (`access.revocations_kept`), they are refused.
    ///
    /// # Errors
    /// See [`RevokeError`].
    pub async fn revoke(&self, revoked: Revoked) -> Result<usize, RevokeError> {
        self.revoke_by(revoked, MayOperate::of_application()).await
    }

    /// [`Self::revoke`] by an operator.
    pub(crate) async fn revoke_by(
        &self,
        revoked: Revoked,
        operator: MayOperate,
    ) -> Result<usize, RevokeError> {
        let parts = self.parts();
        if !parts.instances.cluster.status().is_up {
            return Err(ChangeError::BridgeDown.into());
        }
        if !parts.instances.revocations.has_room() {
            return Err(RevokeError::AtCapacity);
        }
        let revocation = Revocation { revoked, at_ms: unix_ms() };
        // First for instances started later, and for a restart: if this fails, nothing is revoked.
        if let Some(store) = &parts.kept_revocations {
            let oldest_ms = parts.instances.revocations.oldest_ms(revocation.at_ms);
            let kept = store.keep(revocation.clone(), oldest_ms).await;
            kept.map_err(|error| match error {
                RevocationsDown::BridgeDown => RevokeError::from(ChangeError::BridgeDown),
                RevocationsDown::LogFull => RevokeError::LogFull,
                RevocationsDown::LogFailed => RevokeError::LogFailed,
            })?;
        }
        let ended = parts.instances.revoke_everywhere(revocation, operator).await;
        Ok(ended.map_err(ChangeError::from)?)
    }

    /// Renews the grant of a stream. Returns the topics it has lost.
    pub(crate) async fn renew(
        &self,
        client_id: &str,
        grant: &Arc<Grant>,
    ) -> Result<Vec<String>, ChangeError> {
        Ok(self.parts().instances.renew_everywhere(client_id, grant).await?)
    }
}
