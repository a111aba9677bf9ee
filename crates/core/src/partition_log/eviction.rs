//! Eviction of a partition's events: by the budget, by age, and of idle topics. Counts the bytes in use.

use std::{
    cmp::Reverse,
    sync::Arc,
    time::{Duration, Instant},
};

use super::PartitionLog;
use crate::{budget::Excess, event::SequencedEvent, topic::Topic};

/// Added to the time of held values: beyond the age of any event.
const HELD_RANK: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl PartitionLog {
    /// Evicts the oldest events until the budget is met, or another partition has older events.
    pub(super) fn keep_within_budget(&mut self) -> Option<u16> {
        loop {
            match self.budget.excess(self.partition)? {
                Excess::Other(partition) => {
                    return self.budget.ask(partition).then_some(partition);
                }
                Excess::Own => {
                    if !self.evict_oldest() {
                        return None;
                    }
                }
            }
        }
    }

    /// Evicts the oldest events at the request of another partition. Returns the next partition due
    /// to evict, if any.
    pub fn trim(&mut self) -> Option<u16> {
        self.budget.answer(self.partition);
        self.keep_within_budget()
    }

    /// Forgets events older than their topic's policy allows.
    pub fn expire(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.expiries.peek()
            && *at <= now
            && let Some(Reverse((_, topic))) = self.expiries.pop()
        {
            let Some(history) = self.topics.get_mut(&topic) else { continue };
            let left = history.expire(now, self.evictions + 1);
            let next = history.expires_at();
            history.is_listed_to_expire = next.is_some();
            self.expiries.extend(next.map(|next| Reverse((next, topic.clone()))));
            self.count_out(&left);
            self.note_evictions(&topic);
        }
        self.tidy();
    }

    /// Evicts the oldest event which is not the current value of a key. If there is none, only moves
    /// the current values aside: the next call evicts the oldest of them, unless another partition
    /// has other events. False if there is nothing to evict.
    pub(super) fn evict_oldest(&mut self) -> bool {
        let pinned_after = self.pinned_after.unwrap_or(u64::MAX);
        let mut has_held = false;
        while self.order.front().is_some_and(|(sequence, _)| *sequence <= pinned_after)
            && let Some((sequence, topic)) = self.order.pop_front()
        {
            let history = self.topics.get(&topic);
            let Some(event) = history.and_then(|history| history.get(sequence)) else { continue };
            if event.is_current_value() {
                self.held.push_back((sequence, topic));
                has_held = true;
                continue;
            }
            self.evict(sequence, &topic);
            return true;
        }
        if has_held {
            self.say_oldest();
            return true;
        }
        while self.held.front().is_some_and(|(sequence, _)| *sequence <= pinned_after)
            && let Some((sequence, topic)) = self.held.pop_front()
        {
            if self.evict(sequence, &topic) {
                return true;
            }
        }
        false
    }

    fn evict(&mut self, sequence: u64, topic: &Topic) -> bool {
        let number = self.evictions + 1;
        let history = self.topics.get_mut(topic);
        let Some(event) = history.and_then(|history| history.evict(sequence, number)) else {
            return false;
        };
        self.count_out(std::slice::from_ref(&event));
        if event.is_current_value()
            && let Some(lost) = &mut self.lost
        {
            lost.push(event);
        }
        self.note_evictions(topic);
        self.tidy();
        true
    }

    /// Records removed events of a topic, and its own bytes. Call it after every change of a topic's
    /// history.
    pub(super) fn note_evictions(&mut self, topic: &Topic) {
        let Some(history) = self.topics.get_mut(topic) else { return };
        self.evictions += u64::from(history.was_evicted_at(self.evictions + 1));
        self.evicted_through = self.evicted_through.max(history.evicted_through());
        if history.is_empty() && !std::mem::replace(&mut history.is_listed_idle, true) {
            self.idle.push_back((topic.clone(), history.last()));
        }
        let now = (history.topic_bytes() as u32, history.is_empty());
        let before = std::mem::replace(&mut history.counted, now);
        if now != before {
            self.release_topic(before);
            self.add_topic(now);
        }
    }

    pub(super) fn add_topic(&mut self, (bytes, is_idle): (u32, bool)) {
        let bytes = bytes as usize;
        match is_idle {
            true => {
                self.idle_bytes += bytes;
                self.budget.add_idle(bytes);
            }
            false => {
                self.kept_bytes += bytes;
                self.budget.add(bytes);
            }
        }
    }

    pub(super) fn release_topic(&mut self, (bytes, is_idle): (u32, bool)) {
        let bytes = bytes as usize;
        match is_idle {
            true => {
                self.idle_bytes -= bytes;
                self.budget.release_idle(bytes);
            }
            false => {
                self.kept_bytes -= bytes;
                self.budget.release(bytes);
            }
        }
    }

    pub(super) fn count_in(&mut self, event: &SequencedEvent) {
        self.kept_events += 1;
        self.kept_bytes += event.size_bytes();
        self.budget.add(event.size_bytes());
    }

    pub(super) fn count_out(&mut self, left: &[Arc<SequencedEvent>]) {
        let bytes: usize = left.iter().map(|event| event.size_bytes()).sum();
        self.kept_events -= left.len();
        self.kept_bytes -= bytes;
        self.budget.release(bytes);
    }

    /// Drops stale entries of `order`: always at its front, and everywhere once they outnumber the
    /// kept events. Forgets the oldest idle topics past the bound.
    pub(super) fn tidy(&mut self) {
        let topics = &self.topics;
        let kept = |(sequence, topic): &(u64, Topic)| {
            topics.get(topic).is_some_and(|history| history.holds(*sequence))
        };
        while self.order.front().is_some_and(|place| !kept(place)) {
            self.order.pop_front();
        }
        while self.held.front().is_some_and(|place| !kept(place)) {
            self.held.pop_front();
        }
        if self.held.len() + self.order.len() > 2 * self.kept_events + 1024 {
            self.order.retain(kept);
            self.held.retain(kept);
        }
        if self.expiries.len() > 3 * self.topics.len() / 2 + 1024 {
            self.list_all_to_expire();
        }
        self.say_oldest();
        self.forget_idle_topics();
    }

    /// Lists all topics anew, without the entries of forgotten topics.
    pub(super) fn list_all_to_expire(&mut self) {
        let entries = self.topics.iter_mut().filter_map(|(topic, history)| {
            let at = history.expires_at();
            history.is_listed_to_expire = at.is_some();
            Some(Reverse((at?, topic.clone())))
        });
        self.expiries = entries.collect();
    }

    /// Forgets the longest idle topics past the bound. A topic with new events since its listing
    /// stays. Each call checks at most `MAX_LOOKS` topics, so its work is bounded.
    fn forget_idle_topics(&mut self) {
        const MAX_LOOKS: usize = 8;
        for _ in 0..MAX_LOOKS {
            if self.idle.len() <= self.max_idle_topics && !self.budget.has_idle_excess() {
                return;
            }
            let Some((topic, last)) = self.idle.pop_front() else { return };
            let Some(history) = self.topics.get_mut(&topic) else { continue };
            if !history.is_empty() {
                history.is_listed_idle = false;
            } else if history.last() == last {
                let counted = history.counted;
                self.topics.remove(&topic);
                self.release_topic(counted);
                self.forgotten_through = self.forgotten_through.max(last);
                self.evicted_through = self.evicted_through.max(last);
            } else {
                self.idle.push_back((topic, history.last()));
            }
        }
    }

    /// Reports the age of the next event to evict. Held values count as younger than all events.
    pub(super) fn say_oldest(&self) {
        let event = |(sequence, topic): &(u64, Topic)| {
            self.topics.get(topic).and_then(|history| history.get(*sequence))
        };
        let passing = self.order.front().and_then(event).map(|event| event.published_at);
        let held = self.held.front().and_then(event).map(|event| event.published_at);
        let held = held.and_then(|at| at.checked_add(HELD_RANK));
        self.budget.set_oldest(self.partition, passing.or(held));
    }
}
