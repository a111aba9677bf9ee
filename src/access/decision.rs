//! The seam to the application's own decision: the webhook, or an embedder's authorizer.

use std::sync::Arc;

use actix_web::dev::RequestHead;
use fanfare_core::access::{AskedCaller, Rights};
use futures_util::future::{BoxFuture, LocalBoxFuture};

use crate::access::Action;

/// Decides about callers without a valid token.
pub(crate) trait Decide: Send + Sync {
    /// The grant of the caller of a request.
    fn decide<'a>(
        &'a self,
        head: &'a RequestHead,
        action: Action<'a>,
    ) -> LocalBoxFuture<'a, Result<Decision, Refused>>;

    /// A later grant of a caller with an open stream of these topics.
    fn decide_again(
        &self,
        _: Arc<AskedCaller>,
        _: Vec<String>,
    ) -> BoxFuture<'static, Result<Decision, Refused>> {
        Box::pin(async { Err(Refused::Unauthenticated) })
    }
}

/// The application's decision.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    pub user: Option<String>,
    pub rights: Arc<Rights>,
    /// The time of the decision, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its end, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// The caller to ask about again at the end.
    pub asked: Option<Arc<AskedCaller>>,
}

/// Why the application grants nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Unauthenticated,
    Forbidden,
    /// No answer.
    Unavailable,
}
