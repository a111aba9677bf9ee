//! Proofs of a checked grant. A part of the hub with a proof among its arguments does not compile
//! without the check.

use crate::{access::Grant, error::AccessError, topic::Topic};

/// The caller may operate the hub: read its counters, list and end streams, list followers, revoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MayOperate(());

/// The caller may read this topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MayRead(Topic);

impl MayOperate {
    /// The hub itself, or its application.
    pub fn of_application() -> Self {
        Self(())
    }
}

impl MayRead {
    pub fn into_topic(self) -> Topic {
        self.0
    }
}

impl Grant {
    /// Whether the caller may operate the hub: `manage` of all topics.
    ///
    /// # Errors
    /// The caller may not.
    pub fn to_operate(&self) -> Result<MayOperate, AccessError> {
        self.require(self.may_manage("**")).map(|()| MayOperate(()))
    }

    /// Whether the caller may read the topic.
    ///
    /// # Errors
    /// The caller may not.
    pub fn to_read(&self, topic: Topic) -> Result<MayRead, AccessError> {
        self.check_subscribe([topic.as_str()]).map(|()| MayRead(topic))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::access::{Credential, parse_user};

    #[test]
    fn only_a_grant_gives_a_proof() {
        let grant = |json: &str| {
            let rights = Arc::new(serde_json::from_str(json).unwrap());
            let credential = Credential::Token { id: None, issued_at_s: None };
            Grant::new(Some(parse_user("7").unwrap()), credential, [rights])
        };
        let topic = || Topic::parse("a:1").unwrap();
        let some = grant(r#"{"subscribe":["a:*"],"manage":["notifications:8"]}"#);
        assert!(some.to_operate().is_err() && some.to_read(topic()).is_ok());
        let all = grant(r#"{"manage":["**"]}"#);
        assert!(all.to_operate().is_ok() && all.to_read(topic()).is_err());
        assert!(Grant::everything().to_operate().is_ok());
    }
}
