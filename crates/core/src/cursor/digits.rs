//! The digits of a cursor's text.

use super::CursorError;

/// Base 64 in an order making small numbers look like numbers. All digits are safe in a header, in
/// a query and in an `id:` line.
const DIGITS: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";

/// Digits of an epoch in the text form.
pub(super) const EPOCH_DIGITS: usize = 8;

/// Digits of a time in the text form: milliseconds since 1970, through the year 2109.
pub(super) const TIME_DIGITS: usize = 7;

pub(super) const MAX_TIME: u64 = (1 << (6 * TIME_DIGITS)) - 1;

/// Digits of the longest sequence: 2^54 events, 570 years at a million a second.
pub(super) const MAX_SEQUENCE_DIGITS: usize = 9;

/// Digits of the longest number.
pub(super) const MAX_DIGITS: usize = 11;

pub(super) fn epoch_digits(epoch: u64) -> [u8; EPOCH_DIGITS] {
    let mut text = [b'0'; EPOCH_DIGITS];
    let mut rest = epoch;
    for place in text.iter_mut().rev() {
        *place = DIGITS[(rest & 63) as usize];
        rest >>= 6;
    }
    text
}

pub(super) fn time_digits(unix_ms: u64) -> [u8; TIME_DIGITS] {
    let mut text = [b'0'; TIME_DIGITS];
    let mut rest = unix_ms.min(MAX_TIME);
    for place in text.iter_mut().rev() {
        *place = DIGITS[(rest & 63) as usize];
        rest >>= 6;
    }
    text
}

/// Writes a number's digits at the end of `room` and returns them.
pub(super) fn digits(number: u64, room: &mut [u8; MAX_DIGITS]) -> &[u8] {
    let mut first = room.len();
    let mut rest = number;
    loop {
        first -= 1;
        room[first] = DIGITS[(rest & 63) as usize];
        rest >>= 6;
        if rest == 0 {
            return &room[first..];
        }
    }
}

/// Refuses leading zeros: each number has exactly one text.
pub(super) fn read_number(text: &str) -> Result<u64, CursorError> {
    let too_long = text.len() > MAX_SEQUENCE_DIGITS;
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if text.is_empty() || too_long || leading_zero {
        return Err(CursorError);
    }
    read_digits(text)
}

pub(super) fn read_digits(text: &str) -> Result<u64, CursorError> {
    text.bytes().try_fold(0_u64, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            b'A'..=b'Z' => byte - b'A' + 36,
            b'-' => 62,
            b'_' => 63,
            _ => return Err(CursorError),
        };
        Ok((number << 6) | u64::from(digit))
    })
}

pub(super) fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("DIGITS are ASCII")
}
