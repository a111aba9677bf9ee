//! Numbers of managers and streams within their hub.

/// Names a topic manager within its hub.
pub type ManagerId = u64;

/// Names a stream within its hub.
pub type StreamId = u64;
