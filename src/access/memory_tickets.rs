//! The tickets of a single instance, in memory.
//!
//! Bounds: [`MAX_TICKETS_PER_OWNER`] tickets of one owner, the oldest go; [`MAX_BYTES`] for all, then none
//! is issued.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_core::{
    access::{MAX_TICKETS_PER_OWNER, TicketLife, TicketStore, TicketsDown, ticket_name},
    future::BoxFuture,
};
use futures_util::{FutureExt, future::ready};
use parking_lot::Mutex;

use crate::clock::now;

/// Bytes of all tickets.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// An estimate of a ticket's bytes besides its text.
const ENTRY_BYTES: usize = 300;

#[derive(Default)]
pub(crate) struct MemoryTickets {
    all: Arc<Mutex<Tickets>>,
}

#[derive(Default)]
struct Tickets {
    by_name: HashMap<String, Entry>,
    by_owner: HashMap<String, VecDeque<String>>,
    used_bytes: usize,
    sweeps_at_bytes: usize,
}

struct Entry {
    owner: String,
    text: String,
    ends_at: Instant,
}

impl Tickets {
    fn insert(&mut self, name: String, entry: Entry) -> Result<(), TicketsDown> {
        if self.used_bytes >= self.sweeps_at_bytes {
            self.sweep();
            // The cost of a sweep is constant for each new ticket.
            self.sweeps_at_bytes = (2 * self.used_bytes).clamp(1024 * 1024, MAX_BYTES);
        }
        let of_owner = self.by_owner.entry(entry.owner.clone()).or_default();
        let oldest =
            if of_owner.len() >= MAX_TICKETS_PER_OWNER { of_owner.pop_front() } else { None };
        of_owner.push_back(name.clone());
        if let Some(old) = oldest.and_then(|name| self.by_name.remove(&name)) {
            self.used_bytes -= bytes(&old);
        }
        if self.used_bytes + bytes(&entry) > MAX_BYTES {
            self.forget(&entry.owner, &name);
            return Err(TicketsDown);
        }
        self.used_bytes += bytes(&entry);
        self.by_name.insert(name, entry);
        Ok(())
    }

    fn sweep(&mut self) {
        let now = now();
        let ended = self.by_name.extract_if(|_, entry| entry.ends_at <= now);
        let ended: Vec<(String, Entry)> = ended.collect();
        for (name, entry) in ended {
            self.used_bytes -= bytes(&entry);
            self.forget(&entry.owner, &name);
        }
    }

    fn forget(&mut self, owner: &str, name: &str) {
        if let Some(names) = self.by_owner.get_mut(owner) {
            names.retain(|one| one != name);
            if names.is_empty() {
                self.by_owner.remove(owner);
            }
        }
    }

    fn find(&mut self, name: &str) -> Option<&mut Entry> {
        self.by_name.get_mut(name).filter(|entry| entry.ends_at > now())
    }
}

fn bytes(entry: &Entry) -> usize {
    ENTRY_BYTES + entry.text.len() + 2 * entry.owner.len()
}

impl TicketStore for MemoryTickets {
    fn insert(
        &self,
        owner: String,
        text: String,
        life: TicketLife,
    ) -> BoxFuture<'static, Result<String, TicketsDown>> {
        let name = ticket_name(0, rand::random());
        let ends_at = now() + Duration::from_millis(life.window_ms);
        let inserted = self.all.lock().insert(name.clone(), Entry { owner, text, ends_at });
        ready(inserted.map(|()| name)).boxed()
    }

    fn read(&self, name: String) -> BoxFuture<'static, Result<Option<String>, TicketsDown>> {
        ready(Ok(self.all.lock().find(&name).map(|entry| entry.text.clone()))).boxed()
    }

    fn replace(
        &self,
        name: String,
        old: String,
        new: String,
        life_ms: u64,
    ) -> BoxFuture<'static, Result<bool, TicketsDown>> {
        let mut all = self.all.lock();
        let Some(entry) = all.find(&name).filter(|entry| entry.text == old) else {
            return ready(Ok(false)).boxed();
        };
        let added = new.len();
        entry.text = new;
        entry.ends_at = now() + Duration::from_millis(life_ms);
        all.used_bytes = all.used_bytes + added - old.len();
        ready(Ok(true)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn insert(tickets: &MemoryTickets, owner: &str) -> String {
        let life = TicketLife { window_ms: 1000, used_ms: 5000 };
        tickets.insert(owner.to_owned(), "{}".to_owned(), life).await.expect("there is room")
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_is_there_for_its_life_and_changed_by_one() {
        let tickets = MemoryTickets::default();
        let (name, unused) = (insert(&tickets, "ann").await, insert(&tickets, "ann").await);
        let read = async |name: &str| tickets.read(name.to_owned()).await.expect("memory");
        let replace = async |old: &str, new: &str| {
            tickets.replace(name.clone(), old.to_owned(), new.to_owned(), 5000).await
        };
        assert_eq!(read(&name).await.as_deref(), Some("{}"));
        assert_eq!(read("other").await, None);
        assert_eq!(replace("{}", "{1}").await, Ok(true));
        assert_eq!(replace("{}", "{2}").await, Ok(false));
        assert_eq!(read(&name).await.as_deref(), Some("{1}"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(read(&unused).await, None);
        assert_eq!(read(&name).await.as_deref(), Some("{1}"));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(read(&name).await, None);
        let mut all = tickets.all.lock();
        all.sweep();
        assert!(all.by_name.is_empty() && all.by_owner.is_empty() && all.used_bytes == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_owner_has_a_bounded_number() {
        let tickets = MemoryTickets::default();
        let other = insert(&tickets, "bob").await;
        let mut names = Vec::new();
        for _ in 0..=MAX_TICKETS_PER_OWNER {
            names.push(insert(&tickets, "ann").await);
        }
        let read = async |name: &str| tickets.read(name.to_owned()).await.expect("memory");
        assert_eq!(read(&names[0]).await, None);
        assert!(read(&names[1]).await.is_some() && read(&other).await.is_some());
    }
}
