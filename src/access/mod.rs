//! Access control of a hub: from a request's head to the grant of its caller. `tokens` has the seam
//! to the verification of tokens, `decision` the seam to the application's own decision. The grants
//! themselves are decided in the core.

#![allow(dead_code, reason = "the entry points follow")]

mod decision;
mod presented;
mod rules;
mod tokens;

use std::sync::Arc;

use actix_web::dev::RequestHead;
use fanfare_core::{
    access::{Credential, Grant, parse_user},
    error::AccessError,
};

pub(crate) use self::{
    decision::{Decide, Decision, Refused},
    presented::Presented,
    tokens::{Claims, TokenRefusal, TokenVerifier},
};

use self::rules::Rules;
use crate::{
    actors::{now, unix_ms},
    config,
};

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
}

impl Access {
    /// `config` must be valid.
    pub fn new(
        config: config::Access,
        verifier: Option<Arc<dyn TokenVerifier>>,
        decider: Option<Arc<dyn Decide>>,
    ) -> Self {
        Self { rules: Rules::new(&config.rules), config, verifier, decider }
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
        if !self.config.enabled {
            return Ok(Grant::everything());
        }
        let presented = Presented::of(head, &self.config.cookie);
        let now_ms = unix_ms();
        if let Some(token) = presented.token()
            && let Some(claims) = self.verified(token, now_ms).await?
        {
            return self.grant_of_token(claims, now_ms);
        }
        match &self.decider {
            Some(decider) => match decider.decide(head, action).await {
                Ok(decision) => self.grant_of_application(decision, now_ms),
                Err(Refused::Unauthenticated) => Err(AccessError::Unauthenticated),
                Err(Refused::Forbidden) => Err(AccessError::Forbidden { names: Vec::new() }),
                Err(Refused::Unavailable) => Err(AccessError::Down),
            },
            None if presented.is_none() => Ok(self.rules.anonymous()),
            None => Err(AccessError::Unauthenticated),
        }
    }

    /// The claims of a valid token; `None` for an invalid one.
    async fn verified(&self, token: &str, now_ms: u64) -> Result<Option<Claims>, AccessError> {
        let Some(verifier) = &self.verifier else { return Ok(None) };
        let mut verified = verifier.verify(token, now_ms);
        // A key could be newer than the last fetch of keys.
        let lacks_key = matches!(verified, Err(TokenRefusal::UnknownKey | TokenRefusal::NoKeys));
        if lacks_key && verifier.refresh().await {
            verified = verifier.verify(token, now_ms);
        }
        match verified {
            Ok(claims) => Ok(Some(claims)),
            Err(TokenRefusal::NoKeys) => Err(AccessError::Down),
            Err(refused) => {
                tracing::debug!(reason = refused.as_str(), "token refused");
                Ok(None)
            }
        }
    }

    fn grant_of_token(&self, claims: Claims, now_ms: u64) -> Result<Arc<Grant>, AccessError> {
        let Claims { user, token_id, issued_at_s, expires_at_s, rights } = claims;
        let user = user.as_deref().map(parse_user).transpose();
        let user = user.map_err(|_| AccessError::Unauthenticated)?;
        let id = token_id.map(String::into_boxed_str);
        let credential = Credential::Token { id, issued_at_s };
        let sources = self.rules.of(user.as_ref()).chain([rights]);
        let grant = Grant::new(user.clone(), credential, sources);
        Ok(Arc::new(grant.until(expires_at_s.saturating_mul(1000), now(), now_ms)))
    }

    fn grant_of_application(
        &self,
        decision: Decision,
        now_ms: u64,
    ) -> Result<Arc<Grant>, AccessError> {
        let Decision { user, rights, at_ms, expires_at_ms } = decision;
        let user = user.as_deref().map(parse_user).transpose();
        let user = user.map_err(|_| AccessError::Unauthenticated)?;
        let sources = self.rules.of(user.as_ref()).chain([rights]);
        let grant = Grant::new(user.clone(), Credential::Application { at_ms }, sources);
        Ok(Arc::new(match expires_at_ms {
            Some(end) => grant.until(end, now(), now_ms),
            None => grant,
        }))
    }
}
