//! The verdict: every client got all due events and nothing else.

use std::collections::{BTreeMap, HashSet};

use super::{ModelTotals, PARTITIONS, World};
use crate::{client::ModelClient, expectation::Due, reference::CollapsedItem};

impl World {
    /// Compares the received events with the expected deliveries.
    pub fn check(mut self) -> ModelTotals {
        assert!(self.tickets.is_empty() && self.graph.calls.is_empty(), "unanswered changes");
        for number in 0..self.clients.len() {
            let client = &self.clients[number];
            assert!(client.has_begun, "client {number} has never connected");
            self.check_order(number, client);
            self.check_counts(number, client);
            self.totals.superseded += self.check_promises(number, client);
            let client = &self.clients[number];
            let is_post =
                |index: &&usize| self.reference.records[**index].topic.starts_with("posts");
            let is_feed = client.expectation.feed_of().is_some();
            self.totals.posts += client.got.iter().filter(is_post).count() * usize::from(is_feed);
            let due = (0..client.due.len()).filter(|index| client.due[*index] == Due::Must);
            self.totals.excused += due.clone().filter(|index| !self.is_due(client, *index)).count();
            self.totals.due += due.count();
            self.totals.got += client.is_got.len();
            self.totals.gaps += client.gap_count;
            self.totals.shutdowns += client.shutdown_count;
        }
        self.totals
    }

    /// The places of possible restarts in `got`: after a gap with a new epoch, the client gets the rest
    /// of history again.
    fn restarts<'a>(&self, client: &'a ModelClient) -> &'a [usize] {
        let redis = self.redis.as_ref();
        let repeats = redis.is_some_and(|redis| redis.loses_tails || redis.is_cluster);
        if repeats { &client.restarts_at } else { &[] }
    }

    /// Each partition in order, no event twice, no unwanted event.
    fn check_order(&self, number: usize, client: &ModelClient) {
        let mut last = [(0, 0); PARTITIONS as usize];
        let mut run: HashSet<usize> = HashSet::new();
        for (place, index) in client.got.iter().enumerate() {
            if self.restarts(client).contains(&place) {
                last = Default::default();
                run.clear();
            }
            let record = &self.reference.records[*index];
            if client.blurred.contains(&record.number) {
                continue;
            }
            assert!(run.insert(*index), "client {number} got {index} twice: {client:?}");
            let last = &mut last[usize::from(record.partition)];
            let place = (record.era, record.sequence);
            assert!(
                *last < place,
                "client {number} got {index} out of order: {last:?} {record:?}\n{client:?}"
            );
            *last = place;
            assert_ne!(
                client.due[*index],
                Due::Not,
                "client {number} got unwanted {index}: {record:?}\n{client:?}"
            );
        }
    }

    /// A merged event counts the events of its item since the last received one: all due events,
    /// and no unwanted event.
    fn check_counts(&self, number: usize, client: &ModelClient) {
        let mut before: BTreeMap<CollapsedItem, usize> = BTreeMap::new();
        let is_blurred =
            |index: usize| client.blurred.contains(&self.reference.records[index].number);
        for (place, index) in client.got.iter().enumerate() {
            if self.restarts(client).contains(&place) {
                before.clear();
            }
            let count = client.told[place].count;
            let Some(item) = self.reference.collapses_with(*index) else {
                assert_eq!(count, 1, "client {number}: {index} never merges");
                continue;
            };
            if is_blurred(*index) {
                before.clear();
                continue;
            }
            let since = before.insert(item, *index).map_or(0, |before| before + 1);
            let between: Vec<usize> = (since..*index)
                .filter(|between| self.reference.collapses_with(*between) == Some(item))
                .collect();
            let may = between.iter().filter(|between| client.due[**between] != Due::Not).count();
            let must = between.iter().filter(|between| {
                self.is_due(client, **between) && !client.uncounted.contains(between)
            });
            // Before an `epoch` gap, the client may have got some of them already.
            let is_exact = client.epoch_gaps_at.is_empty() && client.blurred.is_empty();
            let must = if is_exact { must.count() } else { 0 };
            assert!(
                (must..=may).contains(&(count - 1)),
                "client {number} got {index} as {count} events, but {must} to {may} were merged \
                 into it, of {between:?}: {:?}\n{client:?}",
                self.reference.records[*index],
            );
        }
    }

    /// Every due event arrived, or a later event superseded it or counted it. Returns the number of
    /// superseded events.
    fn check_promises(&self, number: usize, client: &ModelClient) -> usize {
        let mut superseded = 0;
        let untold = (0..client.due.len()).filter(|index| !client.is_got.contains(index));
        for index in untold.filter(|index| self.is_due(client, *index)) {
            let mut later = index + 1..self.reference.records.len();
            // A lost event supersedes the older ones for its receivers only.
            let supersedes = |later: usize| {
                let is_left = !self.reference.records[later].is_gone;
                self.reference.is_same_item(index, later)
                    && (is_left || client.is_got.contains(&later))
            };
            if later.clone().any(supersedes) {
                superseded += 1;
                continue;
            }
            let item = self.reference.collapses_with(index);
            let mut merged = || {
                later.any(|later| {
                    let is_blurred = client.blurred.contains(&self.reference.records[later].number);
                    (client.is_got.contains(&later) || is_blurred)
                        && self.reference.collapses_with(later) == item
                })
            };
            assert!(
                item.is_some() && merged() || client.uncounted.contains(&index),
                "client {number} lost {index}: {:?}\nclient: {client:?}\n\
                 {:?}",
                self.reference.records[index],
                self.settings,
            );
        }
        superseded
    }

    /// Whether an event must have arrived: expected, and not excused by a gap.
    fn is_due(&self, client: &ModelClient, index: usize) -> bool {
        let record = &self.reference.records[index];
        let is_excused = client.excused.contains(&index)
            || client.dropped.iter().any(|(partition, era, before, after)| {
                (record.partition, record.era) == (*partition, *era)
                    && (before + 1..*after).contains(&record.sequence)
            })
            || record.era < client.epoch_gaps_through
            || (record.is_lost && !client.epoch_gaps_at.is_empty());
        let is_blurred = client.blurred.contains(&record.number);
        client.due[index] == Due::Must && !is_excused && !is_blurred
    }
}
