//! Key sets in JSON (RFC 7517 §5).

use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::Value;

use super::{
    jwt::VerifyingKey,
    key_set::{KeySet, MAX_KEYS},
};

/// Longest JWKS, in bytes. Providers publish a few kilobytes.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;

/// The text is no key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    #[error("not a JSON object with a list `keys`")]
    NotAKeySet,
    #[error("no key in it can check tokens")]
    NoKey,
    #[error("more than {MAX_KEYS} keys")]
    TooMany,
}

/// A key set as read.
pub struct ReadJwks {
    pub keys: KeySet,
    /// Keys of other purposes, or of unknown algorithms.
    pub skipped_count: usize,
}

#[derive(Deserialize)]
struct KeySetJson {
    keys: Vec<Value>,
}

/// Reads a key set. Keys of other purposes are skipped (RFC 7517 §5). `are_secret`: the text is
/// from a place safe for shared secrets.
///
/// # Errors
/// The text is no key set, or has no usable key: such a set would refuse every token.
pub fn read_jwks(text: &[u8], are_secret: bool) -> Result<ReadJwks, JwksError> {
    let set: KeySetJson = serde_json::from_slice(text).map_err(|_| JwksError::NotAKeySet)?;
    let listed_count = set.keys.len();
    let usable = set.keys.into_iter().filter_map(|key| {
        let jwk: Jwk = serde_json::from_value(key).ok()?;
        VerifyingKey::of_jwk(&jwk, are_secret).ok()
    });
    let usable: Vec<VerifyingKey> = usable.take(MAX_KEYS + 1).collect();
    match usable.len() {
        0 => Err(JwksError::NoKey),
        count if count > MAX_KEYS => Err(JwksError::TooMany),
        count => Ok(ReadJwks { keys: KeySet::new(usable), skipped_count: listed_count - count }),
    }
}
