//! Names of managers, streams and publishers within their hub.

use std::net::{IpAddr, Ipv6Addr};

/// Names a topic manager within its hub.
pub type ManagerId = u64;

/// Names a stream within its hub.
pub type StreamId = u64;

/// Names a publisher, for its share of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PublisherId {
    /// The application embedding the hub.
    #[default]
    Application,
    /// A client over HTTP. See [`Self::of_address`].
    Address(IpAddr),
}

impl PublisherId {
    /// The publisher with this address. IPv6 addresses of one network (/64) are one publisher: a
    /// client has all of them.
    pub fn of_address(address: IpAddr) -> Self {
        Self::Address(network_of(address))
    }
}

/// An address, or for IPv6 its network (/64): a client has all addresses of it.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_publisher() {
        let of = |text: &str| PublisherId::of_address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
