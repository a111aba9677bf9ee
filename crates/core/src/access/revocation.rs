//! Revocations: the grants of tokens refused before their end.

use serde::{Deserialize, Serialize};

use crate::{
    access::{Credential, Grant},
    future::BoxFuture,
};

/// The revoked tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Revoked {
    /// The token with this `jti`.
    TokenId(String),
    /// All of a user's tokens issued before a time; without a time, until the revocation.
    User { user: String, issued_before_s: Option<u64> },
}

/// A revocation, and its moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub revoked: Revoked,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

impl Revocation {
    /// Whether the grant is of a revoked token. A token without `iat` counts as older. Without a
    /// time, a token of the same second counts as older too: `iat` has no milliseconds.
    pub fn covers(&self, grant: &Grant) -> bool {
        match (&self.revoked, grant.credential()) {
            (Revoked::TokenId(revoked), Credential::Token { id: Some(id), .. }) => {
                **id == **revoked
            }
            (Revoked::TokenId(_), _) => false,
            (Revoked::User { user, issued_before_s }, credential) => {
                grant.user().is_some_and(|one| one.as_str() == user)
                    && self.is_older(credential, *issued_before_s)
            }
        }
    }

    fn is_older(&self, credential: &Credential, before_s: Option<u64>) -> bool {
        match credential {
            Credential::None => false,
            Credential::Token { issued_at_s: None, .. } => true,
            Credential::Token { issued_at_s: Some(at_s), .. } => {
                *at_s < before_s.unwrap_or(self.at_ms / 1000 + 1)
            }
            Credential::Application { at_ms } => {
                *at_ms <= before_s.map_or(self.at_ms, |before| (before * 1000).saturating_sub(1))
            }
        }
    }
}

/// The kept revocations are unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevocationsDown {
    /// Redis is unavailable.
    #[error("Redis is unavailable: no token can be revoked now")]
    BridgeDown,
    /// The disk of the log is full; nothing was kept.
    #[error("the disk of the log is full: no token can be revoked now")]
    LogFull,
    /// The log on disk has failed; the revocation may be kept.
    #[error("the log on disk has failed: no token can be revoked until a restart")]
    LogFailed,
}

/// Keeps revocations for all instances: also for one started later, or cut off for a while.
pub trait RevocationStore: Send + Sync {
    /// Keeps a revocation, and forgets those from before a time in milliseconds since 1970.
    fn keep(
        &self,
        revocation: Revocation,
        oldest_ms: u64,
    ) -> BoxFuture<'static, Result<(), RevocationsDown>>;

    /// The kept revocations since a time in milliseconds since 1970, oldest first.
    fn since(&self, from_ms: u64) -> BoxFuture<'static, Result<Vec<Revocation>, RevocationsDown>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::parse_user;

    fn grant(user: &str, credential: Credential) -> Grant {
        Grant::new(Some(parse_user(user).unwrap()), credential, [])
    }

    fn token(user: &str, id: &str, issued_at_s: Option<u64>) -> Grant {
        grant(user, Credential::Token { id: Some(id.into()), issued_at_s })
    }

    #[test]
    fn a_user_s_tokens_issued_until_now_are_revoked() {
        let revoked = Revoked::User { user: "42".into(), issued_before_s: None };
        let revocation = Revocation { revoked, at_ms: 10_500 };
        assert!(revocation.covers(&token("42", "a", Some(9))));
        assert!(revocation.covers(&token("42", "a", Some(10))));
        assert!(revocation.covers(&token("42", "a", None)));
        assert!(!revocation.covers(&token("42", "a", Some(11))));
        assert!(!revocation.covers(&token("43", "a", Some(9))));
        assert!(revocation.covers(&grant("42", Credential::Application { at_ms: 10_500 })));
        assert!(!revocation.covers(&grant("42", Credential::Application { at_ms: 10_501 })));
    }

    #[test]
    fn a_time_and_a_token_id_name_fewer_tokens() {
        let revoked = Revoked::User { user: "42".into(), issued_before_s: Some(5) };
        let before = Revocation { revoked, at_ms: 10_500 };
        assert!(before.covers(&token("42", "a", Some(4))));
        assert!(!before.covers(&token("42", "a", Some(5))));
        let one = Revocation { revoked: Revoked::TokenId("a".into()), at_ms: 0 };
        assert!(one.covers(&token("42", "a", Some(99))));
        assert!(!one.covers(&token("42", "b", Some(1))));
        assert!(!one.covers(&grant("42", Credential::Application { at_ms: 0 })));
    }
}
