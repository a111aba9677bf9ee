//! Signed tokens: keys, key sets (JWKS), the check of a token, and signing.
//!
//! Not here: the grant in a token (`fanfare_core::access`), fetching a JWKS, and the clock.
//!
//! Applications depend on `fanfare`. The items here carry no promise of stability.

#![forbid(unsafe_code)]

mod claims;
mod jwks;
mod jwt;
mod key_set;
mod key_text;

pub use claims::{TokenClaims, Untimely};
pub use jwks::{JwksError, MAX_JWKS_BYTES, ReadJwks, read_jwks};
pub use jwt::{Expected, KeyError, SigningKey, Unverified, VerifyingKey};
pub use key_set::{KeySet, MAX_KEYS, MAX_TOKEN_BYTES, NotVerified, verify};
pub use key_text::{KeyTextError, MAX_KEY_BYTES, key_of_environment, key_of_file, read_bounded};
