//! JSON Web Tokens (RFC 7519): the keys, the check of a signature, and signing. The only file with
//! `jsonwebtoken`. It reads no clock: `claims` checks the times.

use jsonwebtoken::{
    Algorithm as JwtAlgorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation,
    crypto::{self, CryptoProvider, rust_crypto},
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Serialize;

use super::claims::TokenClaims;
use fanfare_core::algorithm::Algorithm;

/// Why a key is unusable. The text has nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key must not be empty")]
    Empty,
    #[error("{0} takes a shared secret, not a PEM")]
    NotASecret(Algorithm),
    #[error("{0} takes a public key in PEM (`-----BEGIN PUBLIC KEY-----`)")]
    NotPublic(Algorithm),
    #[error("{0} takes a private key in PEM (PKCS #8, `-----BEGIN PRIVATE KEY-----`)")]
    NotPrivate(Algorithm),
    #[error("not a valid key for {0}")]
    Invalid(Algorithm),
    #[error("a key of another purpose or algorithm")]
    OtherPurpose,
}

/// Why a signature or a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unverified {
    /// No token, `none`, an unknown algorithm, a critical header, or claims of another form.
    Malformed,
    /// The key has not signed the token.
    Signature,
    Issuer,
    Audience,
}

/// The choice of a key by a token's header. The header is unverified.
pub struct TokenHead {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
}

impl TokenHead {
    /// `None` without a readable header.
    pub fn of(token: &str) -> Option<Self> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        Some(Self { algorithm: own(header.alg)?, kid: header.kid })
    }
}

/// A key to check signatures with. It determines the algorithm, whatever a token's header says.
#[derive(Clone)]
pub struct VerifyingKey {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    key: DecodingKey,
}

impl VerifyingKey {
    /// A secret's bytes, or a public key in PEM.
    pub fn new(algorithm: Algorithm, bytes: &[u8], kid: Option<String>) -> Result<Self, KeyError> {
        let family = jwt(algorithm).family();
        refuse_wrong_form(algorithm, bytes)?;
        if family != AlgorithmFamily::Hmac && (is_private(bytes) || has(bytes, b"CERTIFICATE")) {
            return Err(KeyError::NotPublic(algorithm));
        }
        let key = match family {
            AlgorithmFamily::Hmac => DecodingKey::from_secret(bytes),
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(bytes),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(bytes),
            AlgorithmFamily::Ed => DecodingKey::from_ed_pem(bytes),
        };
        let key = key.map_err(|_| KeyError::NotPublic(algorithm))?;
        Self { algorithm, kid, key }.checked()
    }

    /// A key of a JWKS (RFC 7517). Without `alg`, an RSA key is for RS256, and the curve of other
    /// keys names their algorithm. Shared secrets need `are_secret`: a URL may be public.
    pub fn of_jwk(jwk: &Jwk, are_secret: bool) -> Result<Self, KeyError> {
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature);
        let operations = common.key_operations.as_ref();
        let verifies = operations.is_none_or(|all| {
            all.contains(&KeyOperations::Verify) || all.contains(&KeyOperations::Sign)
        });
        let algorithm = match common.key_algorithm {
            Some(named) => JwtAlgorithm::try_from(named).ok().and_then(own),
            None => implied(&jwk.algorithm),
        };
        let algorithm = algorithm.filter(|_| signs && verifies).ok_or(KeyError::OtherPurpose)?;
        let key = DecodingKey::from_jwk(jwk).map_err(|_| KeyError::Invalid(algorithm))?;
        let is_secret = key.family() == AlgorithmFamily::Hmac;
        if key.family() != jwt(algorithm).family() || (is_secret && !are_secret) {
            return Err(KeyError::OtherPurpose);
        }
        Self { algorithm, kid: common.key_id.clone(), key }.checked()
    }

    /// Finds a key of another curve, or a broken one: such a key would refuse every token.
    fn checked(self) -> Result<Self, KeyError> {
        set_provider();
        // The signature of nothing: only the key is of interest.
        match crypto::verify("AAAA", b"", &self.key, jwt(self.algorithm)) {
            Ok(_) => Ok(self),
            Err(_) => Err(KeyError::Invalid(self.algorithm)),
        }
    }

    /// Checks the signature, and `iss` and `aud` where expected.
    pub fn verify(&self, token: &str, expected: &Expected) -> Result<TokenClaims, Unverified> {
        use jsonwebtoken::errors::ErrorKind;
        let mut validation = Validation::new(jwt(self.algorithm));
        // The hub's own clock decides about times.
        validation.validate_exp = false;
        validation.validate_aud = expected.audience.is_some();
        if let Some(audience) = &expected.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if let Some(issuer) = &expected.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        match jsonwebtoken::decode::<TokenClaims>(token, &self.key, &validation) {
            Ok(data) => Ok(data.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature => Unverified::Signature,
                ErrorKind::InvalidIssuer => Unverified::Issuer,
                ErrorKind::InvalidAudience => Unverified::Audience,
                ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Unverified::Issuer,
                ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => Unverified::Audience,
                _ => Unverified::Malformed,
            }),
        }
    }
}

/// The claims required of every token.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    pub issuer: Option<String>,
    pub audience: Option<String>,
}

/// A key to sign tokens with.
pub struct SigningKey {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl SigningKey {
    /// A secret's bytes, or a private key in PEM.
    ///
    /// # Errors
    /// The bytes are no key of this algorithm.
    pub fn new(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        refuse_wrong_form(algorithm, bytes)?;
        let family = jwt(algorithm).family();
        if family != AlgorithmFamily::Hmac && !is_private(bytes) {
            return Err(KeyError::NotPrivate(algorithm));
        }
        let key = match family {
            AlgorithmFamily::Hmac => EncodingKey::from_secret(bytes),
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(bytes),
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(bytes),
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem(bytes),
        };
        Ok(Self { algorithm, key: key.map_err(|_| KeyError::NotPrivate(algorithm))? })
    }

    /// Signs claims.
    ///
    /// # Errors
    /// The key is of another curve, or broken.
    pub fn sign(&self, claims: &impl Serialize, kid: Option<&str>) -> Result<String, KeyError> {
        set_provider();
        let mut header = Header::new(jwt(self.algorithm));
        header.kid = kid.map(Into::into);
        let token = jsonwebtoken::encode(&header, claims, &self.key);
        token.map_err(|_| KeyError::Invalid(self.algorithm))
    }
}

/// The library refuses to choose if another crate of the application enables its other provider.
fn set_provider() {
    if CryptoProvider::try_get_default().is_none() {
        // An error means another thread was first.
        let _ = rust_crypto::DEFAULT_PROVIDER.install_default();
    }
}

fn refuse_wrong_form(algorithm: Algorithm, bytes: &[u8]) -> Result<(), KeyError> {
    if bytes.is_empty() {
        return Err(KeyError::Empty);
    }
    // A public key taken as a secret would let everybody sign.
    let is_secret = jwt(algorithm).family() == AlgorithmFamily::Hmac;
    let is_pem = has(bytes, b"-----BEGIN ");
    if is_secret && is_pem { Err(KeyError::NotASecret(algorithm)) } else { Ok(()) }
}

fn is_private(bytes: &[u8]) -> bool {
    has(bytes, b"PRIVATE KEY-----")
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The algorithm of a JWK without `alg`.
fn implied(parameters: &AlgorithmParameters) -> Option<Algorithm> {
    match parameters {
        AlgorithmParameters::RSA(_) => Some(Algorithm::Rs256),
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => Some(Algorithm::Es256),
            EllipticCurve::P384 => Some(Algorithm::Es384),
            _ => None,
        },
        AlgorithmParameters::OctetKeyPair(pair) => {
            (pair.curve == EllipticCurve::Ed25519).then_some(Algorithm::EdDsa)
        }
        _ => None,
    }
}

fn jwt(algorithm: Algorithm) -> JwtAlgorithm {
    match algorithm {
        Algorithm::Hs256 => JwtAlgorithm::HS256,
        Algorithm::Hs384 => JwtAlgorithm::HS384,
        Algorithm::Hs512 => JwtAlgorithm::HS512,
        Algorithm::Rs256 => JwtAlgorithm::RS256,
        Algorithm::Rs384 => JwtAlgorithm::RS384,
        Algorithm::Rs512 => JwtAlgorithm::RS512,
        Algorithm::Ps256 => JwtAlgorithm::PS256,
        Algorithm::Ps384 => JwtAlgorithm::PS384,
        Algorithm::Ps512 => JwtAlgorithm::PS512,
        Algorithm::Es256 => JwtAlgorithm::ES256,
        Algorithm::Es384 => JwtAlgorithm::ES384,
        Algorithm::EdDsa => JwtAlgorithm::EdDSA,
    }
}

fn own(algorithm: JwtAlgorithm) -> Option<Algorithm> {
    Algorithm::ALL.iter().copied().find(|known| jwt(*known) == algorithm)
}
