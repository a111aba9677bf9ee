//! An embedding application's own decision about callers, by its session or login.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use actix_web::dev::RequestHead;
use fanfare_core::access::{Rights, RightsError, RightsText};
use futures_util::future::LocalBoxFuture;

use super::{Action, Decide, Decision, Refused};
use crate::clock::unix_ms;

/// Decides about the callers of the hub's endpoints, for an application with its own sessions.
///
/// A valid token decides without it. Its rights add to those of the rules.
///
/// ```
/// use actix_web::dev::RequestHead;
/// use fanfare::{Authorization, Authorizer, Denied};
///
/// struct Sessions;
///
/// impl Authorizer for Sessions {
///     async fn authorize(&self, request: &RequestHead) -> Result<Authorization, Denied> {
///         let user = request.headers.get("x-user").and_then(|user| user.to_str().ok());
///         let user = user.ok_or(Denied::Unauthenticated)?;
///         Ok(Authorization::of(user).subscribe(["notifications:{user}"]))
///     }
/// }
/// ```
pub trait Authorizer: Send + Sync + 'static {
    /// The rights of the caller with this request.
    fn authorize(
        &self,
        request: &RequestHead,
    ) -> impl Future<Output = Result<Authorization, Denied>>;
}

/// Why a caller has no rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denied {
    /// No login: 401.
    Unauthenticated,
    /// A login without rights: 403.
    Forbidden,
    /// The store of the sessions is unavailable: 503 `access_down`.
    Unavailable,
}

/// The user and the rights of a caller.
#[derive(Debug, Clone, Default)]
pub struct Authorization {
    user: Option<String>,
    rights: RightsText,
    end: Option<SystemTime>,
}

impl Authorization {
    /// A caller without a user.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// A user: one segment of a topic.
    pub fn of(user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..Self::default() }
    }

    /// Patterns to subscribe to; `{user}` stands for the user.
    #[must_use]
    pub fn subscribe<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.rights.subscribe.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Patterns to publish to.
    #[must_use]
    pub fn publish<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.rights.publish.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Patterns to manage.
    #[must_use]
    pub fn manage<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.rights.manage.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Ends the caller's streams at this time.
    #[must_use]
    pub fn until(mut self, end: SystemTime) -> Self {
        self.end = Some(end);
        self
    }

    fn decision(self) -> Result<Decision, RightsError> {
        let at_ms = unix_ms();
        let since_1970 = |end: SystemTime| end.duration_since(SystemTime::UNIX_EPOCH);
        let end = self.end.map(|end| since_1970(end).unwrap_or(Duration::ZERO));
        Ok(Decision {
            user: self.user,
            rights: Arc::new(Rights::try_from(self.rights)?),
            at_ms,
            expires_at_ms: end.map(|end| end.as_millis() as u64),
            asked: None,
        })
    }
}

/// An application's authorizer as the decision of callers.
pub(crate) struct ByAuthorizer<A>(pub A);

impl<A: Authorizer> Decide for ByAuthorizer<A> {
    fn decide<'a>(
        &'a self,
        head: &'a RequestHead,
        _: Action<'a>,
    ) -> LocalBoxFuture<'a, Result<Decision, Refused>> {
        Box::pin(async {
            let authorized = self.0.authorize(head).await;
            let authorization = authorized.map_err(|denied| match denied {
                Denied::Unauthenticated => Refused::Unauthenticated,
                Denied::Forbidden => Refused::Forbidden,
                Denied::Unavailable => Refused::Unavailable,
            })?;
            authorization.decision().map_err(|error| {
                tracing::error!(%error, "the authorizer gave invalid patterns");
                Refused::Forbidden
            })
        })
    }
}
