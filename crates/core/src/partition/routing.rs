//! The routing of a partition's events: its listeners, and the deliveries queued for their
//! managers.

use std::collections::HashMap;

use super::{Delivery, listeners::Listeners};
use crate::ids::ManagerId;

/// The common part of all partitions.
#[derive(Debug)]
pub struct Routing<P> {
    pub(super) listeners: Listeners,
    outgoing: HashMap<ManagerId, Vec<Delivery<P>>>,
}

impl<P> Default for Routing<P> {
    fn default() -> Self {
        Self { listeners: Listeners::default(), outgoing: HashMap::new() }
    }
}

impl<P> Routing<P> {
    /// Queues a delivery. Returns the length of this manager's queue, unbounded here.
    pub(super) fn queue(&mut self, manager: ManagerId, delivery: Delivery<P>) -> usize {
        let queue = self.outgoing.entry(manager).or_default();
        queue.push(delivery);
        queue.len()
    }

    /// Takes the deliveries queued for a manager, in order.
    pub fn take_outgoing(&mut self, manager: ManagerId) -> Vec<Delivery<P>> {
        self.outgoing.remove(&manager).unwrap_or_default()
    }

    /// Whether deliveries are queued for a manager.
    pub fn has_outgoing(&self, manager: ManagerId) -> bool {
        self.outgoing.contains_key(&manager)
    }

    /// Drops the deliveries queued for a manager, and queues this one.
    pub(super) fn replace_outgoing(&mut self, manager: ManagerId, delivery: Delivery<P>) {
        self.outgoing.insert(manager, vec![delivery]);
    }

    /// Drops the deliveries queued for a manager.
    pub(super) fn drop_outgoing(&mut self, manager: ManagerId) {
        self.outgoing.remove(&manager);
    }
}
