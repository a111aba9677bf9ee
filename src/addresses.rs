//! The shares of client addresses: connections, streams, requests and bytes of each address.
//!
//! A client's address is the connection's peer. Behind a trusted proxy it is the last address in
//! `Forwarded` or `X-Forwarded-For` not of a trusted proxy. Loopback has no limits.

use std::{
    collections::HashMap,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName};
use fanfare_core::ids::network_of;
use governor::Quota;
use parking_lot::Mutex;

use crate::{
    clock::{HubClock, Limit},
    config::{Limits, Network},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Addresses before the first sweep of unused ones.
const MIN_SWEEP: usize = 1024;

/// All addresses with a share in use, and some of the last ones.
#[derive(Debug)]
pub(crate) struct Addresses {
    limits: Limits,
    trusted: Vec<Network>,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_network: HashMap<IpAddr, Arc<Address>>,
    /// The number of addresses at the next sweep: a sweep visits all, so its cost for each new
    /// address stays constant.
    sweep_at: usize,
}

/// The shares of one address. IPv6 addresses of one network (/64) share.
#[derive(Debug)]
pub(crate) struct Address {
    connections: AtomicUsize,
    streams: AtomicUsize,
    held_bytes: AtomicUsize,
    requests: Option<Limit>,
}

/// One connection or stream of an address, by its kind. Dropping it returns the share. One pointer:
/// every stream has one of each.
#[derive(Debug)]
pub(crate) struct Share<K: ShareKind>(Arc<Address>, PhantomData<K>);

/// The kind of a share.
pub(crate) trait ShareKind {
    fn count(address: &Address) -> &AtomicUsize;
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct OfConnection;

/// An open stream.
#[derive(Debug)]
pub(crate) struct OfStream;

impl ShareKind for OfConnection {
    fn count(address: &Address) -> &AtomicUsize {
        &address.connections
    }
}

impl ShareKind for OfStream {
    fn count(address: &Address) -> &AtomicUsize {
        &address.streams
    }
}

/// The address has its whole share in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShareInUse;

impl Addresses {
    pub fn new(limits: Limits) -> Self {
        let trusted = limits.trusted_proxies.iter().filter_map(|text| text.parse().ok()).collect();
        Self { limits, trusted, entries: Mutex::default() }
    }

    /// Takes a connection's share. A trusted proxy and loopback have none.
    pub fn connect(
        &self,
        peer: Option<SocketAddr>,
    ) -> Result<Option<Share<OfConnection>>, ShareInUse> {
        let peer = peer.map(|peer| peer.ip()).filter(|peer| !self.is_trusted(*peer));
        self.share(peer, self.limits.connections)
    }

    /// Takes a stream's share.
    pub fn open_stream(
        &self,
        peer: Option<SocketAddr>,
        headers: &HeaderMap,
    ) -> Result<Option<Share<OfStream>>, ShareInUse> {
        self.share(self.client(peer, headers), self.limits.streams)
    }

    /// Counts a request.
    pub fn request(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> Result<(), ShareInUse> {
        if self.limits.requests_per_second == 0 {
            return Ok(());
        }
        let address = self.client(peer, headers).and_then(|client| self.address(client));
        let requests = address.as_ref().and_then(|address| address.requests.as_ref());
        requests.map_or(Ok(()), |requests| requests.check().map_err(|_| ShareInUse))
    }

    /// The account for the bytes of a request, and its bound.
    pub fn bytes(
        &self,
        peer: Option<SocketAddr>,
        headers: &HeaderMap,
    ) -> Option<(Arc<Address>, usize)> {
        let max_bytes = self.limits.request_bytes;
        let client = self.client(peer, headers).filter(|_| max_bytes > 0)?;
        Some((self.address(client)?, max_bytes))
    }

    fn share<K: ShareKind>(
        &self,
        client: Option<IpAddr>,
        max_count: usize,
    ) -> Result<Option<Share<K>>, ShareInUse> {
        let client = client.filter(|_| max_count > 0);
        let Some(address) = client.and_then(|client| self.address(client)) else { return Ok(None) };
        let before = K::count(&address).fetch_add(1, Ordering::Relaxed);
        let share = Share(address, PhantomData);
        // Dropping the share returns it.
        if before >= max_count { Err(ShareInUse) } else { Ok(Some(share)) }
    }

    /// The address of a client; `None` on loopback.
    fn address(&self, client: IpAddr) -> Option<Arc<Address>> {
        if client.to_canonical().is_loopback() {
            return None;
        }
        let mut entries = self.entries.lock();
        if entries.by_network.len() >= entries.sweep_at.max(MIN_SWEEP) {
            entries.by_network.retain(|_, address| Arc::strong_count(address) > 1);
            entries.sweep_at = 2 * entries.by_network.len();
        }
        let per_second = NonZeroU32::new(self.limits.requests_per_second);
        let entry = entries.by_network.entry(network_of(client)).or_insert_with(|| {
            Arc::new(Address {
                connections: AtomicUsize::new(0),
                streams: AtomicUsize::new(0),
                held_bytes: AtomicUsize::new(0),
                requests: per_second
                    .map(|rate| Limit::direct_with_clock(Quota::per_second(rate), HubClock)),
            })
        });
        Some(entry.clone())
    }

    /// The client's address; `None` without a peer.
    pub fn client(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer?.ip();
        if !self.is_trusted(peer) {
            return Some(peer);
        }
        // The last entry is the nearest proxy's word; an untrusted client can write earlier ones.
        let forwarded = forwarded(headers);
        let known = forwarded.into_iter().rev().map_while(|address| address);
        let mut last = peer;
        for address in known {
            last = address;
            if !self.is_trusted(address) {
                break;
            }
        }
        Some(last)
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(address))
    }
}

impl Address {
    pub fn held_bytes(&self) -> &AtomicUsize {
        &self.held_bytes
    }
}

impl<K: ShareKind> Drop for Share<K> {
    fn drop(&mut self) {
        K::count(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

/// The forwarded addresses, the client's first; `None` for an unknown or hidden one. `Forwarded`
/// (RFC 7239) wins over `X-Forwarded-For`.
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lists = |name: HeaderName| {
        let values = headers.get_all(name).filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).collect::<Vec<_>>()
    };
    let standard = lists(FORWARDED);
    if !standard.is_empty() {
        return standard.into_iter().map(forwarded_for).collect();
    }
    lists(X_FORWARDED_FOR).into_iter().map(address_of).collect()
}

/// The `for` parameter of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut parameters = element.split(';').filter_map(|parameter| parameter.split_once('='));
    let (_, node) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    address_of(node.trim().trim_matches('"'))
}

/// The address of `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address_of(node: &str) -> Option<IpAddr> {
    let node = node.trim();
    let bare = node.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(node);
    bare.parse().ok().or_else(|| Some(node.parse::<SocketAddr>().ok()?.ip()))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn addresses(change: impl FnOnce(&mut Limits)) -> Addresses {
        let mut limits = Limits {
            connections: 2,
            streams: 2,
            requests_per_second: 2,
            request_bytes: 1000,
            trusted_proxies: vec!["10.0.0.0/8".into(), "127.0.0.1".into()],
            user_streams: 0,
            user_publishes_per_second: 0,
        };
        change(&mut limits);
        Addresses::new(limits)
    }

    fn peer(text: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(text.parse().unwrap(), 1))
    }

    fn header(name: HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn each_address_has_its_own_share_and_gets_it_back() {
        let addresses = addresses(|_| {});
        let none = HeaderMap::new();
        let open = |address| addresses.open_stream(peer(address), &none);
        let (first, second) = (open("192.0.2.1"), open("192.0.2.1"));
        assert!(open("192.0.2.1").is_err());
        assert!(open("192.0.2.2").is_ok());
        drop(first);
        assert!(open("192.0.2.1").is_ok());
        drop(second);
        // One network of IPv6 is one client.
        let held = [open("2001:db8::1"), open("2001:db8::2")];
        assert!(open("2001:db8::ffff").is_err());
        assert!(open("2001:db8:0:1::1").is_ok());
        drop(held);
        let loopback: Vec<_> = (0..9).map(|_| addresses.connect(peer("::1"))).collect();
        assert!(loopback.iter().all(Result::is_ok));
    }

    #[test]
    fn requests_have_a_rate() {
        let addresses = addresses(|_| {});
        let request = |address| addresses.request(peer(address), &HeaderMap::new());
        assert_eq!([request("192.0.2.1"), request("192.0.2.1")], [Ok(()), Ok(())]);
        assert_eq!(request("192.0.2.1"), Err(ShareInUse));
        assert_eq!(request("192.0.2.2"), Ok(()));
    }

    #[test]
    fn only_a_trusted_proxy_names_another_client() {
        let addresses = addresses(|_| {});
        let client = |address, headers: &HeaderMap| addresses.client(peer(address), headers);
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let forged = header(X_FORWARDED_FOR, "198.51.100.9");
        assert_eq!(client("192.0.2.1", &forged), ip("192.0.2.1"));
        let chain = header(X_FORWARDED_FOR, "198.51.100.9, 192.0.2.7, 10.1.1.1");
        assert_eq!(client("10.0.0.1", &chain), ip("192.0.2.7"));
        let standard = header(FORWARDED, "for=198.51.100.9, FOR=\"[2001:db8::7]:4711\";proto=http");
        assert_eq!(client("127.0.0.1", &standard), ip("2001:db8::7"));
        assert_eq!(client("10.0.0.1", &header(X_FORWARDED_FOR, "192.0.2.3:80")), ip("192.0.2.3"));
        assert_eq!(client("10.0.0.1", &header(X_FORWARDED_FOR, "unknown")), ip("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &HeaderMap::new()), ip("10.0.0.1"));
    }

    #[test]
    fn unused_addresses_are_forgotten() {
        let addresses = addresses(|limits| limits.requests_per_second = 0);
        let held = addresses.open_stream(peer("192.0.2.1"), &HeaderMap::new()).unwrap();
        for number in 0..10 * MIN_SWEEP as u32 {
            let address = IpAddr::from(number.wrapping_add(0x5000_0000).to_be_bytes());
            let _share = addresses.connect(Some(SocketAddr::new(address, 1)));
        }
        let entries = addresses.entries.lock();
        assert!(entries.by_network.len() <= MIN_SWEEP);
        assert!(entries.by_network.contains_key(&"192.0.2.1".parse::<IpAddr>().unwrap()));
        drop(held);
    }
}
