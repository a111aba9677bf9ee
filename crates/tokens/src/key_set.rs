//! A set of keys, and the check of a token by the keys it may use.

use super::{
    claims::TokenClaims,
    jwt::{Expected, TokenHead, Unverified, VerifyingKey},
};

/// Longest token, in bytes. Heads of requests have at most 8 KiB.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Most keys of a set: a token without `kid` tries each key of its algorithm.
pub const MAX_KEYS: usize = 32;

/// Keys to check signatures with.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<VerifyingKey>,
}

/// Why the keys refuse a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotVerified {
    /// The token names a key outside of the set.
    UnknownKey,
    By(Unverified),
}

impl KeySet {
    /// Keys past [`MAX_KEYS`] are dropped.
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        Self { keys: keys.into_iter().take(MAX_KEYS).collect() }
    }

    pub fn count(&self) -> usize {
        self.keys.len()
    }

    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// The keys this token may be signed with: those of its `kid`, or, without one, all. A key of
    /// another algorithm than the header's is no candidate.
    fn candidates<'a>(&'a self, head: &'a TokenHead) -> impl Iterator<Item = &'a VerifyingKey> {
        let may_be = |key: &&VerifyingKey| {
            key.algorithm == head.algorithm && (head.kid.is_none() || key.kid == head.kid)
        };
        self.keys.iter().filter(may_be)
    }
}

/// Checks a token against the keys of all sets.
pub fn verify(
    sets: &[&KeySet],
    token: &str,
    expected: &Expected,
) -> Result<TokenClaims, NotVerified> {
    let malformed = NotVerified::By(Unverified::Malformed);
    let head = Some(token).filter(|token| token.len() <= MAX_TOKEN_BYTES).and_then(TokenHead::of);
    let head = head.ok_or(malformed)?;
    if let Some(kid) = &head.kid
        && !sets.iter().any(|set| set.has(kid))
    {
        return Err(NotVerified::UnknownKey);
    }
    // Without a candidate, no key has signed it.
    let mut refused = NotVerified::By(Unverified::Signature);
    for key in sets.iter().flat_map(|set| set.candidates(&head)) {
        match key.verify(token, expected) {
            Ok(claims) => return Ok(claims),
            // Another key may have signed it.
            Err(Unverified::Signature) => {}
            Err(why) => refused = NotVerified::By(why),
        }
    }
    Err(refused)
}
