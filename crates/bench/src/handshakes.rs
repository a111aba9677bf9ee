//! The kernel's counts of connections not opened at the first attempt. A full accept queue drops
//! a SYN; the client's kernel retries it after a second.

use std::{fs, ops::Sub};

use serde::Serialize;

/// Counts since the machine started, or between two reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Handshakes {
    pub syn_retransmissions: u64,
    /// Connections dropped by a full accept queue.
    pub listen_overflows: u64,
}

impl Handshakes {
    pub fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/net/netstat").ok()?)
    }

    fn parse(table: &str) -> Option<Self> {
        // A line of names, and one of values under them.
        let mut lines = table.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
        let (names, values) = (lines.next()?, lines.next()?);
        let value = |wanted: &str| {
            let mut fields = names.split_whitespace().zip(values.split_whitespace());
            fields.find(|(name, _)| *name == wanted)?.1.parse().ok()
        };
        Some(Self {
            syn_retransmissions: value("TCPSynRetrans")?,
            listen_overflows: value("ListenOverflows")?,
        })
    }
}

impl Sub for Handshakes {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            syn_retransmissions: self
                .syn_retransmissions
                .saturating_sub(before.syn_retransmissions),
            listen_overflows: self.listen_overflows.saturating_sub(before.listen_overflows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names() {
        let table = "TcpExt: SyncookiesSent ListenOverflows TCPSynRetrans\nTcpExt: 1 2 3\n\
             IpExt: InNoRoutes\nIpExt: 4\n";
        let before = Handshakes { syn_retransmissions: 1, listen_overflows: 2 };
        let now = Handshakes::parse(table).unwrap();
        assert_eq!(now - before, Handshakes { syn_retransmissions: 2, listen_overflows: 0 });
        assert_eq!(Handshakes::parse("TcpExt: ListenOverflows\nTcpExt: 2\n"), None);
        assert!(Handshakes::now().is_some());
    }
}
