//! The records of the tables' lane. A kind never changes its meaning.
//!
//! | kind | payload |
//! |---|---|
//! | 1 | follow: the length of the follower's name (1 byte), follower, author |
//! | 2 | unfollow: as 1 |
//! | 3 | mute: the length of the user's name (1 byte), user, then each kind with its length (2 bytes, little-endian) |
//! | 4 | revocation: JSON |

use bytes::Bytes;
use fanfare_core::{
    access::Revocation,
    follow::Follow,
    user::{MAX_USER_BYTES, User},
};

use crate::follow::memory::TableChange;

const FOLLOW: u8 = 1;
const UNFOLLOW: u8 = 2;
const MUTE: u8 = 3;
const REVOCATION: u8 = 4;

// The length of a name has one byte.
const _: () = assert!(MAX_USER_BYTES <= u8::MAX as usize);

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TableRecord {
    Change(TableChange),
    Revocation(Revocation),
}

/// The kind and the payload of a change.
pub(super) fn encode(change: &TableChange) -> (u8, Bytes) {
    match change {
        TableChange::Follow(edge) => (FOLLOW, names(&edge.follower, edge.author.as_str())),
        TableChange::Unfollow(edge) => (UNFOLLOW, names(&edge.follower, edge.author.as_str())),
        TableChange::Mute { user, kinds } => {
            let mut payload = names(user, "").to_vec();
            for kind in kinds {
                let length = u16::try_from(kind.len()).unwrap_or(u16::MAX);
                payload.extend_from_slice(&length.to_le_bytes());
                payload.extend_from_slice(&kind.as_bytes()[..usize::from(length)]);
            }
            (MUTE, payload.into())
        }
    }
}

/// The kind and the payload of a revocation.
pub(super) fn encode_revocation(revocation: &Revocation) -> (u8, Bytes) {
    let payload = serde_json::to_vec(revocation).expect("it has only texts and numbers");
    (REVOCATION, payload.into())
}

fn names(first: &User, second: &str) -> Bytes {
    let first = first.as_str().as_bytes();
    [&[first.len() as u8], first, second.as_bytes()].concat().into()
}

/// Reads a record; `None` for a kind or payload of another version.
pub(super) fn decode(kind: u8, payload: &[u8]) -> Option<TableRecord> {
    match kind {
        FOLLOW => Some(TableRecord::Change(TableChange::Follow(edge(payload)?))),
        UNFOLLOW => Some(TableRecord::Change(TableChange::Unfollow(edge(payload)?))),
        MUTE => {
            let (user, rest) = user(payload)?;
            Some(TableRecord::Change(TableChange::Mute { user, kinds: kinds(rest)? }))
        }
        REVOCATION => serde_json::from_slice(payload).ok().map(TableRecord::Revocation),
        _ => None,
    }
}

fn edge(payload: &[u8]) -> Option<Follow> {
    let (follower, author) = user(payload)?;
    Some(Follow { follower, author: User::parse(str::from_utf8(author).ok()?).ok()? })
}

fn user(payload: &[u8]) -> Option<(User, &[u8])> {
    let (length, rest) = payload.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((User::parse(str::from_utf8(name).ok()?).ok()?, rest))
}

fn kinds(mut rest: &[u8]) -> Option<Vec<String>> {
    let mut kinds = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let (kind, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        kinds.push(str::from_utf8(kind).ok()?.to_owned());
        rest = after;
    }
    rest.is_empty().then_some(kinds)
}

#[cfg(test)]
mod tests {
    use fanfare_core::access::Revoked;

    use super::*;

    #[test]
    fn records_are_read_as_written_and_others_are_none() {
        let edge = Follow::parse("ann", "bob").unwrap();
        let user = User::parse("ann").unwrap();
        let kinds = vec!["like".to_owned(), String::new(), "ü".repeat(100)];
        for change in [
            TableChange::Follow(edge.clone()),
            TableChange::Unfollow(edge),
            TableChange::Mute { user: user.clone(), kinds },
            TableChange::Mute { user, kinds: Vec::new() },
        ] {
            let (kind, payload) = encode(&change);
            assert_eq!(decode(kind, &payload), Some(TableRecord::Change(change)));
        }
        let revoked = Revoked::User { user: "ann".into(), issued_before_s: Some(3) };
        let revocation = Revocation { revoked, at_ms: 5 };
        let (kind, payload) = encode_revocation(&revocation);
        assert_eq!(decode(kind, &payload), Some(TableRecord::Revocation(revocation)));
        for (kind, payload) in [(9, &b"x"[..]), (1, b""), (1, b"\x05ann"), (3, b"\x03ann\x09")] {
            assert_eq!(decode(kind, payload), None, "{kind} {payload:?}");
        }
    }
}
