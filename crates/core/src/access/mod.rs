//! The decisions of access control: granted patterns, the rights of a caller, and revocations. It
//! reads no request and verifies no token.

mod asked;
mod checked;
mod grant;
mod pattern_list;
mod revocation;
mod rights;
mod ticket;

pub use asked::{AskedCaller, MAX_ASKED_BYTES};
pub use checked::{MayOperate, MayRead};
pub use grant::{Credential, Grant, GrantText};
pub use pattern_list::{PatternList, contains};
pub use revocation::{Revocation, RevocationStore, RevocationsDown, Revoked};
pub use rights::{MAX_PATTERN_BYTES, MAX_PATTERNS, Rights, RightsError, RightsText};
pub use ticket::{
    FirstId, MAX_TICKETS_PER_OWNER, TICKET_DIGITS, Ticket, TicketLife, TicketStore, TicketUse,
    TicketsDown, ticket_name, ticket_place,
};

use crate::user::{User, UserError};

/// Stands for the caller's user in a granted pattern.
pub const USER: &str = "{user}";

/// The user of a caller: a name of one segment, so `{user}` never grants more than one segment.
///
/// # Errors
/// The name is no valid segment of a topic, or has several segments.
pub fn parse_user(name: &str) -> Result<User, UserError> {
    if name.contains(':') {
        return Err(UserError::Segments);
    }
    User::parse(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_one_segment_and_never_a_wildcard() {
        for name in ["42", "ann", "ann@example.org", "börse", "{user}", "a*b"] {
            assert!(parse_user(name).is_ok(), "{name:?}");
        }
        for name in ["", "*", "**", "a:b", "a b", "a,b", "$hub", "a\n", &"x".repeat(257)] {
            assert!(parse_user(name).is_err(), "{name:?}");
        }
    }
}
