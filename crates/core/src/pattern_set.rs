//! The patterns of streams: each set of patterns once in the process, with an id, and all sets in
//! one index shared by all partitions and workers. An index in each partition for each stream would
//! take many times the memory.
//!
//! The index is behind a lock. Partitions and topic managers with patterns read it once per event;
//! a new or dropped set writes to it, in turns of 64 patterns.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
};

use smallvec::SmallVec;

use crate::{
    pattern_index::PatternIndex,
    topic::{Pattern, Topic},
};

/// The number of a set while it lives. A later set can get the same number.
pub type PatternSetId = u32;

/// The most patterns added or removed while the lock is held.
const TURN: usize = 64;

static SHARED: LazyLock<RwLock<SharedPatterns>> = LazyLock::new(RwLock::default);

/// All sets of the process.
#[derive(Default)]
struct SharedPatterns {
    index: PatternIndex,
    /// By hash of their patterns.
    sets: HashMap<u64, SmallVec<[Weak<PatternSet>; 1]>>,
    hasher: RandomState,
    free_ids: Vec<PatternSetId>,
    next_id: PatternSetId,
}

// A poisoned lock is used on: nothing panics while holding it.

fn read() -> RwLockReadGuard<'static, SharedPatterns> {
    SHARED.read().unwrap_or_else(PoisonError::into_inner)
}

fn write() -> RwLockWriteGuard<'static, SharedPatterns> {
    SHARED.write().unwrap_or_else(PoisonError::into_inner)
}

/// The sets with a pattern matching the topic, each once. Includes sets of other hubs.
pub fn sets_matching(topic: &Topic) -> SmallVec<[PatternSetId; 8]> {
    let mut matching = SmallVec::new();
    read().index.for_each_match(topic, |set| matching.push(set));
    matching.sort_unstable();
    matching.dedup();
    matching
}

/// Patterns of a stream, matched together. Streams with the same patterns share one set.
#[derive(Debug)]
pub struct PatternSet {
    /// Each once, sorted.
    patterns: Box<[Pattern]>,
    id: PatternSetId,
    hash: u64,
}

impl PatternSet {
    /// The empty set, one for all streams.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<PatternSet>> =
            LazyLock::new(|| Arc::new(PatternSet { patterns: Box::default(), id: 0, hash: 0 }));
        NONE.clone()
    }

    /// The set of these patterns.
    pub fn of(mut patterns: Vec<Pattern>) -> Arc<Self> {
        if patterns.is_empty() {
            return Self::none();
        }
        patterns.sort_unstable();
        patterns.dedup();
        let hash = read().hasher.hash_one(&patterns);
        // Two bindings, dropped after unlocking: dropping a set locks.
        let (known, _passed) = read().find(hash, &patterns);
        if let Some(known) = known {
            return known;
        }
        let id = write().new_id();
        let set = Arc::new(Self { patterns: patterns.into(), id, hash });
        // Index first: a set found by another thread must be complete.
        for patterns in set.patterns.chunks(TURN) {
            let mut shared = write();
            patterns.iter().for_each(|pattern| shared.index.insert(pattern, id));
        }
        let mut shared = write();
        let (known, passed) = shared.find(hash, &set.patterns);
        if known.is_none() {
            shared.sets.entry(hash).or_default().push(Arc::downgrade(&set));
        }
        drop(shared);
        drop(passed);
        known.unwrap_or(set)
    }

    /// Different for each living set.
    pub fn id(&self) -> PatternSetId {
        self.id
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.iter()
    }

    /// Whether this very pattern is in the set.
    pub fn contains(&self, pattern: &Pattern) -> bool {
        self.patterns.binary_search(pattern).is_ok()
    }

    /// The set without these patterns; `None` if it has none of them.
    pub fn without(&self, gone: &HashSet<&Pattern>) -> Option<Arc<Self>> {
        let left: Vec<Pattern> = self.iter().filter(|one| !gone.contains(one)).cloned().collect();
        (left.len() < self.len()).then(|| Self::of(left))
    }

    /// Whether one of the patterns matches.
    pub fn matches(&self, topic: &Topic) -> bool {
        any_contains(&self.patterns, 0, topic.as_str())
    }
}

/// Two sets with the same patterns are the same set.
impl PartialEq for PatternSet {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for PatternSet {}

impl Hash for PatternSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl Drop for PatternSet {
    fn drop(&mut self) {
        if self.patterns.is_empty() {
            return;
        }
        let this: *const Self = self;
        write().forget(self.hash, this);
        for patterns in self.patterns.chunks(TURN) {
            let mut shared = write();
            patterns.iter().for_each(|pattern| shared.index.remove(pattern, self.id));
        }
        write().free_ids.push(self.id);
    }
}

impl SharedPatterns {
    /// The living set of these patterns; and sets met on the way, to be dropped after unlocking.
    fn find(
        &self,
        hash: u64,
        patterns: &[Pattern],
    ) -> (Option<Arc<PatternSet>>, Vec<Arc<PatternSet>>) {
        let all = self.sets.get(&hash).into_iter().flatten().filter_map(Weak::upgrade);
        let (mut known, others): (Vec<_>, Vec<_>) = all.partition(|set| *set.patterns == *patterns);
        (known.pop(), others)
    }

    fn forget(&mut self, hash: u64, gone: *const PatternSet) {
        let Some(sets) = self.sets.get_mut(&hash) else { return };
        sets.retain(|set| !std::ptr::eq(set.as_ptr(), gone));
        if sets.is_empty() {
            self.sets.remove(&hash);
        }
    }

    fn new_id(&mut self) -> PatternSetId {
        self.free_ids.pop().unwrap_or_else(|| {
            // 0 is the empty set.
            self.next_id += 1;
            self.next_id
        })
    }
}

/// Whether one of these patterns contains a whole requested topic or pattern. They are sorted, so
/// patterns with the same beginning are neighbours. All agree with the request in their first
/// `start` bytes; `remaining` is the request after them. Wildcards contain no name of the hub,
/// beginning with `$`.
pub(crate) fn any_contains<P: AsRef<str>>(patterns: &[P], start: usize, remaining: &str) -> bool {
    let (segment, rest) = match remaining.split_once(':') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (remaining, None),
    };
    let ends = |wanted: &str| {
        patterns.binary_search_by(|pattern| pattern.as_ref()[start..].cmp(wanted)).is_ok()
    };
    let goes_on = |wanted: &str| {
        let begin = |pattern: &P| {
            let text = pattern.as_ref()[start..].bytes().take(wanted.len() + 1);
            text.cmp(wanted.bytes().chain([b':']))
        };
        let first = patterns.partition_point(|pattern| begin(pattern).is_lt());
        let count = patterns[first..].partition_point(|pattern| begin(pattern).is_eq());
        &patterns[first..first + count]
    };
    let is_reserved = start == 0 && segment.starts_with('$');
    let wildcard = (!is_reserved && segment != "*").then_some("*");
    !patterns.is_empty()
        && (!is_reserved && ends("**")
            // Only `**` contains `**`.
            || segment != "**"
                && [segment].into_iter().chain(wildcard).any(|wanted| match rest {
                    None => ends(wanted),
                    Some(rest) => any_contains(goes_on(wanted), start + wanted.len() + 1, rest),
                }))
}

/// All pattern sets of one stream: one, and one more for each live change.
#[derive(Debug, Clone, Default)]
#[expect(clippy::box_collection, reason = "most streams have none: one word, not three")]
pub struct Patterns(Option<Box<Vec<Arc<PatternSet>>>>);

impl Patterns {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The number of patterns.
    pub fn len(&self) -> usize {
        self.sets().iter().map(|set| set.iter().count()).sum()
    }

    /// The sets; none of them is empty.
    pub fn sets(&self) -> &[Arc<PatternSet>] {
        self.0.as_ref().map_or(&[], |sets| sets)
    }

    /// The set of a stream whose patterns have not changed; the empty set for no patterns.
    pub fn first(&self) -> Arc<PatternSet> {
        self.sets().first().cloned().unwrap_or_else(PatternSet::none)
    }

    /// All patterns, each once, in any order.
    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.sets().iter().flat_map(|set| set.iter())
    }

    pub fn contains(&self, pattern: &Pattern) -> bool {
        self.sets().iter().any(|set| set.contains(pattern))
    }

    /// Whether one of the patterns matches.
    pub fn matches(&self, topic: &Topic) -> bool {
        self.sets().iter().any(|set| set.matches(topic))
    }

    /// The sets not in `others`.
    pub fn without<'a>(&'a self, others: &Self) -> impl Iterator<Item = &'a Arc<PatternSet>> {
        let others: HashSet<PatternSetId> = others.sets().iter().map(|set| set.id()).collect();
        self.sets().iter().filter(move |set| !others.contains(&set.id()))
    }

    /// The patterns after a change. Sets without a removed pattern stay; the added patterns become
    /// one set more. So the cost is that of the changed sets.
    #[must_use]
    pub fn changed(&self, add: Vec<Pattern>, remove: &HashSet<&Pattern>) -> Self {
        let sets = self.sets().iter();
        let left = sets.map(|set| set.without(remove).unwrap_or_else(|| set.clone()));
        let mut all: Self = left.collect();
        let added: Vec<Pattern> = add.into_iter().filter(|one| !all.contains(one)).collect();
        all.extend([PatternSet::of(added)]);
        all
    }
}

impl Extend<Arc<PatternSet>> for Patterns {
    fn extend<I: IntoIterator<Item = Arc<PatternSet>>>(&mut self, sets: I) {
        for set in sets.into_iter().filter(|set| !set.is_empty()) {
            self.0.get_or_insert_default().push(set);
        }
    }
}

impl FromIterator<Arc<PatternSet>> for Patterns {
    fn from_iter<I: IntoIterator<Item = Arc<PatternSet>>>(sets: I) -> Self {
        let mut all = Self::default();
        all.extend(sets);
        all
    }
}
