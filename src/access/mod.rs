//! Access control of a hub: from a request's head to the grant of its caller. `tokens` has the seam
//! to the verification of tokens, `decision` the seam to the application's own decision. The grants
//! themselves are decided in the core.

#![allow(dead_code, reason = "only tokens and webhook, features, use all of it")]

mod authorizer;
mod decision;
mod first_look;
mod latest_grants;
mod memory_tickets;
mod presented;
mod rules;
mod tickets;
mod tokens;

use std::{sync::Arc, time::Instant};

use actix_web::{dev::RequestHead, http::header::COOKIE};
use fanfare_core::{
    access::{Credential, Grant, parse_user},
    error::AccessError,
    subscription::Subscription,
    topic_manager::Question,
    user::{User, UserError},
};
use futures_util::{FutureExt, future::LocalBoxFuture};

pub(crate) use self::authorizer::ByAuthorizer;
pub use self::authorizer::{Authorization, Authorizer, Denied};
#[cfg(feature = "tokens")]
pub(crate) use self::first_look::is_first_look;
pub(crate) use self::{
    decision::{Decide, Decision, Refused},
    first_look::first_look,
    memory_tickets::MemoryTickets,
    presented::Presented,
    tickets::{IssuedTicket, ShownTicket, Tickets, UsedMeanwhile},
    tokens::{Claims, TokenRefusal, TokenVerifier},
};

use self::{latest_grants::LatestGrants, rules::Rules};
use crate::{
    actors::topic_manager::AskAgain,
    clock::{now, unix_ms},
    config,
    revocations::Revocations,
};

/// The token is revoked.
const REVOKED: AccessError = AccessError::Unauthenticated { reason: "revoked" };

fn unauthenticated(refused: TokenRefusal) -> AccessError {
    AccessError::Unauthenticated { reason: refused.as_str() }
}

impl From<Refused> for AccessError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unauthenticated => Self::Unauthenticated { reason: "application" },
            Refused::Forbidden => Self::Forbidden { names: Vec::new() },
            Refused::Unavailable => Self::Down,
        }
    }
}

impl AskAgain for Access {
    fn ask_again(&self, question: Question) -> LocalBoxFuture<'_, Result<Arc<Grant>, AccessError>> {
        async move { self.decided_again(&question.grant, question.names()).await }.boxed_local()
    }
}

/// A request's intention, for the application's decision.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action<'a> {
    /// Read these topics and patterns.
    Subscribe(&'a [String]),
    /// Publish to these topics, or change something.
    Publish(&'a [String]),
}

/// The access control of a hub.
pub(crate) struct Access {
    config: config::Access,
    rules: Rules,
    verifier: Option<Arc<dyn TokenVerifier>>,
    decider: Option<Arc<dyn Decide>>,
    revocations: Arc<Revocations>,
    latest: LatestGrants,
}

impl Access {
    /// `config` must be valid.
    pub fn new(
        config: config::Access,
        verifier: Option<Arc<dyn TokenVerifier>>,
        decider: Option<Arc<dyn Decide>>,
        revocations: Arc<Revocations>,
    ) -> Self {
        let (rules, latest) = (Rules::new(&config.rules), LatestGrants::default());
        Self { rules, config, verifier, decider, revocations, latest }
    }

    /// The grant of a request's caller.
    ///
    /// # Errors
    /// The request has an invalid credential, or the application's decision is unavailable. A
    /// request without a credential gets the grant of anonymous callers.
    pub async fn grant_of(
        &self,
        head: &RequestHead,
        action: Action<'_>,
    ) -> Result<Arc<Grant>, AccessError> {
        match self.grant_without_topics(head).await? {
            Some(grant) => Ok(grant),
            None => self.decided(head, action).await,
        }
    }

    /// The grant of a request's caller, before its topics are known. `None` if the application
    /// decides, see [`Self::grant_of`].
    ///
    /// # Errors
    /// The request has an invalid credential.
    pub async fn grant_without_topics(
        &self,
        head: &RequestHead,
    ) -> Result<Option<Arc<Grant>>, AccessError> {
        if !self.config.enabled {
            return Ok(Some(Grant::everything()));
        }
        let presented = Presented::of(head, &self.config.cookie);
        let now_ms = unix_ms();
        let mut refused = TokenRefusal::Malformed;
        if let Some(token) = presented.token() {
            match self.verified(token, now_ms).await? {
                Ok(claims) => return self.grant_of_claims(claims, now_ms).map(Some),
                Err(invalid) => refused = invalid,
            }
        }
        match &self.decider {
            Some(_) => Ok(None),
            None if presented.is_none() => Ok(Some(self.rules.anonymous())),
            None => Err(unauthenticated(refused)),
        }
    }

    /// The grant of a caller by the application.
    async fn decided(
        &self,
        head: &RequestHead,
        action: Action<'_>,
    ) -> Result<Arc<Grant>, AccessError> {
        let decider = self.decider.as_ref().ok_or_else(AccessError::no_token)?;
        let decision = decider.decide(head, action).await?;
        let grant = self.grant_of_application(decision, unix_ms())?;
        self.unrevoked(Arc::new(grant))
    }

    /// A later grant of the owner of `grant`, by the application.
    pub(crate) async fn decided_again(
        &self,
        grant: &Grant,
        topics: Vec<String>,
    ) -> Result<Arc<Grant>, AccessError> {
        let asked = self.decider.as_ref().zip(grant.asked());
        let (decider, caller) = asked.ok_or_else(AccessError::no_token)?;
        let decision = decider.decide_again(caller.clone(), topics).await?;
        let later = self.grant_of_application(decision, unix_ms())?.narrowed_like(grant);
        self.unrevoked(Arc::new(later.map_err(|_| AccessError::no_token())?))
    }

    /// The grant of a shown ticket. After its end, the application decides again, for the same user.
    ///
    /// # Errors
    /// Its token has ended or is revoked, or the application refuses.
    pub async fn grant_of_ticket(
        &self,
        grant: Arc<Grant>,
        topics: &[String],
    ) -> Result<Arc<Grant>, AccessError> {
        // Also with a later decision: the ticket itself was issued before the revocation.
        let grant = self.unrevoked(grant)?;
        if !grant.has_ended(now()) {
            return Ok(grant);
        }
        if grant.asked().is_none() {
            return Err(unauthenticated(TokenRefusal::Expired));
        }
        let later = self.decided_again(&grant, topics.to_vec()).await?;
        if later.user() == grant.user() { Ok(later) } else { Err(AccessError::no_token()) }
    }

    /// The grant of a stream opened by the application's own handler, with the user and the end
    /// named there.
    ///
    /// # Errors
    /// The user is invalid.
    pub fn grant_of_subscription(
        &self,
        subscription: &Subscription,
    ) -> Result<Arc<Grant>, UserError> {
        let (user, end) = subscription.login();
        let grant = self.grant_of_handler(user.map(parse_user).transpose()?);
        Ok(match end {
            Some(end) => Arc::new(Grant::clone(&grant).until(end, now(), unix_ms())),
            None => grant,
        })
    }

    /// The grant of a stream opened by the application's own handler.
    pub fn grant_of_handler(&self, user: Option<User>) -> Arc<Grant> {
        match (self.config.enabled, user) {
            (true, user) => Arc::new(Grant::of_application(user, unix_ms())),
            (false, None) => Grant::everything(),
            (false, user) => Arc::new(Grant::open(user)),
        }
    }

    /// The claims of a valid token, or the problem of an invalid one.
    async fn verified(
        &self,
        token: &str,
        now_ms: u64,
    ) -> Result<Result<Claims, TokenRefusal>, AccessError> {
        let Some(verifier) = &self.verifier else { return Ok(Err(TokenRefusal::UnknownKey)) };
        let mut verified = verifier.verify(token, now_ms);
        // A key could be newer than the last fetch of keys.
        let lacks_key = matches!(verified, Err(TokenRefusal::UnknownKey | TokenRefusal::NoKeys));
        if lacks_key && verifier.refresh().await {
            verified = verifier.verify(token, now_ms);
        }
        match verified {
            Err(TokenRefusal::NoKeys) => Err(AccessError::Down),
            verified => Ok(verified),
        }
    }

    /// The grant of a token in the body of a request.
    ///
    /// # Errors
    /// The token is invalid.
    pub async fn grant_of_token(&self, token: &str) -> Result<Arc<Grant>, AccessError> {
        let now_ms = unix_ms();
        let claims = self.verified(token, now_ms).await?.map_err(unauthenticated)?;
        self.grant_of_claims(claims, now_ms)
    }

    /// Checks a grant again, during a long request.
    ///
    /// # Errors
    /// Its token has ended or is revoked.
    pub fn check_again(&self, grant: &Grant) -> Result<(), AccessError> {
        self.check_at(grant, now())
    }

    /// Checks a grant for a further event of a request: with the leeway of an admission, like an
    /// event with a request of its own.
    ///
    /// # Errors
    /// As for [`Self::check_again`].
    pub fn check_event(&self, grant: &Grant) -> Result<(), AccessError> {
        self.check_at(grant, now().checked_sub(self.config.leeway).unwrap_or_else(now))
    }

    fn check_at(&self, grant: &Grant, at: Instant) -> Result<(), AccessError> {
        match (grant.has_ended(at), self.revocations.covers(grant)) {
            (true, _) => Err(unauthenticated(TokenRefusal::Expired)),
            (_, true) => Err(REVOKED),
            _ => Ok(()),
        }
    }

    fn grant_of_claims(&self, claims: Claims, now_ms: u64) -> Result<Arc<Grant>, AccessError> {
        let Claims { user, token_id, issued_at_s, expires_at_s, rights } = claims;
        let user = user.as_deref().map(parse_user).transpose();
        let user = user.map_err(|_| unauthenticated(TokenRefusal::BadClaims))?;
        let id = token_id.map(String::into_boxed_str);
        let credential = Credential::Token { id, issued_at_s };
        let sources = self.rules.of(user.as_ref()).chain([rights]);
        let grant = Grant::new(user.clone(), credential, sources);
        let grant = grant.until(expires_at_s.saturating_mul(1000), now(), now_ms);
        self.unrevoked(self.latest.share(grant))
    }

    /// A cached decision may be older than a revocation, too.
    fn unrevoked(&self, grant: Arc<Grant>) -> Result<Arc<Grant>, AccessError> {
        if !self.revocations.is_loaded() {
            return Err(AccessError::Down);
        }
        if self.revocations.covers(&grant) { Err(REVOKED) } else { Ok(grant) }
    }

    fn grant_of_application(&self, decision: Decision, now_ms: u64) -> Result<Grant, AccessError> {
        let Decision { user, rights, at_ms, expires_at_ms, asked } = decision;
        let user = user.as_deref().map(parse_user).transpose();
        let user = user.map_err(|_| unauthenticated(TokenRefusal::BadClaims))?;
        let sources = self.rules.of(user.as_ref()).chain([rights]);
        let grant = Grant::new(user.clone(), Credential::Application { at_ms }, sources);
        let grant = match expires_at_ms {
            Some(end) => grant.until(end, now(), now_ms),
            None => grant,
        };
        Ok(match asked {
            Some(caller) => grant.asked_about(caller),
            None => grant,
        })
    }

    /// Whether a browser may have sent the credential by itself, for a page of any site. With the
    /// application's decision, any cookie may be one.
    pub fn is_by_cookie(&self, head: &RequestHead) -> bool {
        let is_cookie = || match &self.decider {
            Some(_) => head.headers.contains_key(COOKIE),
            None => Presented::of(head, &self.config.cookie).is_by_cookie(),
        };
        self.config.enabled && is_cookie()
    }
}
