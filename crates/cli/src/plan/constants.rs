//! The measured costs of a stream and of a delivery. To update them, run the commands named in
//! [`SOURCE`] on the target machine, or pass your own figures to `fanfare plan` as options.

/// The source of the measured costs; `fanfare plan` prints it.
pub(super) const SOURCE: &str = "docs/compare.md: `scripts/compare`, raw streams, payloads of 100 bytes, 10 events a \
     second, each delivery a write of its own (those that share a tick cost less), a virtual machine of two cores \
     that server and clients share; the same is measured by `fanfare bench`";

/// Memory of a raw stream on one topic: Pss of 10,000 idle streams, 0.93 to 1.04 KiB each.
pub(super) const BYTES_PER_STREAM: u64 = 1_065;

/// Memory of each further topic of a stream: an estimate for topics without other subscribers. A
/// topic shared with other streams takes about 30 bytes.
pub(super) const BYTES_PER_FURTHER_TOPIC: u64 = 300;

/// Memory of a server without streams and history: Pss of a hub just started, rounded up.
pub(super) const BYTES_PER_SERVER: u64 = 32 * 1024 * 1024;

/// CPU time of a delivery with its own write, at 1,000 streams per server.
pub(super) const CPU_MICROS_PER_DELIVERY_FEW_STREAMS: f64 = 4.69;

/// The same at 10,000 streams per server: their state exceeds the caches of the cores.
pub(super) const CPU_MICROS_PER_DELIVERY_MANY_STREAMS: f64 = 4.72;

/// Most streams per server for the first of the two figures.
pub(super) const FEW_STREAMS: u64 = 1000;

/// CPU time of an idle stream per second, heartbeats included: 0.36 % of a core for 10,000 streams.
pub(super) const CPU_MICROS_PER_IDLE_STREAM_SECOND: f64 = 0.36;

/// Planned share of the cores. The rest is for reconnecting clients and for peaks.
pub(super) const CPU_SHARE: f64 = 0.7;

/// Planned share of the memory. The figures above exclude the kernel's socket buffers and peaks of
/// the outboxes.
pub(super) const MEMORY_SHARE: f64 = 0.7;

/// Open files of a server besides the streams; `fanfare serve` keeps this many free.
pub(super) const SPARE_FILES: u64 = 200;

/// Bytes of an event besides its data: `data: `, `id: ` with a cursor of 16 partitions, all in
/// use, and line ends.
pub(super) const SSE_BYTES_PER_EVENT: u64 = 120;

/// Chunk size and line ends of each write (RFC 9112 §7.1).
pub(super) const HTTP_BYTES_PER_WRITE: u64 = 8;

/// Headers of a packet: IPv4 20, TCP 20 and its timestamps 12, Ethernet with preamble and gap 38.
pub(super) const NETWORK_BYTES_PER_PACKET: u64 = 90;

/// Most data of a packet: an MTU of 1,500 without the headers.
pub(super) const PACKET_DATA_BYTES: u64 = 1448;

/// A heartbeat's line. Each heartbeat is one chunk.
pub(super) const HEARTBEAT_BYTES: u64 = 12;
