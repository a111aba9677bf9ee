//! A caller as the application decides about it, kept to ask again.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

/// Longest headers of a caller, in bytes. Most servers refuse longer heads.
pub const MAX_ASKED_BYTES: usize = 16 * 1024;

/// The part of a request the application decides by.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedCaller {
    /// Names in lower case and values. Each byte of a value is one character.
    headers: Vec<(Box<str>, Box<str>)>,
    address: Option<IpAddr>,
}

impl AskedCaller {
    pub fn new(address: Option<IpAddr>) -> Self {
        Self { address, ..Self::default() }
    }

    /// Adds a header. Its name is in lower case.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let value: String = value.iter().map(|byte| char::from(*byte)).collect();
        self.headers.push((name.into(), value.into()));
    }

    /// The headers, as received.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Vec<u8>)> {
        let bytes = |value: &str| value.chars().map(|one| one as u8).collect();
        self.headers.iter().map(move |(name, value)| (&**name, bytes(value)))
    }

    pub fn has_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The bytes of the headers.
    pub fn bytes(&self) -> usize {
        self.headers.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// Hides the headers.
impl fmt::Debug for AskedCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskedCaller").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_travel_as_text() {
        let mut caller = AskedCaller::new(Some([10, 0, 0, 1].into()));
        let value: Vec<u8> = (0x20..=0xff).collect();
        caller.push("cookie", &value);
        let json = serde_json::to_string(&caller).unwrap();
        let read: AskedCaller = serde_json::from_str(&json).unwrap();
        assert_eq!(read, caller);
        assert_eq!(read.headers().collect::<Vec<_>>(), [("cookie", value)]);
    }

    #[test]
    fn debug_output_hides_the_headers() {
        let mut caller = AskedCaller::default();
        caller.push("cookie", b"session=hunter2");
        let shown = format!("{caller:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
