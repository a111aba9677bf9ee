//! Signatures of the messages between instances. A program with permission to publish in Redis, but
//! without access to the keys, cannot make an instance believe its messages.
//!
//! The first instance puts a random secret into the key `cluster` of each partition. Events get
//! their sequence inside Redis, so only the script can sign them, and the only hash of Redis is
//! SHA-1. Its weakness, collisions, is no weakness of a signature with a secret: as in HMAC, the
//! message is hashed after one half of the secret, and the result after the other half.

use sha1::{Digest, Sha1};

/// Hexadecimal digits of a secret: two halves of one SHA-1 block each.
const SECRET_DIGITS: usize = 128;

/// Hexadecimal digits of a signature.
const SIGNATURE_DIGITS: usize = 40;

/// The kind of a message, part of its signature: a message of one kind is invalid as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageKind {
    Event,
    Announcement,
    FanOut,
    Call,
    Answer,
}

impl MessageKind {
    fn word(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Announcement => "announced",
            Self::FanOut => "fanout",
            Self::Call => "call",
            Self::Answer => "answer",
        }
    }
}

/// A random secret.
pub(crate) fn new_secret() -> String {
    let words: [u64; SECRET_DIGITS / 16] = rand::random();
    words.map(|word| format!("{word:016x}")).concat()
}

/// The secret of one partition, with both halves hashed already.
#[derive(Clone)]
pub(crate) struct Secret {
    text: String,
    inner: Sha1,
    outer: Sha1,
}

impl Secret {
    /// `None` for a text of another form. `base` begins the names of the partition's keys: a
    /// message of one partition is invalid in another.
    pub fn new(text: &str, base: &str) -> Option<Self> {
        let (inner, outer) = text.split_at_checked(SECRET_DIGITS / 2)?;
        if outer.len() != SECRET_DIGITS / 2 {
            return None;
        }
        let inner = Sha1::new().chain_update(inner).chain_update(base);
        Some(Self { text: text.to_owned(), inner, outer: Sha1::new().chain_update(outer) })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The message behind its signature, as the script sends it.
    pub fn sign(&self, kind: MessageKind, message: &str) -> String {
        format!("{} {message}", self.signature(kind, message.as_bytes()))
    }

    /// The message of a payload. `None` without a valid signature.
    pub fn open<'a>(&self, kind: MessageKind, payload: &'a [u8]) -> Option<&'a [u8]> {
        let (signature, message) = payload.split_at_checked(SIGNATURE_DIGITS + 1)?;
        let expected = self.signature(kind, message);
        // All bytes, whatever the first difference: the time must not show its place.
        let differences = expected.bytes().chain([b' ']).zip(signature);
        (differences.fold(0, |all, (one, other)| all | (one ^ other)) == 0).then_some(message)
    }

    fn signature(&self, kind: MessageKind, message: &[u8]) -> String {
        let inner = self.inner.clone().chain_update(kind.word()).chain_update("\n");
        let inner = hexadecimal(&inner.chain_update(message).finalize());
        hexadecimal(&self.outer.clone().chain_update(inner).finalize())
    }
}

/// Hides the secret.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_message_of_the_same_kind_and_partition_is_valid() {
        let text = new_secret();
        let secret = Secret::new(&text, "a:{1}:").unwrap();
        let payload = secret.sign(MessageKind::Event, "message");
        let open = |secret: &Secret, kind, payload: &str| {
            secret.open(kind, payload.as_bytes()).map(<[u8]>::to_vec)
        };
        assert_eq!(open(&secret, MessageKind::Event, &payload), Some(b"message".to_vec()));
        assert_eq!(open(&secret, MessageKind::Call, &payload), None);
        for place in 0..payload.len() {
            let mut changed = payload.clone().into_bytes();
            changed[place] ^= 1;
            assert_eq!(secret.open(MessageKind::Event, &changed), None, "{place}");
        }
        for other in [Secret::new(&text, "a:{2}:"), Secret::new(&new_secret(), "a:{1}:")] {
            assert_eq!(open(&other.unwrap(), MessageKind::Event, &payload), None);
        }
        assert_eq!(open(&secret, MessageKind::Event, "- message"), None);
        assert!(Secret::new("short", "a:{1}:").is_none());
    }
}
