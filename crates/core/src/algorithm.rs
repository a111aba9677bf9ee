//! The algorithms of tokens.

use std::fmt;

use serde::Deserialize;

/// Defines the algorithms and their names in a token's header (RFC 7518 §3.1, RFC 8037 §3.1).
macro_rules! algorithms {
    ($($name:ident $text:literal $doc:literal,)*) => {
        /// How a token is signed. A key has exactly one algorithm.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
        pub enum Algorithm {
            $(#[doc = $doc] #[serde(rename = $text)] $name,)*
        }

        impl Algorithm {
            /// Every algorithm.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in a token's header.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

algorithms! {
    Hs256 "HS256" "A shared secret, with SHA-256.",
    Hs384 "HS384" "A shared secret, with SHA-384.",
    Hs512 "HS512" "A shared secret, with SHA-512.",
    Rs256 "RS256" "RSA with PKCS #1 v1.5 and SHA-256.",
    Rs384 "RS384" "RSA with PKCS #1 v1.5 and SHA-384.",
    Rs512 "RS512" "RSA with PKCS #1 v1.5 and SHA-512.",
    Ps256 "PS256" "RSA with PSS and SHA-256.",
    Ps384 "PS384" "RSA with PSS and SHA-384.",
    Ps512 "PS512" "RSA with PSS and SHA-512.",
    Es256 "ES256" "ECDSA on P-256, with SHA-256.",
    Es384 "ES384" "ECDSA on P-384, with SHA-384.",
    EdDsa "EdDSA" "Ed25519.",
}

impl fmt::Display for Algorithm {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.as_str())
    }
}

impl std::str::FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|algorithm| algorithm.as_str() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|algorithm| algorithm.as_str()).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}
