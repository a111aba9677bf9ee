//! The idempotency window: answers to publishes by their id. A repeated publish gets the first
//! answer and delivers nothing.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::topic::Topic;

/// The first answer to a publish with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstAnswer {
    pub sequence: u64,
    /// The time of the publish.
    pub unix_ms: u64,
    pub receivers: usize,
}

type Key = (Topic, Arc<str>);

/// The number of ids remembered by all partitions of a hub together, and its bound.
#[derive(Debug)]
pub struct IdBudget {
    max_count: usize,
    count: AtomicUsize,
}

impl IdBudget {
    pub fn new(max_count: usize) -> Self {
        Self { max_count, count: AtomicUsize::new(0) }
    }
}

/// Answers by topic and id, for the length of the window. Bounded: with the budget used up, the
/// caller must refuse a publish with a new id. Dropping an old id early would let a repeated
/// publish deliver twice.
#[derive(Debug)]
pub struct IdempotencyWindow {
    window: Duration,
    budget: Arc<IdBudget>,
    answers: HashMap<Key, FirstAnswer>,
    /// In order of expiry, equal to the order of arrival.
    expiries: VecDeque<(Instant, Key)>,
}

impl IdempotencyWindow {
    pub fn new(window: Duration, budget: Arc<IdBudget>) -> Self {
        Self { window, budget, answers: HashMap::new(), expiries: VecDeque::new() }
    }

    /// The first answer to a publish with this id; none for a new or expired id.
    pub fn get(&mut self, topic: &Topic, id: &str, now: Instant) -> Option<FirstAnswer> {
        self.expire(now);
        self.answers.get(&(topic.clone(), id.into())).copied()
    }

    /// Whether the budget has no room for another id.
    pub fn is_full(&self) -> bool {
        self.budget.count.load(Ordering::Relaxed) >= self.budget.max_count
    }

    /// Remembers an answer, also beyond the budget: the caller checks [`Self::is_full`] first.
    pub fn insert(&mut self, topic: &Topic, id: &str, answer: FirstAnswer, now: Instant) {
        let key: Key = (topic.clone(), id.into());
        self.expiries.push_back((now + self.window, key.clone()));
        self.answers.insert(key, answer);
        self.budget.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets answers older than the window.
    pub fn expire(&mut self, now: Instant) {
        while self.expiries.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.expiries.pop_front() {
                self.answers.remove(&key);
                self.budget.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for IdempotencyWindow {
    fn drop(&mut self) {
        self.budget.count.fetch_sub(self.expiries.len(), Ordering::Relaxed);
    }
}

/// The topics of a partition reached by each fan-out with an id, and its mode, for the length of
/// the window since its last use. It has a budget of its own.
#[derive(Debug)]
pub struct FanOutWindow {
    window: Duration,
    budget: Arc<IdBudget>,
    fan_outs: HashMap<Arc<str>, FanOutMemory>,
    /// The next expiry check of each fan-out.
    expiries: VecDeque<(Instant, Arc<str>)>,
    hasher: RandomState,
}

#[derive(Debug)]
struct FanOutMemory {
    until: Instant,
    is_pull: Option<bool>,
    /// Hashes of the topics. At 64 bits, a collision is too improbable to matter.
    topics: HashSet<u64>,
}

impl FanOutWindow {
    pub fn new(window: Duration, budget: Arc<IdBudget>) -> Self {
        let (fan_outs, expiries) = (HashMap::new(), VecDeque::new());
        Self { window, budget, fan_outs, expiries, hasher: RandomState::new() }
    }

    /// Whether the budget has room for the new ones of these topics.
    pub fn has_room(&mut self, id: &Arc<str>, topics: &[Topic], now: Instant) -> bool {
        self.expire(now);
        let known = self.fan_outs.get(id).map(|memory| &memory.topics);
        let is_new = |topic: &&Topic| {
            known.is_none_or(|known| !known.contains(&self.hasher.hash_one(topic)))
        };
        let used = self.budget.count.load(Ordering::Relaxed);
        used.saturating_add(topics.iter().filter(is_new).count()) <= self.budget.max_count
    }

    /// Records a topic reached by a fan-out. Returns whether it is new.
    pub fn insert(&mut self, id: &Arc<str>, topic: &Topic, now: Instant) -> bool {
        let hash = self.hasher.hash_one(topic);
        let is_new = self.memory(id, now).topics.insert(hash);
        self.budget.count.fetch_add(usize::from(is_new), Ordering::Relaxed);
        is_new
    }

    /// Whether the fan-out is a pull. The first call for an id decides for the later ones.
    pub fn settle(&mut self, id: &Arc<str>, is_pull: bool, now: Instant) -> bool {
        self.expire(now);
        *self.memory(id, now).is_pull.get_or_insert(is_pull)
    }

    fn memory(&mut self, id: &Arc<str>, now: Instant) -> &mut FanOutMemory {
        let until = now + self.window;
        let memory = self.fan_outs.entry(id.clone()).or_insert_with(|| {
            self.expiries.push_back((until, id.clone()));
            FanOutMemory { until, is_pull: None, topics: HashSet::new() }
        });
        memory.until = until;
        memory
    }

    /// Forgets fan-outs older than the window.
    pub fn expire(&mut self, now: Instant) {
        while self.expiries.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = self.expiries.pop_front() else { return };
            match self.fan_outs.get(&id).map(|memory| memory.until) {
                // Used since the check was queued: check again at its new expiry.
                Some(until) if until > now => self.expiries.push_back((until, id)),
                _ => {
                    let count = self.fan_outs.remove(&id).map_or(0, |memory| memory.topics.len());
                    self.budget.count.fetch_sub(count, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Drop for FanOutWindow {
    fn drop(&mut self) {
        let count = self.fan_outs.values().map(|memory| memory.topics.len()).sum();
        self.budget.count.fetch_sub(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_remembered_for_its_topic_and_window_only() {
        let (start, window) = (Instant::now(), Duration::from_secs(300));
        let [here, there] = ["here", "there"].map(|name| Topic::parse(name).unwrap());
        let mut remembered = IdempotencyWindow::new(window, Arc::new(IdBudget::new(2)));
        let answer = FirstAnswer { sequence: 7, unix_ms: 9, receivers: 3 };
        remembered.insert(&here, "id", answer, start);
        let just_before = start + window - Duration::from_nanos(1);
        assert_eq!(remembered.get(&here, "id", just_before), Some(answer));
        assert_eq!(remembered.get(&there, "id", just_before), None);
        assert_eq!(remembered.get(&here, "id", start + window), None);
    }

    #[test]
    fn a_full_window_says_so_until_something_expires() {
        let (start, window) = (Instant::now(), Duration::from_secs(300));
        let topic = Topic::parse("topic").unwrap();
        let mut remembered = IdempotencyWindow::new(window, Arc::new(IdBudget::new(1)));
        remembered.insert(
            &topic,
            "id",
            FirstAnswer { sequence: 1, unix_ms: 9, receivers: 0 },
            start,
        );
        assert!(remembered.is_full());
        remembered.expire(start + window);
        assert!(!remembered.is_full());
    }

    #[test]
    fn a_fan_out_is_remembered_since_it_was_last_asked() {
        let (start, window) = (Instant::now(), Duration::from_secs(300));
        let [here, there] = ["here", "there"].map(|name| Topic::parse(name).unwrap());
        let budget = Arc::new(IdBudget::new(2));
        let mut remembered = FanOutWindow::new(window, budget.clone());
        let id: Arc<str> = "ada 1".into();
        assert!(remembered.insert(&id, &here, start));
        let later = start + window - Duration::from_secs(1);
        assert!(!remembered.insert(&id, &here, later));
        assert!(remembered.settle(&id, true, later) && remembered.settle(&id, false, later));
        assert!(!remembered.insert(&id, &here, start + window));
        assert!(remembered.insert(&id, &there, start + window));
        // A recorded topic needs no room.
        let both = [here.clone(), there];
        assert!(remembered.has_room(&id, &both, start + window));
        assert!(!remembered.has_room(&"ada 2".into(), &both, start + window));
        remembered.expire(start + 3 * window);
        assert_eq!(budget.count.load(Ordering::Relaxed), 0);
        assert!(remembered.insert(&id, &here, start + 3 * window));
    }
}
