//! The bytes held for all HTTP requests of a hub: bodies being read and answers not yet read by
//! their clients.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::addresses::Address;

/// A request up to this size may use the whole budget, a larger one three quarters of it: a few
/// large requests must not refuse all small ones.
const SMALL_BYTES: usize = 64 * 1024;

/// The budget of a hub.
#[derive(Debug)]
pub(crate) struct RequestBudget {
    max_bytes: usize,
    held_bytes: AtomicUsize,
    /// One permit: large bodies are decoded one after the other.
    decoding: Arc<Semaphore>,
}

/// The bytes held for one request. Dropping it returns them.
#[derive(Debug)]
pub(crate) struct RequestBytes {
    budget: Arc<RequestBudget>,
    /// The client's address, and its bound.
    address: Option<(Arc<Address>, usize)>,
    held_bytes: AtomicUsize,
}

/// Whether a request may take more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// The hub's budget is in use.
    HubFull,
    /// The share of the client's address is in use.
    AddressFull,
}

impl RequestBudget {
    pub fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            held_bytes: AtomicUsize::new(0),
            decoding: Arc::new(Semaphore::new(1)),
        })
    }

    /// The account of a new request.
    pub fn request(self: &Arc<Self>, address: Option<(Arc<Address>, usize)>) -> RequestBytes {
        RequestBytes { budget: self.clone(), address, held_bytes: AtomicUsize::new(0) }
    }

    /// The bytes held now.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }
}

impl RequestBytes {
    /// Counts bytes taken for the request. The caller asks [`Self::room`] before it takes more.
    pub fn add(&self, bytes: usize) {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some((address, _)) = &self.address {
            address.held_bytes().fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Waits until the hub decodes no other large body. `None`: never, the semaphore stays open.
    pub async fn decoding_turn(&self) -> Option<OwnedSemaphorePermit> {
        self.budget.decoding.clone().acquire_owned().await.ok()
    }

    /// Counts bytes given up.
    pub fn subtract(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some((address, _)) = &self.address {
            address.held_bytes().fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Whether the request may take more bytes.
    pub fn room(&self) -> Room {
        let address = self.address.as_ref();
        let is_over = address
            .is_some_and(|(address, max)| address.held_bytes().load(Ordering::Relaxed) > *max);
        let max_bytes = match self.held_bytes.load(Ordering::Relaxed) {
            ..=SMALL_BYTES => self.budget.max_bytes,
            _ => self.budget.max_bytes / 4 * 3,
        };
        match self.budget.held_bytes() <= max_bytes {
            false => Room::HubFull,
            true if is_over => Room::AddressFull,
            true => Room::Free,
        }
    }
}

impl Drop for RequestBytes {
    fn drop(&mut self) {
        self.subtract(self.held_bytes.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_requests_leave_room_for_small_ones_and_a_dropped_request_returns_its_bytes() {
        let budget = RequestBudget::new(1024 * 1024);
        let (large, small) = (budget.request(None), budget.request(None));
        large.add(768 * 1024);
        assert_eq!(large.room(), Room::Free);
        large.add(1);
        small.add(SMALL_BYTES);
        assert_eq!(large.room(), Room::HubFull);
        assert_eq!(small.room(), Room::Free);
        small.add(1);
        assert_eq!(small.room(), Room::HubFull, "it is large now");
        drop(large);
        assert_eq!(small.room(), Room::Free);
        small.subtract(1);
        assert_eq!(budget.held_bytes(), SMALL_BYTES);
        drop(small);
        assert_eq!(budget.held_bytes(), 0);
    }
}
