//! Whether every client got what it had to get.

use std::collections::HashSet;

use super::{PARTITIONS, Totals, World, wants};
use crate::domain::cursor::Cursor;

impl World {
    /// Compares what clients got with what was published.
    pub fn check(mut self) -> Totals {
        for (number, client) in self.clients.iter().enumerate() {
            let baseline: Cursor = client.baseline.as_ref().unwrap().parse().unwrap();
            let first_era = if self.redis.is_some() { baseline.epoch.number() - 1 } else { 0 };
            let loses_tails = self.redis.as_ref().is_some_and(|redis| redis.loses_tails);
            let got: HashSet<usize> = client.got.iter().copied().collect();
            // After a gap of another epoch it may have got again what was left.
            let restarts = client.epoch_gaps_at.iter().filter(|_| loses_tails).copied();
            let starts: Vec<usize> = [0].into_iter().chain(restarts).collect();
            let mut last = [(0, 0); PARTITIONS as usize];
            let mut run: HashSet<usize> = HashSet::new();
            for (place, index) in client.got.iter().enumerate() {
                if starts.contains(&place) {
                    last = Default::default();
                    run.clear();
                }
                assert!(run.insert(*index), "client {number} got {index} twice: {client:?}");
                let record = &self.reference.records[*index];
                let last = &mut last[usize::from(record.partition)];
                let place = (record.era, record.sequence);
                assert!(
                    *last < place,
                    "client {number} got {index} out of order: {last:?} {record:?}\n{client:?}"
                );
                *last = place;
                assert!(wants(client, record), "client {number} got {index} unasked");
            }
            for (index, record) in self.reference.records.iter().enumerate() {
                let since = baseline.positions.get(record.partition);
                let is_due = since.is_some_and(|since| {
                    record.era > first_era || (record.era == first_era && record.sequence > since)
                });
                if !is_due || !wants(client, record) || got.contains(&index) {
                    continue;
                }
                let is_excused = client.excused.contains(&index)
                    || client.dropped_in.contains(&record.partition)
                    || record.era < client.epoch_gaps_through
                    || (record.is_lost && !client.epoch_gaps_at.is_empty());
                let later = index + 1..self.reference.records.len();
                let is_superseded =
                    later.into_iter().any(|later| self.reference.is_same_item(index, later));
                assert!(
                    is_excused || is_superseded,
                    "client {number} lost {index}: {record:?}\nclient: {client:?}\nhistory: {:?} outbox: {:?} rate: {:?}",
                    self.config.history,
                    self.config.outbox,
                    self.config.stream.rate,
                );
                self.totals.superseded += usize::from(is_superseded);
            }
            self.totals.got += got.len();
            self.totals.gaps += client.gap_count;
            self.totals.shutdowns += client.shutdown_count;
        }
        self.totals
    }
}
