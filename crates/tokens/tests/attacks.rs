//! Every classic attack on signed tokens is refused. `tests/it/tokens` has the tokens of other
//! libraries.

use fanfare_core::algorithm::Algorithm;
use fanfare_tokens::{
    Expected, KeyError, KeySet, NotVerified, SigningKey, TokenClaims, Unverified, VerifyingKey,
    read_jwks, verify,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// RFC 7515 A.3: a key and a token of ES256.
const EXAMPLE_KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
const EXAMPLE: &str = "eyJhbGciOiJFUzI1NiJ9.\
    eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
    DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

fn secret_key(kid: Option<&str>) -> VerifyingKey {
    VerifyingKey::new(Algorithm::Hs256, SECRET, kid.map(Into::into)).expect("a valid key")
}

fn sign(algorithm: Algorithm, claims: &Value, kid: Option<&str>) -> String {
    let key = SigningKey::new(algorithm, SECRET).expect("a valid key");
    key.sign(claims, kid).expect("it signs")
}

fn check(keys: &KeySet, token: &str) -> Result<TokenClaims, NotVerified> {
    verify(&[keys], token, &Expected::default())
}

/// Replaces the header of a token, and keeps its signature.
fn with_header(header: &str, token: &str) -> String {
    let (_, rest) = token.split_once('.').expect("a token has dots");
    format!("{}.{rest}", base64(header.as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.chunks(3).flat_map(|group| {
        let bits = group
            .iter()
            .enumerate()
            .fold(0_u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        (0..=group.len()).map(move |digit| DIGITS[(bits >> (18 - 6 * digit)) as usize & 63])
    });
    digits.map(char::from).collect()
}

const MALFORMED: NotVerified = NotVerified::By(Unverified::Malformed);
const BAD_SIGNATURE: NotVerified = NotVerified::By(Unverified::Signature);

#[test]
fn the_example_of_the_standard_is_verified() {
    let keys = read_jwks(EXAMPLE_KEYS.as_bytes(), false).expect("a key set").keys;
    assert_eq!(check(&keys, EXAMPLE).map(|claims| claims.exp), Ok(1_300_819_380));
    let other = EXAMPLE.replace("DtEhU3", "DtEhU4");
    assert_eq!(check(&keys, &other), Err(BAD_SIGNATURE));
}

#[test]
fn a_token_without_a_signature_is_refused() {
    let keys = KeySet::new([secret_key(None)]);
    let token = sign(Algorithm::Hs256, &json!({ "exp": 5 }), None);
    assert!(check(&keys, &token).is_ok());
    let (unsigned, _) = token.rsplit_once('.').expect("a token has dots");
    for name in ["none", "None", "NONE", "nOnE", ""] {
        let forged = with_header(&format!(r#"{{"alg":"{name}"}}"#), &token);
        let (forged_unsigned, _) = forged.rsplit_once('.').expect("a token has dots");
        for text in [forged.clone(), format!("{forged_unsigned}."), forged_unsigned.to_owned()] {
            assert_eq!(check(&keys, &text), Err(MALFORMED), "{name}");
        }
    }
    assert_eq!(check(&keys, &format!("{unsigned}.")), Err(BAD_SIGNATURE));
    assert_eq!(check(&keys, unsigned), Err(MALFORMED));
}

#[test]
fn the_key_determines_the_algorithm() {
    let keys = KeySet::new([secret_key(None)]);
    for algorithm in [Algorithm::Hs384, Algorithm::Hs512] {
        let token = sign(algorithm, &json!({ "exp": 5 }), None);
        assert_eq!(check(&keys, &token), Err(BAD_SIGNATURE), "{algorithm}");
    }
    // A token of a shared secret, its header changed to one of a key pair.
    let token = sign(Algorithm::Hs256, &json!({ "exp": 5 }), None);
    for name in ["RS256", "PS256", "ES256", "EdDSA", "HS512"] {
        let forged = with_header(&format!(r#"{{"alg":"{name}"}}"#), &token);
        assert_eq!(check(&keys, &forged), Err(BAD_SIGNATURE), "{name}");
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let pem = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    let refused = VerifyingKey::new(Algorithm::Hs256, pem, None).err();
    assert_eq!(refused, Some(KeyError::NotASecret(Algorithm::Hs256)));
    let refused = VerifyingKey::new(Algorithm::Rs256, SECRET, None).err();
    assert_eq!(refused, Some(KeyError::NotPublic(Algorithm::Rs256)));
    assert_eq!(VerifyingKey::new(Algorithm::Hs256, b"", None).err(), Some(KeyError::Empty));
}

#[test]
fn a_shared_secret_in_a_public_key_set_is_skipped() {
    let set = json!({ "keys": [{ "kty": "oct", "alg": "HS256", "k": base64(SECRET) }] });
    assert!(read_jwks(set.to_string().as_bytes(), false).is_err());
    let keys = read_jwks(set.to_string().as_bytes(), true).expect("a key set").keys;
    assert!(check(&keys, &sign(Algorithm::Hs256, &json!({ "exp": 5 }), None)).is_ok());
}

#[test]
fn keys_of_other_purposes_are_skipped() {
    let mut set: Value = serde_json::from_str(EXAMPLE_KEYS).expect("valid JSON");
    let key = set["keys"][0].clone();
    let change = |name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    set["keys"] = json!([
        change("use", json!("enc")),
        change("key_ops", json!(["encrypt"])),
        change("alg", json!("RS256")),
        change("alg", json!("ES384")),
        change("alg", json!("ECDH-ES")),
        change("crv", json!("P-384")),
        change("crv", json!("secp256k1")),
        change("x", json!("AAAA")),
        json!({ "kty": "future" }),
        json!(5),
        key,
    ]);
    let read = read_jwks(set.to_string().as_bytes(), false).expect("a key set");
    assert_eq!((read.keys.count(), read.skipped_count), (1, 10));
    assert!(check(&read.keys, EXAMPLE).is_ok());
    for text in ["", "[]", "{}", r#"{"keys":5}"#, r#"{"keys":[]}"#, r#"{"keys":[5]}"#] {
        assert!(read_jwks(text.as_bytes(), true).is_err(), "{text}");
    }
}

#[test]
fn a_named_key_is_the_only_candidate() {
    let keys = KeySet::new([secret_key(Some("new")), secret_key(None)]);
    let claims = json!({ "exp": 5 });
    assert!(check(&keys, &sign(Algorithm::Hs256, &claims, Some("new"))).is_ok());
    assert!(check(&keys, &sign(Algorithm::Hs256, &claims, None)).is_ok());
    for kid in ["old", "", "../../etc/passwd", "new' OR '1'='1"] {
        let token = sign(Algorithm::Hs256, &claims, Some(kid));
        assert_eq!(check(&keys, &token), Err(NotVerified::UnknownKey), "{kid}");
    }
    // The other algorithms of a named key.
    let token = sign(Algorithm::Hs384, &claims, Some("new"));
    assert_eq!(check(&keys, &token), Err(BAD_SIGNATURE));
}

#[test]
fn a_critical_header_is_refused() {
    let keys = KeySet::new([secret_key(None)]);
    let token = sign(Algorithm::Hs256, &json!({ "exp": 5 }), None);
    for header in [
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","b64":false}"#,
    ] {
        assert_eq!(check(&keys, &with_header(header, &token)), Err(MALFORMED), "{header}");
    }
}

#[test]
fn issuer_and_audience_are_required_if_expected() {
    let keys = KeySet::new([secret_key(None)]);
    let expected = Expected { issuer: Some("us".into()), audience: Some("hub".into()) };
    let check = |claims: Value| {
        verify(&[&keys], &sign(Algorithm::Hs256, &claims, None), &expected).map(|_| ())
    };
    let (issuer, audience) =
        (NotVerified::By(Unverified::Issuer), NotVerified::By(Unverified::Audience));
    assert_eq!(check(json!({ "exp": 5, "iss": "us", "aud": "hub" })), Ok(()));
    assert_eq!(check(json!({ "exp": 5, "iss": "us", "aud": ["x", "hub"] })), Ok(()));
    assert_eq!(check(json!({ "exp": 5, "iss": "us", "aud": "hub2" })), Err(audience));
    assert_eq!(check(json!({ "exp": 5, "iss": "us", "aud": [] })), Err(audience));
    assert_eq!(check(json!({ "exp": 5, "iss": "us" })), Err(audience));
    assert_eq!(check(json!({ "exp": 5, "iss": "them", "aud": "hub" })), Err(issuer));
    assert!(check(json!({ "exp": 5, "aud": "hub" })).is_err());
    assert!(check(json!({ "exp": 5, "iss": 5, "aud": "hub" })).is_err());
}

#[test]
fn an_overlong_token_is_refused_before_it_is_read() {
    let keys = KeySet::new([secret_key(None)]);
    let token = |bytes| sign(Algorithm::Hs256, &json!({ "exp": 5, "x": "x".repeat(bytes) }), None);
    assert!(check(&keys, &token(5000)).is_ok());
    assert_eq!(check(&keys, &token(6200)), Err(MALFORMED));
}

proptest! {
    #[test]
    fn garbage_is_refused(token in r"[A-Za-z0-9_.-]{0,200}|.*|\PC*\.\PC*\.\PC*") {
        prop_assert!(check(&KeySet::new([secret_key(None)]), &token).is_err());
    }

    #[test]
    fn any_changed_byte_is_found(at in 0_usize..200, byte in any::<u8>()) {
        let keys = KeySet::new([secret_key(None)]);
        let token = sign(Algorithm::Hs256, &json!({ "exp": 5, "sub": "alice" }), None);
        let mut changed = token.clone().into_bytes();
        let at = at % changed.len();
        changed[at] = byte;
        if let Ok(changed) = String::from_utf8(changed) && changed != token {
            prop_assert!(check(&keys, &changed).is_err());
        }
    }
}
