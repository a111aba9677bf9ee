//! The claims of a token, and the check of its times.

use fanfare_core::access::RightsText;
use serde::{Deserialize, Deserializer};

/// Latest expiry counted, in seconds since 1970: the year 9999. Later ones are cut, so that sums
/// stay in range.
const MAX_SECONDS: u64 = 253_402_300_799;

/// The claims read. Unknown claims are ignored; a known claim of another type is an error, also
/// `null`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TokenClaims {
    /// The user.
    #[serde(default, deserialize_with = "given")]
    pub sub: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub jti: Option<String>,
    /// Seconds since 1970. A text or a fraction is an error: libraries disagree about them.
    pub exp: u64,
    #[serde(default, deserialize_with = "given")]
    pub nbf: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    pub iat: Option<u64>,
    #[serde(default)]
    /// Patterns, unchecked.
    pub fanfare: RightsText,
}

fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A token outside of its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untimely {
    Expired,
    NotYetValid,
}

impl TokenClaims {
    /// The end of the token, in seconds since 1970.
    pub fn expires_at_s(&self) -> u64 {
        self.exp.min(MAX_SECONDS)
    }

    /// Whether the token is valid now, with this leeway for the clocks of its issuer and the hub.
    pub fn check_times(&self, now_ms: u64, leeway_ms: u64) -> Result<(), Untimely> {
        if now_ms >= self.expires_at_s() * 1000 + leeway_ms {
            return Err(Untimely::Expired);
        }
        let begins_at_ms = self.nbf.unwrap_or_default().min(MAX_SECONDS) * 1000;
        if begins_at_ms > now_ms + leeway_ms { Err(Untimely::NotYetValid) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Option<TokenClaims> {
        serde_json::from_str(json).ok()
    }

    #[test]
    fn only_an_integer_is_an_expiry() {
        assert_eq!(parse(r#"{"exp":5}"#).map(|claims| claims.exp), Some(5));
        for json in [
            "{}",
            r#"{"exp":"5"}"#,
            r#"{"exp":5.0}"#,
            r#"{"exp":5.5}"#,
            r#"{"exp":1e3}"#,
            r#"{"exp":-5}"#,
            r#"{"exp":null}"#,
            r#"{"exp":18446744073709551616}"#,
            r#"{"exp":5,"exp":6}"#,
        ] {
            assert_eq!(parse(json), None, "{json}");
        }
    }

    #[test]
    fn other_claims_have_their_type_or_are_absent() {
        for claim in [
            r#""sub":5"#,
            r#""sub":null"#,
            r#""sub":["a"]"#,
            r#""jti":5"#,
            r#""nbf":"5""#,
            r#""nbf":5.5"#,
            r#""iat":null"#,
            r#""fanfare":5"#,
            r#""fanfare":null"#,
            r#""fanfare":{"subscribe":"a"}"#,
            r#""fanfare":{"publish":[5]}"#,
        ] {
            assert_eq!(parse(&format!(r#"{{"exp":5,{claim}}}"#)), None, "{claim}");
        }
        let claims = parse(r#"{"exp":5,"other":[1],"fanfare":{"publish":["a"],"later":1}}"#);
        assert_eq!(claims.map(|claims| claims.fanfare.publish), Some(vec!["a".to_owned()]));
    }

    #[test]
    fn a_token_is_valid_between_its_times_give_or_take_the_leeway() {
        let claims = parse(r#"{"exp":100,"nbf":50}"#).expect("valid claims");
        for (now_ms, expected) in [
            (19_999, Err(Untimely::NotYetValid)),
            (20_000, Ok(())),
            (129_999, Ok(())),
            (130_000, Err(Untimely::Expired)),
        ] {
            assert_eq!(claims.check_times(now_ms, 30_000), expected, "{now_ms}");
        }
        let forever = parse(r#"{"exp":18446744073709551615}"#).expect("valid claims");
        assert_eq!(forever.check_times(u64::MAX / 2, 0), Err(Untimely::Expired));
        assert_eq!(forever.expires_at_s(), MAX_SECONDS);
    }
}
