//! The verification of tokens by the configured keys and by a key set fetched now and then.
//!
//! Not here: tokens and keys themselves (`fanfare_tokens`), and the grant (`access`).

mod key_refresh;
mod known_rights;

use fanfare_tokens::{Expected, KeySet, NotVerified, TokenClaims, Untimely, Unverified};
use futures_util::future::BoxFuture;

pub(crate) use self::key_refresh::FetchedKeys;

use self::known_rights::KnownRights;
use crate::{
    access::{Claims, TokenRefusal, TokenVerifier},
    config,
};

/// All keys of a hub.
pub(crate) struct Keys {
    configured: KeySet,
    fetched: Option<FetchedKeys>,
    expected: Expected,
    leeway_ms: u64,
    rights: KnownRights,
}

impl Keys {
    /// `None` without any source of keys. `config` must be valid; a key unreadable since then is
    /// skipped and logged.
    pub fn new(config: &config::Access, fetched: Option<FetchedKeys>) -> Option<Self> {
        if config.keys.is_empty() && fetched.is_none() {
            return None;
        }
        let configured = config.keys.iter().enumerate().filter_map(|(index, key)| {
            let read = key.verifying();
            read.inspect_err(|error| tracing::error!(index, %error, "key skipped")).ok()
        });
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Some(Self {
            configured: KeySet::new(configured),
            fetched,
            expected: Expected { issuer: given(&config.issuer), audience: given(&config.audience) },
            leeway_ms: config.leeway.as_millis() as u64,
            rights: KnownRights::default(),
        })
    }

    /// The contents of a verified token.
    fn contents(&self, claims: TokenClaims) -> Result<Claims, TokenRefusal> {
        let expires_at_s = claims.expires_at_s();
        let TokenClaims { sub, jti, iat, fanfare, .. } = claims;
        let rights = self.rights.of(fanfare).map_err(|_| TokenRefusal::BadClaims)?;
        Ok(Claims { user: sub, token_id: jti, issued_at_s: iat, expires_at_s, rights })
    }
}

impl TokenVerifier for Keys {
    fn verify(&self, token: &str, now_ms: u64) -> Result<Claims, TokenRefusal> {
        let fetched = self.fetched.as_ref().map(FetchedKeys::current);
        let is_unread = matches!(fetched, Some(None));
        let fetched = fetched.flatten().unwrap_or_default();
        let verified = fanfare_tokens::verify(&[&self.configured, &fetched], token, &self.expected);
        let claims = verified.map_err(|why| refusal(why, is_unread))?;
        claims.check_times(now_ms, self.leeway_ms).map_err(|why| match why {
            Untimely::Expired => TokenRefusal::Expired,
            Untimely::NotYetValid => TokenRefusal::NotYetValid,
        })?;
        self.contents(claims)
    }

    fn refresh(&self) -> BoxFuture<'_, bool> {
        match &self.fetched {
            Some(fetched) => Box::pin(fetched.refresh()),
            None => Box::pin(async { false }),
        }
    }
}

/// The meaning of a refusal. `is_unread`: a configured key set was never read.
fn refusal(why: NotVerified, is_unread: bool) -> TokenRefusal {
    match why {
        NotVerified::By(Unverified::Malformed) => TokenRefusal::Malformed,
        // The right key may be in the set.
        NotVerified::UnknownKey | NotVerified::By(Unverified::Signature) if is_unread => {
            TokenRefusal::NoKeys
        }
        NotVerified::UnknownKey => TokenRefusal::UnknownKey,
        NotVerified::By(Unverified::Signature) => TokenRefusal::BadSignature,
        NotVerified::By(Unverified::Issuer) => TokenRefusal::WrongIssuer,
        NotVerified::By(Unverified::Audience) => TokenRefusal::WrongAudience,
    }
}
