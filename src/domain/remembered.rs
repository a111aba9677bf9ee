//! The publishes that are remembered by their id, so that a repeated one is answered as the
//! first was and delivers nothing.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::topic::Topic;

/// What a publish with an id was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub sequence: u64,
    pub receivers: usize,
}

type Key = (Topic, Arc<str>);

/// How many answers all partitions of a hub remember together.
#[derive(Debug)]
pub(crate) struct RememberedBudget {
    max_count: usize,
    count: AtomicUsize,
}

impl RememberedBudget {
    pub fn new(max_count: usize) -> Self {
        Self { max_count, count: AtomicUsize::new(0) }
    }
}

/// Answers by topic and id, for the length of the window. Bounded: when the budget is used
/// up, a publish with a new id has to be refused, since forgetting an old one early would
/// let it be delivered twice.
#[derive(Debug)]
pub(crate) struct Remembered {
    window: Duration,
    budget: Arc<RememberedBudget>,
    answers: HashMap<Key, Answer>,
    /// In the order of their expiry, which is that of their arrival.
    expiries: VecDeque<(Instant, Key)>,
}

impl Remembered {
    pub fn new(window: Duration, budget: Arc<RememberedBudget>) -> Self {
        Self { window, budget, answers: HashMap::new(), expiries: VecDeque::new() }
    }

    /// The answer that a publish with this id got.
    pub fn get(&mut self, topic: &Topic, id: &str, now: Instant) -> Option<Answer> {
        self.expire(now);
        self.answers.get(&(topic.clone(), id.into())).copied()
    }

    /// Whether no further id can be remembered.
    pub fn is_full(&self) -> bool {
        self.budget.count.load(Ordering::Relaxed) >= self.budget.max_count
    }

    /// Remembers an answer.
    pub fn insert(&mut self, topic: &Topic, id: &str, answer: Answer, now: Instant) {
        let key: Key = (topic.clone(), id.into());
        self.expiries.push_back((now + self.window, key.clone()));
        self.answers.insert(key, answer);
        self.budget.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets what the window has left behind.
    pub fn expire(&mut self, now: Instant) {
        while self.expiries.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.expiries.pop_front() {
                self.answers.remove(&key);
                self.budget.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        self.budget.count.fetch_sub(self.expiries.len(), Ordering::Relaxed);
    }
}

/// Which topics of a partition each fan-out with an id has reached, for the length of the
/// window. It shares the budget.
#[derive(Debug)]
pub(crate) struct RememberedFanOuts {
    window: Duration,
    budget: Arc<RememberedBudget>,
    topics: HashMap<Arc<str>, HashSet<Topic>>,
    /// In the order of their expiry.
    expiries: VecDeque<(Instant, Arc<str>)>,
}

impl RememberedFanOuts {
    pub fn new(window: Duration, budget: Arc<RememberedBudget>) -> Self {
        Self { window, budget, topics: HashMap::new(), expiries: VecDeque::new() }
    }

    /// Whether so many more topics can be remembered.
    pub fn has_room(&self, count: usize) -> bool {
        let used = self.budget.count.load(Ordering::Relaxed);
        used.saturating_add(count) <= self.budget.max_count
    }

    /// Remembers that a fan-out has reached a topic. Returns whether that is new.
    pub fn insert(&mut self, id: &Arc<str>, topic: &Topic, now: Instant) -> bool {
        self.expire(now);
        let topics = self.topics.entry(id.clone()).or_insert_with(|| {
            self.expiries.push_back((now + self.window, id.clone()));
            HashSet::new()
        });
        let is_new = topics.insert(topic.clone());
        self.budget.count.fetch_add(usize::from(is_new), Ordering::Relaxed);
        is_new
    }

    /// Forgets what the window has left behind.
    pub fn expire(&mut self, now: Instant) {
        while self.expiries.front().is_some_and(|(at, _)| *at <= now) {
            let expired = self.expiries.pop_front().and_then(|(_, id)| self.topics.remove(&id));
            let count = expired.map_or(0, |topics| topics.len());
            self.budget.count.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

impl Drop for RememberedFanOuts {
    fn drop(&mut self) {
        let count = self.topics.values().map(HashSet::len).sum();
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
        let mut remembered = Remembered::new(window, Arc::new(RememberedBudget::new(2)));
        let answer = Answer { sequence: 7, receivers: 3 };
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
        let mut remembered = Remembered::new(window, Arc::new(RememberedBudget::new(1)));
        remembered.insert(&topic, "id", Answer { sequence: 1, receivers: 0 }, start);
        assert!(remembered.is_full());
        remembered.expire(start + window);
        assert!(!remembered.is_full());
    }
}
