//! The idempotency window: answers to publishes by their id. A repeated publish gets the first
//! answer and delivers nothing.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{error::PublishError, id_budget::IdBudget, ids::PublisherId, topic::Topic};

/// The first answer to a publish with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstAnswer {
    pub sequence: u64,
    /// The time of the publish.
    pub unix_ms: u64,
    pub receivers: usize,
}

/// A hash of topic and id. At 128 bits with random keys, a collision is too improbable to matter. So
/// each id takes the same memory, however long it is.
type IdHash = (u64, u64);

/// The memory of one id: its places in the map and in the list of expiries. Both have up to twice
/// the places they use.
pub const ID_BYTES: usize = 2 * (size_of::<(IdHash, FirstAnswer)>() + 1) + 2 * size_of::<Expiry>();

#[derive(Debug)]
struct Expiry {
    at: Instant,
    hash: IdHash,
    publisher: PublisherId,
}

/// Answers by topic and id, for the length of the window. Bounded: over the publisher's share of the
/// budget, the caller must refuse a publish with a new id. Dropping an old id early would let a
/// repeated publish deliver twice.
#[derive(Debug)]
pub struct IdempotencyWindow {
    window: Duration,
    budget: Arc<IdBudget>,
    answers: HashMap<IdHash, FirstAnswer>,
    /// In order of expiry, equal to the order of arrival.
    expiries: VecDeque<Expiry>,
    hashers: [RandomState; 2],
}

impl IdempotencyWindow {
    pub fn new(window: Duration, budget: Arc<IdBudget>) -> Self {
        let (answers, expiries) = (HashMap::new(), VecDeque::new());
        // Each new state has other keys.
        let hashers = [RandomState::new(), RandomState::new()];
        Self { window, budget, answers, expiries, hashers }
    }

    /// The first answer to a publish with this id; none for a new or expired id.
    pub fn get(&mut self, topic: &Topic, id: &str, now: Instant) -> Option<FirstAnswer> {
        self.expire(now);
        self.answers.get(&self.hash(topic, id)).copied()
    }

    /// Checks that the publisher may add an id.
    ///
    /// # Errors
    /// The publisher's share, or the whole budget, is used up.
    pub fn check(&self, publisher: PublisherId) -> Result<(), PublishError> {
        self.budget.check(publisher, ID_BYTES)
    }

    /// Remembers an answer, also beyond the budget: the caller calls [`Self::check`] first.
    pub fn insert(
        &mut self,
        topic: &Topic,
        id: &str,
        publisher: PublisherId,
        answer: FirstAnswer,
        now: Instant,
    ) {
        let hash = self.hash(topic, id);
        self.expiries.push_back(Expiry { at: now + self.window, hash, publisher });
        self.answers.insert(hash, answer);
        self.budget.add(publisher, ID_BYTES);
    }

    /// Forgets answers older than the window.
    pub fn expire(&mut self, now: Instant) {
        while self.expiries.front().is_some_and(|expiry| expiry.at <= now) {
            if let Some(Expiry { hash, publisher, .. }) = self.expiries.pop_front() {
                self.answers.remove(&hash);
                self.budget.release(publisher, ID_BYTES);
            }
        }
        if self.answers.capacity() > 4 * self.answers.len() + 1024 {
            self.answers.shrink_to(2 * self.answers.len());
            self.expiries.shrink_to(2 * self.expiries.len());
        }
    }

    fn hash(&self, topic: &Topic, id: &str) -> IdHash {
        let [first, second] = &self.hashers;
        (first.hash_one((topic, id)), second.hash_one((topic, id)))
    }
}

impl Drop for IdempotencyWindow {
    fn drop(&mut self) {
        for expiry in &self.expiries {
            self.budget.release(expiry.publisher, ID_BYTES);
        }
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

/// The memory of one fan-out without its topics: its places in the map and in the list.
const FAN_OUT_BYTES: usize = 2 * (size_of::<(Arc<str>, FanOutMemory)>() + 1)
    + 2 * size_of::<(Instant, Arc<str>)>()
    + 2 * size_of::<usize>();

/// The memory of one topic reached.
const REACHED_BYTES: usize = 2 * (size_of::<u64>() + 1);

#[derive(Debug)]
struct FanOutMemory {
    until: Instant,
    is_pull: Option<bool>,
    /// The first publisher of the fan-out pays for all of it.
    publisher: PublisherId,
    /// Hashes of the topics. At 64 bits, a collision is too improbable to matter.
    topics: HashSet<u64>,
}

impl FanOutWindow {
    pub fn new(window: Duration, budget: Arc<IdBudget>) -> Self {
        let (fan_outs, expiries) = (HashMap::new(), VecDeque::new());
        Self { window, budget, fan_outs, expiries, hasher: RandomState::new() }
    }

    /// Checks that the publisher may add the new ones of these topics.
    ///
    /// # Errors
    /// The publisher's share, or the whole budget, is used up.
    pub fn check(
        &mut self,
        id: &Arc<str>,
        publisher: PublisherId,
        topics: &[Topic],
        now: Instant,
    ) -> Result<(), PublishError> {
        self.expire(now);
        let known = self.fan_outs.get(id);
        let is_new = |topic: &&Topic| {
            known.is_none_or(|known| !known.topics.contains(&self.hasher.hash_one(topic)))
        };
        let own = if known.is_none() { fan_out_bytes(id) } else { 0 };
        let bytes = own + REACHED_BYTES * topics.iter().filter(is_new).count();
        let payer = known.map_or(publisher, |known| known.publisher);
        if bytes == 0 { Ok(()) } else { self.budget.check(payer, bytes) }
    }

    /// Records a topic reached by a fan-out. Returns whether it is new.
    pub fn insert(
        &mut self,
        id: &Arc<str>,
        publisher: PublisherId,
        topic: &Topic,
        now: Instant,
    ) -> bool {
        let hash = self.hasher.hash_one(topic);
        let memory = self.memory(id, publisher, now);
        let (is_new, payer) = (memory.topics.insert(hash), memory.publisher);
        if is_new {
            self.budget.add(payer, REACHED_BYTES);
        }
        is_new
    }

    /// Whether the fan-out is a pull. The first call for an id decides for the later ones.
    ///
    /// # Errors
    /// The publisher's share, or the whole budget, is used up.
    pub fn settle(
        &mut self,
        id: &Arc<str>,
        publisher: PublisherId,
        is_pull: bool,
        now: Instant,
    ) -> Result<bool, PublishError> {
        self.check(id, publisher, &[], now)?;
        Ok(*self.memory(id, publisher, now).is_pull.get_or_insert(is_pull))
    }

    /// Records a mode of an earlier time.
    pub fn restore_mode(
        &mut self,
        id: &Arc<str>,
        publisher: PublisherId,
        is_pull: bool,
        at: Instant,
    ) {
        self.memory(id, publisher, at).is_pull.get_or_insert(is_pull);
    }

    fn memory(&mut self, id: &Arc<str>, publisher: PublisherId, now: Instant) -> &mut FanOutMemory {
        let until = now + self.window;
        let memory = self.fan_outs.entry(id.clone()).or_insert_with(|| {
            self.expiries.push_back((until, id.clone()));
            self.budget.add(publisher, fan_out_bytes(id));
            FanOutMemory { until, is_pull: None, publisher, topics: HashSet::new() }
        });
        memory.until = memory.until.max(until);
        memory
    }

    /// Whether the fan-out has reached the topic.
    pub fn has(&self, id: &str, topic: &Topic) -> bool {
        let hash = self.hasher.hash_one(topic);
        self.fan_outs.get(id).is_some_and(|memory| memory.topics.contains(&hash))
    }

    /// The recorded mode of the fan-out (`true` for pull).
    pub fn mode_of(&self, id: &str) -> Option<bool> {
        self.fan_outs.get(id)?.is_pull
    }

    /// Forgets topics not reached after all.
    pub fn forget(&mut self, id: &str, topics: &[Topic]) {
        let Some(memory) = self.fan_outs.get_mut(id) else { return };
        let hasher = &self.hasher;
        let mut forgotten = 0;
        for topic in topics {
            forgotten += usize::from(memory.topics.remove(&hasher.hash_one(topic)));
        }
        self.budget.release(memory.publisher, REACHED_BYTES * forgotten);
    }

    /// Forgets a mode not recorded after all.
    pub fn forget_mode(&mut self, id: &str) {
        if let Some(memory) = self.fan_outs.get_mut(id) {
            memory.is_pull = None;
        }
    }

    /// Forgets fan-outs older than the window.
    pub fn expire(&mut self, now: Instant) {
        while self.expiries.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = self.expiries.pop_front() else { return };
            match self.fan_outs.get(&id).map(|memory| memory.until) {
                // Used since the check was queued: check again at its new expiry.
                Some(until) if until > now => self.expiries.push_back((until, id)),
                _ => {
                    if let Some(memory) = self.fan_outs.remove(&id) {
                        self.budget.release(memory.publisher, memory.bytes(&id));
                    }
                }
            }
        }
    }
}

impl Drop for FanOutWindow {
    fn drop(&mut self) {
        for (id, memory) in &self.fan_outs {
            self.budget.release(memory.publisher, memory.bytes(id));
        }
    }
}

impl FanOutMemory {
    fn bytes(&self, id: &str) -> usize {
        fan_out_bytes(id) + REACHED_BYTES * self.topics.len()
    }
}

fn fan_out_bytes(id: &str) -> usize {
    FAN_OUT_BYTES + id.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);
    const ANSWER: FirstAnswer = FirstAnswer { sequence: 7, unix_ms: 9, receivers: 3 };
    const APPLICATION: PublisherId = PublisherId::Application;

    fn topics() -> [Topic; 2] {
        ["here", "there"].map(|name| Topic::parse(name).unwrap())
    }

    #[test]
    fn an_id_is_remembered_for_its_topic_and_window_only() {
        let start = Instant::now();
        let [here, there] = topics();
        let mut remembered = IdempotencyWindow::new(WINDOW, Arc::new(IdBudget::new(1000)));
        remembered.insert(&here, "id", APPLICATION, ANSWER, start);
        let just_before = start + WINDOW - Duration::from_nanos(1);
        assert_eq!(remembered.get(&here, "id", just_before), Some(ANSWER));
        assert_eq!(remembered.get(&there, "id", just_before), None);
        assert_eq!(remembered.get(&here, "id2", just_before), None);
        assert_eq!(remembered.get(&here, "id", start + WINDOW), None);
    }

    #[test]
    fn a_full_share_is_refused_until_something_expires() {
        let start = Instant::now();
        let [topic, _] = topics();
        let budget = Arc::new(IdBudget::new(20 * ID_BYTES));
        let mut remembered = IdempotencyWindow::new(WINDOW, budget.clone());
        let [hoarder, other] = [1, 2].map(|last| PublisherId::of_address([10, 0, 0, last].into()));
        let mut count = 0;
        while remembered.check(hoarder).is_ok() {
            remembered.insert(&topic, &count.to_string(), hoarder, ANSWER, start);
            count += 1;
        }
        assert!((8..=10).contains(&count), "{count}");
        assert_eq!(remembered.check(hoarder), Err(PublishError::TooManyIds));
        assert_eq!(remembered.check(other), Ok(()));
        remembered.expire(start + WINDOW);
        assert_eq!(remembered.check(hoarder), Ok(()));
        remembered.insert(&topic, "last", hoarder, ANSWER, start + WINDOW);
        drop(remembered);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_fan_out_is_remembered_since_it_was_last_asked() {
        let start = Instant::now();
        let [here, there] = topics();
        let id: Arc<str> = "ada 1".into();
        let room = fan_out_bytes(&id) + 2 * REACHED_BYTES;
        let budget = Arc::new(IdBudget::new(room + 100));
        let mut remembered = FanOutWindow::new(WINDOW, budget.clone());
        assert!(remembered.insert(&id, APPLICATION, &here, start));
        let later = start + WINDOW - Duration::from_secs(1);
        assert!(!remembered.insert(&id, APPLICATION, &here, later));
        assert_eq!(remembered.settle(&id, APPLICATION, true, later), Ok(true));
        assert_eq!(remembered.settle(&id, APPLICATION, false, later), Ok(true));
        assert!(!remembered.insert(&id, APPLICATION, &here, start + WINDOW));
        assert!(remembered.insert(&id, APPLICATION, &there, start + WINDOW));
        // A recorded topic needs no room.
        let both = [here.clone(), there];
        assert_eq!(remembered.check(&id, APPLICATION, &both, start + WINDOW), Ok(()));
        let other = "ada 2".into();
        let full = Err(PublishError::AtCapacity);
        assert_eq!(remembered.check(&other, APPLICATION, &both, start + WINDOW), full);
        remembered.expire(start + 3 * WINDOW);
        assert_eq!(budget.used_bytes(), 0);
        assert!(remembered.insert(&id, APPLICATION, &here, start + 3 * WINDOW));
        drop(remembered);
        assert_eq!(budget.used_bytes(), 0);
    }
}
