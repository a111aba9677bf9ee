//! How a mirror reaches the log in Redis.

use std::fmt::Debug;

use super::messages::Relayed;
use crate::domain::relay::Request;

/// The way to Redis. Nothing here waits, and what is handed over keeps its order.
pub(crate) trait Relay: Debug + Send + Sync {
    /// Publishes events of one partition; each is answered by itself.
    fn publish(&self, partition: u16, publishes: Vec<Relayed>);

    /// Asks on behalf of a partition, on the connection of that generation if it still is
    /// the present one.
    fn ask(&self, partition: u16, generation: u64, requests: Vec<Request>);

    /// Tells a mirror that was built anew of the connection that there is.
    fn reconnect(&self, partition: u16);
}
