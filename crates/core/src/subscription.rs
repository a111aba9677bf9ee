//! Subscriptions: the builder for embedders, and the resolved form in the hub.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    access::Grant,
    cursor::{Cursor, CursorError, ReplayKind},
    error::SubscribeError,
    event::{MAX_FIELD_BYTES, SequencedEvent},
    interest::{Begun, Interest, Rest, Resumed, Start, StartFrom, Told, Topics, TypeFilter},
    pattern_set::{PatternSet, Patterns},
    shared_names::SharedNames,
    topic::{Pattern, Topic},
    user::User,
};

/// The topics of a stream. The request decides the options left open here: `types`, `batch`,
/// `snapshot` and the resume position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    topics: Vec<String>,
    options: StreamOptions,
    user: Option<String>,
    /// Milliseconds since 1970.
    expires_at_ms: Option<u64>,
}

/// The options of a stream. An unset option has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamOptions {
    pub types: Option<Vec<String>>,
    pub last_event_id: Option<String>,
    pub format: Option<Format>,
    pub snapshot: Option<bool>,
}

/// The user of a feed, and the number of the expected stream on its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedOf {
    pub user: User,
    pub number: u64,
}

/// The part of a feed in its subscription.
#[derive(Debug, Clone)]
struct FeedPart {
    of: FeedOf,
    /// Event types muted by the user, sorted; none without any.
    muted: Option<Arc<[String]>>,
}

/// The limits of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Topics and patterns together.
    pub max_topics: usize,
    pub max_patterns: usize,
    pub max_types: usize,
}

/// Which names of a stream exceed their limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TooMany {
    Topics,
    Patterns,
}

/// A change of an open stream's subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub add: Vec<Pattern>,
    pub remove: Vec<Pattern>,
    /// The new list of muted kinds, if it changes.
    pub muted: Option<Arc<[String]>>,
    pub by: ChangeBy,
}

/// The origin of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeBy {
    /// The hub or its application: it may change every stream.
    #[default]
    Hub,
    /// A caller, by the name of its user. It may change the streams of this user and of nobody,
    /// within the streams' grants.
    Caller(Option<String>),
    /// The follow graph, for the feeds of a user.
    FollowGraph,
}

impl Change {
    /// The refused names; `None` for an allowed change.
    pub fn refused_by(&self, grant: &Grant) -> Option<Box<[String]>> {
        let ChangeBy::Caller(caller) = &self.by else { return None };
        let owner = grant.user().map(User::as_str);
        if owner.is_some() && owner != caller.as_deref() {
            return Some(Box::default());
        }
        let names = self.add.iter().map(Pattern::as_str);
        let refused = names.filter(|name| !grant.may_add(name)).map(str::to_owned);
        Some(refused.collect::<Box<[String]>>()).filter(|refused| !refused.is_empty())
    }
}

impl Subscription {
    /// A subscription without topics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a topic or a pattern: `*` is one whole segment, a last `**` one or more. The hub
    /// answers 400 to a request for a stream with an invalid one.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// Adds several topics or patterns.
    #[must_use]
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Keeps only events of these types; `message` stands for events without one.
    #[must_use]
    pub fn types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.options.types = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// Begins after the event of this id; `earliest` begins with the oldest event in history.
    /// Overrides the request.
    #[must_use]
    pub fn last_event_id(mut self, id: impl Into<String>) -> Self {
        self.options.last_event_id = Some(id.into());
        self
    }

    /// Begins with the newest event of each key of the conflated topics.
    #[must_use]
    pub fn snapshot(mut self) -> Self {
        self.options.snapshot = Some(true);
        self
    }

    /// Names the user of the stream, for lists and ends of a user's streams, and for renewals by this
    /// user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Ends the stream at this time: the login behind it ends. The client gets `renew` before.
    #[must_use]
    pub fn until(mut self, end: SystemTime) -> Self {
        let since_1970 = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.expires_at_ms = Some(since_1970.as_millis() as u64);
        self
    }

    /// The user and the end, in milliseconds since 1970, given by the application.
    pub fn login(&self) -> (Option<&str>, Option<u64>) {
        (self.user.as_deref(), self.expires_at_ms)
    }

    /// Takes unset options from `options`.
    #[must_use]
    pub fn or_options(mut self, options: StreamOptions) -> Self {
        self.options = self.options.or(options);
        self
    }

    /// Takes set options from `options`.
    #[must_use]
    pub fn with_options(mut self, options: StreamOptions) -> Self {
        self.options = options.or(self.options);
        self
    }

    /// The topics and patterns, as spelt.
    pub fn names(&self) -> &[String] {
        &self.topics
    }

    /// The requested start: an event id, `earliest` or `@` and a time.
    pub fn start_id(&self) -> Option<&str> {
        self.options.last_event_id.as_deref().filter(|id| !id.is_empty())
    }

    pub fn starts_with_snapshot(&self) -> bool {
        self.options.snapshot == Some(true)
    }

    /// Checks the subscription and resolves it. `secret` makes the client's id unguessable.
    ///
    /// # Errors
    /// No topic, too many topics, an invalid topic, type or cursor, or a name not granted.
    pub fn resolve(
        self,
        limits: StreamLimits,
        secret: u64,
        grant: &Arc<Grant>,
    ) -> Result<ResolvedSubscription, SubscribeError> {
        if self.topics.is_empty() {
            return Err(SubscribeError::NoTopic);
        }
        // Before sorting: duplicates in a long list cost time too.
        if self.topics.len() > limits.max_topics {
            return Err(SubscribeError::TooManyTopics { max_count: limits.max_topics });
        }
        let names = self.topics.iter().map(|name| Pattern::parse(name));
        let mut names = names.collect::<Result<Vec<Pattern>, _>>()?;
        grant.check_subscribe(names.iter().map(Pattern::as_str))?;
        names.sort_unstable();
        names.dedup();
        let patterns: Vec<_> = names.iter().filter(|name| name.has_wildcard()).cloned().collect();
        if patterns.len() > limits.max_patterns {
            return Err(SubscribeError::TooManyPatterns { max_count: limits.max_patterns });
        }
        let patterns: Patterns = [PatternSet::of(patterns)].into_iter().collect();
        let topics = names.iter().filter_map(Pattern::to_topic);
        let mut topics: Topics = topics.filter(|topic| !patterns.matches(topic)).collect();
        topics.shrink_to_fit();
        Ok(ResolvedSubscription {
            names: (!patterns.is_empty()).then(|| names.into()),
            topics,
            patterns,
            start: self.options.start()?,
            wants_live: self.options.snapshot == Some(true),
            format: self.options.format.unwrap_or_default(),
            types: check_types(self.options.types, limits.max_types)?,
            feed: None,
            secret,
            grant: grant.clone(),
        })
    }
}

impl FeedPart {
    /// The feed with a new list of muted types, if there is one.
    fn muting(&self, muted: Option<Arc<[String]>>) -> Self {
        let muted = muted.map_or_else(|| self.muted.clone(), some_kinds);
        Self { of: self.of.clone(), muted }
    }
}

fn some_kinds(kinds: Arc<[String]>) -> Option<Arc<[String]>> {
    Some(kinds).filter(|kinds| !kinds.is_empty())
}

impl StreamOptions {
    fn or(self, other: Self) -> Self {
        Self {
            types: self.types.or(other.types),
            last_event_id: self.last_event_id.or(other.last_event_id),
            format: self.format.or(other.format),
            snapshot: self.snapshot.or(other.snapshot),
        }
    }

    fn start(&self) -> Result<Start, SubscribeError> {
        Ok(match self.last_event_id.as_deref() {
            None | Some("") if self.snapshot == Some(true) => Start::Snapshot,
            None | Some("") => Start::Live,
            Some("earliest") => Start::Earliest,
            Some(id) => match id.strip_prefix('@') {
                Some(time) => Start::Since(read_time(time)?),
                None => Start::Resume(Box::new(id.parse()?)),
            },
        })
    }
}

/// The time of `@<milliseconds since 1970>`.
fn read_time(text: &str) -> Result<u64, CursorError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or(CursorError)
}

/// A sorted list after a change, each item once.
fn changed<T: Ord>(
    mut all: Vec<T>,
    add: impl IntoIterator<Item = T>,
    is_removed: impl Fn(&T) -> bool,
) -> Vec<T> {
    all.retain(|one| !is_removed(one));
    all.extend(add);
    // A stable sort takes linear time for a sorted list with few additions.
    all.sort();
    all.dedup();
    all
}

fn check_types(types: Option<Vec<String>>, max_count: usize) -> Result<TypeFilter, SubscribeError> {
    let types = types.unwrap_or_default();
    if types.len() > max_count {
        return Err(SubscribeError::TooManyTypes { max_count });
    }
    let valid = |name: &String| {
        (1..=MAX_FIELD_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
    };
    if types.iter().all(valid) { Ok(TypeFilter::of(types)) } else { Err(SubscribeError::BadTypes) }
}

/// The start after a position of a cursor, perhaps within a replay.
fn after(cursor: &Cursor, partition: u16, sequence: u64) -> StartFrom {
    let (epoch, since) = (cursor.epoch, 0);
    match cursor.marks.get(partition) {
        None => StartFrom::After { epoch, sequence, since },
        Some(mark) => {
            let begun = match mark.kind {
                ReplayKind::Snapshot => Begun::Snapshot,
                ReplayKind::History => Begun::Earliest,
            };
            let (head, told) = (mark.head, Told::AtHead);
            StartFrom::Continue(Rest { begun, epoch, sequence, head, since, told })
        }
    }
}

/// The encoding of a stream's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Each event on its own.
    #[default]
    Events,
    /// The events of one tick as one `batch` with a JSON array as data.
    JsonBatch,
    /// The same for a poll: its stream ends with the first answer.
    Poll,
}

/// A checked subscription.
#[derive(Debug)]
pub struct ResolvedSubscription {
    /// Topics and patterns as spelt by the client, each once, sorted; for a feed, the user's own
    /// notifications, and the names added to the open stream. None for a list without patterns, the
    /// usual case: `topics` then has all names.
    names: Option<Box<[Pattern]>>,
    /// Topics not covered by a pattern of the stream, each once, sorted.
    pub topics: Topics,
    pub patterns: Patterns,
    pub types: TypeFilter,
    pub start: Start,
    /// Whether the client asked for the snapshot: `live` then follows its replay, also after a
    /// resume.
    pub wants_live: bool,
    pub format: Format,
    /// Boxed: most streams are no feed.
    feed: Option<Box<FeedPart>>,
    /// Makes the client's id unguessable.
    pub secret: u64,
    /// The grant of the caller at admission.
    pub grant: Arc<Grant>,
}

impl ResolvedSubscription {
    /// The subscription of a user's feed: the user's notifications and the posts of followed
    /// authors. A client learns only the notifications' name: the authors change.
    ///
    /// # Errors
    /// Another user's grant, too many topics, or an invalid type or cursor.
    pub fn feed(
        feed: FeedOf,
        mut topics: Vec<Topic>,
        muted: Vec<String>,
        options: StreamOptions,
        limits: StreamLimits,
        secret: u64,
        grant: &Arc<Grant>,
    ) -> Result<Self, SubscribeError> {
        grant.require(grant.is_of(&feed.user))?;
        topics.sort_unstable();
        topics.dedup();
        if topics.len() > limits.max_topics {
            return Err(SubscribeError::TooManyTopics { max_count: limits.max_topics });
        }
        Ok(Self {
            names: Some([feed.user.notifications().into()].into()),
            topics: topics.into_iter().collect(),
            patterns: Patterns::default(),
            start: options.start()?,
            wants_live: options.snapshot == Some(true),
            format: options.format.unwrap_or_default(),
            types: check_types(options.types, limits.max_types)?,
            feed: Some(Box::new(FeedPart { of: feed, muted: some_kinds(muted.into()) })),
            secret,
            grant: grant.clone(),
        })
    }

    /// Moves the time of the client's cursor back, where several nodes have clocks of their own.
    pub fn allow_clock_margin(&mut self, margin: Duration) {
        if let Start::Resume(cursor) = &mut self.start {
            let margin_ms = margin.as_millis() as u64;
            cursor.unix_ms = cursor.unix_ms.map(|unix_ms| unix_ms.saturating_sub(margin_ms));
        }
    }

    /// The user of the stream: of its grant, or of its feed.
    pub fn user(&self) -> Option<&User> {
        self.grant.user().or(self.feed_of().map(|feed| &feed.user))
    }

    /// The user and number, if the stream is a feed.
    pub fn feed_of(&self) -> Option<&FeedOf> {
        self.feed.as_ref().map(|feed| &feed.of)
    }

    /// Event types muted by the user of the feed, sorted.
    #[inline]
    pub fn muted(&self) -> Option<&Arc<[String]>> {
        self.feed.as_ref()?.muted.as_ref()
    }

    /// Topics and patterns as spelt by the client, each once, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let topics: &[Topic] = if self.names.is_some() { &[] } else { &self.topics };
        let names = self.names.iter().flatten().map(Pattern::as_str);
        names.chain(topics.iter().map(Topic::as_str))
    }

    /// The number of [`names`](Self::names).
    pub fn name_count(&self) -> usize {
        self.names.as_ref().map_or(self.topics.len(), |names| names.len())
    }

    /// Replaces each topic, and the list of types, by the worker's shared copies.
    pub fn share_names(&mut self, shared: &mut SharedNames) {
        self.topics.iter_mut().for_each(|topic| shared.share_topic(topic));
        shared.share_types(&mut self.types);
    }

    /// The number of shared names: topics, and the list of types.
    pub fn shared_name_count(&self) -> usize {
        self.topics.len() + usize::from(!self.types.is_all())
    }

    /// The interest of a stream in each of its partitions, ascending. Its patterns must not have
    /// changed: later sets have attachments of their own.
    pub fn interests(&self, partition_count: u16) -> Vec<(u16, Arc<Interest>)> {
        // A feed has all partitions: its cursor then covers authors followed while the client was
        // away.
        let (topics, patterns, types) = (&self.topics, &self.patterns.first(), &self.types);
        let is_everywhere = self.feed.is_some();
        let all = Interest::by_partition(topics, patterns, types, partition_count, is_everywhere);
        all.into_iter().map(|(number, interest)| (number, Arc::new(interest))).collect()
    }

    /// An interest in nothing, for a partition without topics of the stream.
    pub fn no_interest(&self) -> Interest {
        let (patterns, types) = (PatternSet::none(), self.types.clone());
        Interest { topics: Topics::new(), patterns, types }
    }

    /// Whether the stream wants an event of one of its topics.
    #[inline]
    pub fn wants_event(&self, event: &SequencedEvent) -> bool {
        self.types.wants(event) && !self.mutes(event.event_type().unwrap_or("message"))
    }

    /// Whether the stream wants all events of its topics.
    #[inline]
    pub fn wants_all_types(&self) -> bool {
        self.types.is_all() && self.muted().is_none()
    }

    /// Whether the feed has exactly these topics (any order, each once) and these muted kinds
    /// (sorted).
    pub fn is_feed_of(&self, topics: &[Topic], muted: &[String]) -> bool {
        self.topics.len() == topics.len()
            && topics.iter().all(|topic| self.topics.binary_search(topic).is_ok())
            && self.muted().map_or(&[][..], |kinds| kinds) == muted
    }

    /// Whether the stream's user has muted a type.
    #[inline]
    pub fn mutes(&self, event_type: &str) -> bool {
        self.muted().is_some_and(|kinds| {
            kinds.binary_search_by(|kind| kind.as_str().cmp(event_type)).is_ok()
        })
    }

    /// The subscription after a change, unless it would exceed a limit.
    pub fn changed(
        &self,
        change: Change,
        limits: StreamLimits,
        partition_count: u16,
    ) -> Result<Self, TooMany> {
        let Change { add, remove, muted, by } = change;
        let is_by_graph = by == ChangeBy::FollowGraph;
        let kept: HashSet<&Pattern> = add.iter().collect();
        let removed: HashSet<&Pattern> =
            remove.iter().filter(|name| !kept.contains(name)).collect();
        let names: Vec<Pattern> = match &self.names {
            Some(names) => names.to_vec(),
            None => self.topics.iter().cloned().map(Pattern::from).collect(),
        };
        let named = add.iter().filter(|name| !is_by_graph && !self.has_followed(name));
        let is_gone = |name: &Pattern| {
            // The graph decides about its own topics: the client has them by the graph, or not at all.
            removed.contains(name) || is_by_graph && kept.contains(name)
        };
        let names = changed(names, named.cloned(), is_gone);
        let wild = add.iter().filter(|one| one.has_wildcard());
        let patterns = self.patterns.changed(wild.cloned().collect(), &removed);
        // A removed pattern uncovers topics also named by the client: they become topics of their
        // own. Topics by the graph always are: a pattern can go while they stay.
        let added = names.iter().chain(&add).filter_map(Pattern::to_topic);
        let added = added.filter(|topic| is_by_graph || !patterns.matches(topic));
        let gone = removed;
        let removed: HashSet<Topic> = gone.iter().filter_map(|name| name.to_topic()).collect();
        let topics = changed(self.topics.to_vec(), added, |topic| removed.contains(topic));
        let mut topics: Topics = topics.into_iter().collect();
        topics.shrink_to_fit();
        // The same count as on a reconnect: otherwise the client could not open the stream again.
        let count = if self.feed.is_some() { topics.len() } else { names.len() };
        if count > limits.max_topics {
            return Err(TooMany::Topics);
        }
        if patterns.len() > limits.max_patterns {
            return Err(TooMany::Patterns);
        }
        Ok(Self {
            names: (self.feed.is_some() || !patterns.is_empty()).then(|| names.into()),
            topics,
            patterns,
            types: self.types.clone(),
            start: self.start_after_change(&gone, partition_count),
            wants_live: self.wants_live,
            format: self.format,
            feed: self.feed.as_ref().map(|feed| Box::new(feed.muting(muted))),
            secret: self.secret,
            grant: self.grant.clone(),
        })
    }

    /// Whether the feed has this topic by the follow graph.
    fn has_followed(&self, name: &Pattern) -> bool {
        let is_named = || self.names.as_ref().is_some_and(|all| all.binary_search(name).is_ok());
        let is_topic = |topic| self.topics.binary_search(&topic).is_ok();
        self.feed.is_some() && name.to_topic().is_some_and(is_topic) && !is_named()
    }

    /// The topics and patterns not granted by a later grant. The own topics of a feed stay: they
    /// follow from its user.
    pub fn lost_with(&self, grant: &Grant) -> Vec<Pattern> {
        let own = self.feed_of().map(|feed| feed.user.notifications());
        let is_own = |name: &&str| own.as_ref().is_some_and(|own| own.as_str() == *name);
        let lost = self.names().filter(|name| !is_own(name) && !grant.may_subscribe(name));
        lost.filter_map(|name| Pattern::parse(name).ok()).collect()
    }

    /// The start of topics added after a change removing these names.
    fn start_after_change(&self, removed: &HashSet<&Pattern>, partition_count: u16) -> Start {
        let mut resumed = match &self.start {
            // A feed's positions cover the topics added later.
            _ if self.feed.is_some() => return Start::Live,
            Start::Resume(cursor) => {
                let cursor = Cursor::clone(cursor);
                Resumed { cursor, attached: Vec::new(), removed: BTreeSet::new() }
            }
            Start::Resumed(resumed) => Resumed::clone(resumed),
            Start::Live | Start::Snapshot | Start::Earliest | Start::Since(_) => {
                return Start::Live;
            }
        };
        let attached: Vec<u16> = match self.patterns.is_empty() {
            true => self.topics.iter().map(|topic| topic.partition(partition_count)).collect(),
            false => (0..partition_count).collect(),
        };
        resumed.note(&attached, removed.iter().copied().cloned());
        Start::Resumed(Box::new(resumed))
    }

    /// The start of topics added to the open stream: after the position in the cursor the stream
    /// was opened with, else live. In a partition the stream has had meanwhile, live, with a gap for
    /// events after the position.
    pub fn start_of_addition(&self, partition: u16) -> StartFrom {
        let Start::Resumed(resumed) = &self.start else { return StartFrom::Live };
        let cursor = &resumed.cursor;
        match cursor.positions.get(partition) {
            None => StartFrom::Live,
            Some(sequence) if resumed.attached.binary_search(&partition).is_ok() => {
                StartFrom::LiveAfter { epoch: cursor.epoch, sequence }
            }
            Some(sequence) => after(cursor, partition, sequence),
        }
    }

    /// Whether a topic's events after the client's cursor would be missed by an addition. Not those
    /// of a topic had by the stream itself.
    pub fn is_missed_by_addition(&self, before: &Self, topic: &Topic) -> bool {
        let has_removed = match &self.start {
            Start::Resumed(resumed) => resumed.has_removed(topic),
            _ => true,
        };
        !has_removed && !before.wants(topic)
    }

    /// The stream's start in a partition.
    pub fn start_in(&self, partition: u16) -> StartFrom {
        match &self.start {
            Start::Live | Start::Resumed(_) => StartFrom::Live,
            Start::Snapshot => StartFrom::Snapshot,
            Start::Earliest => StartFrom::Earliest,
            Start::Since(unix_ms) => StartFrom::Since { unix_ms: *unix_ms, epoch: None },
            // The client got nothing of a partition missing in the cursor: it gets the events since
            // the cursor was given. A cursor of an earlier version has no time.
            Start::Resume(cursor) => match (cursor.positions.get(partition), cursor.unix_ms) {
                (Some(sequence), _) => after(cursor, partition, sequence),
                (None, Some(unix_ms)) => StartFrom::Since { unix_ms, epoch: Some(cursor.epoch) },
                (None, None) => StartFrom::Live,
            },
        }
    }

    /// Whether the topic is named, or a pattern matches it.
    pub fn wants(&self, topic: &Topic) -> bool {
        self.topics.binary_search(topic).is_ok() || self.patterns.matches(topic)
    }

    /// The topic of a stream with exactly one.
    pub fn only_topic(&self) -> Option<&str> {
        match &*self.topics {
            [topic] if self.patterns.is_empty() => Some(topic.as_str()),
            _ => None,
        }
    }

    /// The names, cut to a bounded length for log lines.
    pub fn names_for_log(&self) -> String {
        const MAX_NAMES: usize = 10;
        let names: Vec<&str> = self.names().take(MAX_NAMES).collect();
        let mut text = names.join(",");
        if self.name_count() > MAX_NAMES {
            text += &format!(",… ({} in all)", self.name_count());
        }
        text
    }
}
