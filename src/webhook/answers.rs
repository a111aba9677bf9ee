//! The application's answers, by credential, and the questions in flight. A herd of requests with
//! one credential asks once.
//!
//! Bounds: [`MAX_BYTES`] for all answers. Past it, expired answers go first, then any. Questions in
//! flight are bounded by the web client.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_core::access::AskedCaller;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

use super::{caller::CallerKey, exchange::Answer};
use crate::access::Refused;

/// Bytes of all answers: 100,000 of usual size.
const MAX_BYTES: usize = 64 * 1024 * 1024;

const REFUSED_BYTES: usize = 128;

/// Time between the two looks at a refused request for a raw stream: the framework writes the
/// refusal.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// The answers of one credential's requests.
pub(super) type Outcome = Result<Arc<Known>, Refused>;

/// A question in flight, awaited by many.
pub(super) type Asking = Shared<BoxFuture<'static, Outcome>>;

/// An answer with its times.
#[derive(Debug)]
pub(super) struct Known {
    pub answer: Answer,
    /// Shared by all streams of the answer.
    pub caller: Arc<AskedCaller>,
    /// Milliseconds since 1970 at the question.
    pub at_ms: u64,
    pub ends_at: Instant,
}

enum Entry {
    Known(Arc<Known>),
    /// A refusal at the first look at a request, for the second look.
    Refused(Refused, Instant),
    /// Dropped by all its requests, it is forgotten.
    Asking(WeakShared<BoxFuture<'static, Outcome>>),
}

/// All answers of a hub.
#[derive(Default)]
pub(super) struct Answers {
    entries: HashMap<CallerKey, Entry>,
    used_bytes: usize,
}

/// What is there for a credential.
pub(super) enum Found {
    Known(Arc<Known>),
    Refused(Refused),
    Asking(Asking),
    Nothing,
}

impl Answers {
    pub fn find(&self, key: &CallerKey, now: Instant) -> Found {
        match self.entries.get(key) {
            Some(Entry::Known(known)) if now < known.ends_at => Found::Known(known.clone()),
            Some(Entry::Asking(asking)) => asking.upgrade().map_or(Found::Nothing, Found::Asking),
            _ => Found::Nothing,
        }
    }

    /// Notes a refusal at the first look at a request.
    pub fn refuse(&mut self, key: CallerKey, refused: Refused, now: Instant) {
        self.make_room(REFUSED_BYTES, now);
        self.put(key, Entry::Refused(refused, now));
    }

    /// What the second look at a request finds. It takes a refusal away: a later request asks again.
    pub fn find_again(&mut self, key: &CallerKey, now: Instant) -> Found {
        let Some(Entry::Refused(refused, at)) = self.entries.get(key) else {
            return self.find(key, now);
        };
        let (refused, is_recent) = (*refused, now.saturating_duration_since(*at) < SECOND_LOOK);
        self.remove(key);
        if is_recent { Found::Refused(refused) } else { Found::Nothing }
    }

    /// Notes a question.
    pub fn begin(&mut self, key: CallerKey, question: BoxFuture<'static, Outcome>) -> Asking {
        let asking = question.shared();
        if let Some(weak) = asking.downgrade() {
            self.put(key, Entry::Asking(weak));
        }
        asking
    }

    /// Notes its outcome. Refusals and answers without a life are not kept.
    pub fn finish(&mut self, key: CallerKey, outcome: &Outcome, now: Instant) {
        match outcome {
            Ok(known) if now < known.ends_at => {
                self.make_room(bytes_of(known), now);
                self.put(key, Entry::Known(known.clone()));
            }
            _ => self.remove(&key),
        }
    }

    fn put(&mut self, key: CallerKey, entry: Entry) {
        self.used_bytes += bytes(&entry);
        if let Some(old) = self.entries.insert(key, entry) {
            self.used_bytes -= bytes(&old);
        }
    }

    fn remove(&mut self, key: &CallerKey) {
        if let Some(old) = self.entries.remove(key) {
            self.used_bytes -= bytes(&old);
        }
    }

    /// A full cache loses a quarter, so its sweeps cost little for each new answer.
    fn make_room(&mut self, needed: usize, now: Instant) {
        if self.used_bytes + needed <= MAX_BYTES {
            return;
        }
        self.keep(|entry| match entry {
            Entry::Known(known) => now < known.ends_at,
            Entry::Asking(asking) => asking.upgrade().is_some(),
            Entry::Refused(_, at) => now.saturating_duration_since(*at) < SECOND_LOOK,
        });
        let mut excess = (self.used_bytes + needed).saturating_sub(MAX_BYTES / 4 * 3);
        self.keep(|entry| {
            let goes = excess > 0 && !matches!(entry, Entry::Asking(_));
            excess = excess.saturating_sub(if goes { bytes(entry) } else { 0 });
            !goes
        });
    }

    fn keep(&mut self, mut is_kept: impl FnMut(&Entry) -> bool) {
        let used = &mut self.used_bytes;
        self.entries.retain(|_, entry| {
            let stays = is_kept(entry);
            *used -= if stays { 0 } else { bytes(entry) };
            stays
        });
    }
}

fn bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Known(known) => bytes_of(known),
        Entry::Asking(_) => 256,
        Entry::Refused(..) => REFUSED_BYTES,
    }
}

fn bytes_of(known: &Known) -> usize {
    known.answer.bytes + known.caller.bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fanfare_core::access::Rights;

    use super::*;

    fn known(now: Instant, life_ms: u64, bytes: usize) -> Outcome {
        let life = Duration::from_millis(life_ms);
        let answer = Answer { user: None, rights: Arc::new(Rights::default()), life, bytes };
        Ok(Arc::new(Known { answer, caller: Arc::default(), at_ms: 0, ends_at: now + life }))
    }

    fn key(number: u32) -> CallerKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn an_answer_is_known_until_its_end() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        answers.finish(key(1), &known(now, 50, 300), now);
        assert!(matches!(answers.find(&key(1), now), Found::Known(_)));
        assert!(matches!(answers.find(&key(2), now), Found::Nothing));
        let later = now + Duration::from_millis(50);
        assert!(matches!(answers.find(&key(1), later), Found::Nothing));
        answers.finish(key(1), &Err(Refused::Forbidden), now);
        assert!(matches!(answers.find(&key(1), now), Found::Nothing));
        assert_eq!(answers.used_bytes, 0);
    }

    #[test]
    fn a_refusal_is_found_once_by_the_second_look_only() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        for delay in [Duration::ZERO, SECOND_LOOK] {
            answers.refuse(key(1), Refused::Forbidden, now);
            assert!(matches!(answers.find(&key(1), now), Found::Nothing));
            let found = answers.find_again(&key(1), now + delay);
            assert_eq!(matches!(found, Found::Refused(Refused::Forbidden)), delay < SECOND_LOOK);
            assert!(matches!(answers.find_again(&key(1), now), Found::Nothing));
            assert_eq!(answers.used_bytes, 0);
        }
    }

    #[test]
    fn requests_meeting_a_question_share_it_as_long_as_one_waits() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        let asking = answers.begin(key(1), futures_util::future::pending().boxed());
        assert!(matches!(answers.find(&key(1), now), Found::Asking(_)));
        drop(asking);
        assert!(matches!(answers.find(&key(1), now), Found::Nothing));
    }

    #[test]
    fn all_answers_together_are_bounded() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        let large = MAX_BYTES / 10;
        for number in 0..30 {
            let life_ms = if number < 5 { 1 } else { 60_000 };
            let later = now + Duration::from_millis(u64::from(number));
            answers.finish(key(number), &known(later, life_ms, large), later);
            assert!(answers.used_bytes <= MAX_BYTES);
        }
        assert!(answers.entries.len() > 5);
    }
}
