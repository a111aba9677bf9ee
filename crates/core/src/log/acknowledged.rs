//! The publishes of one instance confirmed by Redis, one for each server: the last one. A replica
//! finds out with them whether a later server has lost events.

use crate::cursor::Epoch;

/// Bound on the servers. It matters only after as many failovers without an answered request of the
/// replica.
const MAX_SERVERS: usize = 8;

/// An event confirmed by Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub epoch: Epoch,
    pub sequence: u64,
    /// The `run_id` of the confirming server.
    pub server: String,
}

/// The last confirmed event of each server, the server confirming last at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acknowledgements(Vec<Acknowledged>);

impl Acknowledgements {
    /// Notes one more confirmed event.
    pub fn note(&mut self, one: Acknowledged) {
        self.0.retain(|other| other.server != one.server);
        if self.0.len() == MAX_SERVERS {
            self.0.remove(0);
        }
        self.0.push(one);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Acknowledged> {
        self.0.iter()
    }

    pub fn contains(&self, one: &Acknowledged) -> bool {
        self.0.contains(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_keeps_its_last_event() {
        let mut all = Acknowledgements::default();
        let one = |server: usize, sequence| Acknowledged {
            epoch: Epoch::new(1),
            sequence,
            server: server.to_string(),
        };
        for sequence in 1..=3 {
            all.note(one(0, sequence));
            all.note(one(1, sequence + 10));
        }
        assert_eq!(all.iter().collect::<Vec<_>>(), [&one(0, 3), &one(1, 13)]);
        (2..=MAX_SERVERS).for_each(|server| all.note(one(server, 20)));
        assert!(!all.contains(&one(0, 3)) && all.contains(&one(1, 13)));
    }
}
