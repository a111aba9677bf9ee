//! The seam to the verification of tokens.

use std::sync::Arc;

use fanfare_core::access::Rights;
use futures_util::future::BoxFuture;

/// Verifies tokens by their keys.
pub(crate) trait TokenVerifier: Send + Sync {
    /// Checks a token at this time, in milliseconds since 1970.
    ///
    /// # Errors
    /// The token is invalid.
    fn verify(&self, token: &str, now_ms: u64) -> Result<Claims, TokenRefusal>;

    /// Fetches new keys, after [`TokenRefusal::UnknownKey`] or [`TokenRefusal::NoKeys`]. Returns whether there may be new ones.
    fn refresh(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }
}

/// The contents of a valid token.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    /// `sub`.
    pub user: Option<String>,
    /// `jti`.
    pub token_id: Option<String>,
    /// `iat`.
    pub issued_at_s: Option<u64>,
    /// `exp`.
    pub expires_at_s: u64,
    /// The claim `fanfare`.
    pub rights: Arc<Rights>,
}

/// Why a token is invalid. No variant has a part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenRefusal {
    /// No token of the expected form and size.
    Malformed,
    /// No keys could be read yet.
    NoKeys,
    /// No key has the token's `kid`, or its algorithm.
    UnknownKey,
    BadSignature,
    Expired,
    NotYetValid,
    WrongIssuer,
    WrongAudience,
    /// Another claim is missing or of the wrong type.
    BadClaims,
}

impl TokenRefusal {
    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoKeys => "no_keys",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::BadClaims => "bad_claims",
        }
    }
}
