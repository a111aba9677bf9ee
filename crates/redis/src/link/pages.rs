//! A read in pages. Redis ends a subscriber's connection with too much unsent output, so one large
//! answer would end the link.

use std::collections::VecDeque;

use fanfare_core::{
    log::{LogUpdate, PartitionHead, Purpose, TopicRead},
    policy::Conflate,
    topic::Topic,
};
use redis::{Cmd, RedisError, Value};

use crate::{
    link::{pushes::PUSH_OVERHEAD_BYTES, words},
    script::{self, Names},
    settings::BridgeSettings,
};

/// Topics read by one script call: other clients wait while it runs.
const MAX_TOPICS_A_PAGE: usize = 128;

/// Bytes of events after which the script ends a page. Small beside Redis' output limit for a
/// subscriber (`client-output-buffer-limit pubsub`, 8 MB for a minute by default).
const MAX_BYTES_A_PAGE: usize = 256 * 1024;

/// The least bytes of a page of a bounded read: each page costs a call.
const MIN_BYTES_A_PAGE: usize = 4096;

/// A read in pages: its request and its result so far.
pub(super) struct Pages {
    purpose: Purpose,
    /// The first page's head, as the cut of the whole read: later events arrive as pushes.
    head: Option<PartitionHead>,
    /// Unfinished topics, each with the sequence to read after.
    left: VecDeque<(Topic, u64)>,
    /// Finished topics.
    read: Vec<TopicRead>,
    /// The events so far of the first unfinished topic.
    partial: Option<TopicRead>,
    /// Memory of the read, with its overhead per event.
    bytes: usize,
    /// For a bounded read: the bytes of a page, and the end of the read so far.
    bound: Option<ReadBound>,
}

/// The bound of a read. Each of its pages has the oldest events of some topics, up to an end of its
/// own. The lowest end counts for the whole read.
struct ReadBound {
    page_bytes: usize,
    through: u64,
}

impl Pages {
    pub fn new(purpose: Purpose, topics: Vec<(Topic, u64)>, max_bytes: Option<usize>) -> Self {
        let page_count = topics.len().div_ceil(MAX_TOPICS_A_PAGE).max(1);
        let bound = max_bytes.map(|bytes| ReadBound {
            page_bytes: (bytes / page_count).clamp(MIN_BYTES_A_PAGE, MAX_BYTES_A_PAGE),
            through: u64::MAX,
        });
        let (left, read) = (topics.into(), Vec::new());
        Self { purpose, head: None, left, read, partial: None, bytes: 0, bound }
    }

    /// The topics of the next page.
    fn next(&self) -> Vec<(Topic, u64)> {
        self.left.iter().take(MAX_TOPICS_A_PAGE).cloned().collect()
    }

    /// The call for the next page.
    pub fn command(&self, sha: &str, names: &Names) -> Cmd {
        let (operation, bytes) = match &self.bound {
            Some(bound) => ("oldest", bound.page_bytes),
            None => ("read", MAX_BYTES_A_PAGE),
        };
        script::read_call(sha, names, &self.next(), &words([operation, &bytes.to_string()]))
    }

    /// Takes the next page's answer: finished topics, and perhaps a part of the last one.
    ///
    /// Above `max_read_bytes`, the read ends. The unfinished topics count as evicted, and their
    /// streams get a gap.
    ///
    /// # Errors
    /// The answer has an unexpected form.
    pub fn take(&mut self, value: Value, settings: &BridgeSettings) -> Result<(), RedisError> {
        let (head, clock, rest) = script::head(value)?;
        self.head.get_or_insert(head);
        if let Some(bound) = &mut self.bound {
            let next: Vec<_> = self.left.drain(..self.left.len().min(MAX_TOPICS_A_PAGE)).collect();
            let (through, reads) = script::oldest(rest, &next, &clock)?;
            bound.through = bound.through.min(through);
            self.read.extend(reads);
            return Ok(());
        }
        for (read, is_whole) in script::read(rest, &self.next(), &clock)? {
            let bytes = read.events.iter().map(|event| event.body.lines.len());
            self.bytes += bytes.sum::<usize>() + PUSH_OVERHEAD_BYTES * read.events.len();
            // Only the first topic of a page can continue the page before: `next` puts the
            // unfinished topic in front.
            let read = match self.partial.take() {
                Some(partial) => joined(partial, read, settings),
                None => read,
            };
            let last = read.events.last().map_or(read.after, |event| event.sequence);
            if is_whole {
                self.left.pop_front();
                self.read.push(read);
            } else {
                // The next page continues after the last event of this one.
                if let Some((_, after)) = self.left.front_mut() {
                    *after = last;
                }
                self.partial = Some(read);
            }
        }
        if self.bytes > settings.max_read_bytes {
            // The replica must not take a partial history for complete: drop it and report all
            // events up to the cut as evicted.
            self.partial = None;
            let last = self.head.as_ref().map_or(0, |head| head.sequence);
            self.read.extend(self.left.drain(..).map(|(topic, after)| {
                tracing::warn!(topic = topic.as_str(), "read limit reached; its streams get a gap");
                TopicRead { topic, after, last, evicted_through: last, events: Vec::new() }
            }));
        }
        Ok(())
    }

    /// The whole result. While pages are missing, returns itself as the error.
    pub fn finish(self) -> Result<LogUpdate, Box<Self>> {
        match self.head.clone() {
            Some(head) if self.left.is_empty() => {
                let through = self.bound.map_or(u64::MAX, |bound| bound.through);
                let through = through.min(head.sequence);
                Ok(LogUpdate::Read { purpose: self.purpose, head, through, topics: self.read })
            }
            _ => Err(Box::new(self)),
        }
    }
}

/// Joins two pages of a topic. If Redis has trimmed events between them, only the later page
/// counts: the replica then notices the loss before the first event. Joined, the loss would be a
/// hole inside the topic's history.
fn joined(mut first: TopicRead, second: TopicRead, settings: &BridgeSettings) -> TopicRead {
    let last = first.events.last().map_or(first.after, |event| event.sequence);
    let is_torn = match settings.policies.of(second.topic.as_str()).conflate {
        Conflate::None => second.events.first().is_some_and(|event| event.previous > last),
        // In these logs superseded events leave holes, so `previous` does not show a loss.
        Conflate::Latest | Conflate::LatestByKey => second.evicted_through > last,
    };
    if is_torn {
        first.events.clear();
    }
    first.events.extend(second.events);
    TopicRead { last: second.last, evicted_through: second.evicted_through, ..first }
}
