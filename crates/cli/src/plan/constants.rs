//! What a stream and a delivery cost, as measured. To renew them, run the commands that are
//! named here on the machine to plan for, or give `fanfare plan` its figures as options.

/// Where the measured ones are from; `fanfare plan` prints it.
pub(super) const SOURCE: &str = "docs/compare.md: `scripts/compare`, raw streams, payloads of 100 bytes, 10 events a \
     second, each delivery a write of its own (those that share a tick cost less), a virtual machine of two cores \
     that server and clients share; the same is measured by `fanfare bench`";

/// Memory of a raw stream on one topic: Pss of 10,000 idle streams, 1.60 KiB each.
pub(super) const BYTES_PER_STREAM: u64 = 1_643;

/// Of each further topic of a stream: an estimate for topics that no other stream has. One that
/// others have too takes some 30 bytes.
pub(super) const BYTES_PER_FURTHER_TOPIC: u64 = 300;

/// Of a server without streams, its history aside: Pss of a hub just started, rounded up.
pub(super) const BYTES_PER_SERVER: u64 = 32 * 1024 * 1024;

/// Time on a core for a delivery that is a write of its own, at 1,000 streams a server.
pub(super) const CPU_MICROS_PER_DELIVERY_FEW_STREAMS: f64 = 6.38;

/// The same at 10,000 streams a server, whose state no longer fits into the cores' caches.
pub(super) const CPU_MICROS_PER_DELIVERY_MANY_STREAMS: f64 = 6.52;

/// Up to as many streams a server the figure for few is taken.
pub(super) const FEW_STREAMS: u64 = 1000;

/// Time on a core that an idle stream takes each second, its heartbeats included: 0.65 % of a core
/// for 10,000.
pub(super) const CPU_MICROS_PER_IDLE_STREAM_SECOND: f64 = 0.65;

/// How much of the cores is planned for: the rest is for reconnecting clients and for peaks.
pub(super) const CPU_SHARE: f64 = 0.7;

/// How much of the memory: the kernel's socket buffers and peaks of the outboxes are not in
/// the figures above.
pub(super) const MEMORY_SHARE: f64 = 0.7;

/// Files of a server that are not streams, as `fanfare serve` keeps them free.
pub(super) const SPARE_FILES: u64 = 200;

/// Lines of an event around its data: `data: `, `id: ` with a cursor of 16 partitions that are
/// all in use, line ends.
pub(super) const SSE_BYTES_PER_EVENT: u64 = 120;

/// A chunk's size and line ends (RFC 9112 §7.1), for each write.
pub(super) const HTTP_BYTES_PER_WRITE: u64 = 8;

/// Of each packet: IPv4 20, TCP 20 and its timestamps 12, Ethernet with preamble and gap 38.
pub(super) const NETWORK_BYTES_PER_PACKET: u64 = 90;

/// What a packet carries at most: an MTU of 1,500 without the headers.
pub(super) const PACKET_DATA_BYTES: u64 = 1448;

/// A heartbeat's line, a chunk of its own.
pub(super) const HEARTBEAT_BYTES: u64 = 12;
