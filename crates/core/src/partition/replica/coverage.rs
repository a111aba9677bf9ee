//! The channels subscribed by a replica, each with the start of its complete part.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{log::Channel, topic::Topic};

/// Bound on the channels kept without streams, for returning streams.
const MAX_UNWANTED: usize = 4096;

/// The progress of a channel's subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChannelProgress {
    /// Unconfirmed. The answer to a request of this serial, or of a later one, confirms it.
    Asked(u64),
    /// Unconfirmed. The answer to the present catch-up confirms it.
    AskedAnew,
    /// Confirmed. The replica misses no event after this sequence.
    Since(u64),
}

#[derive(Debug)]
struct Entry {
    progress: ChannelProgress,
    /// Departure of the last stream, if no stream came since.
    unwanted_since: Option<Instant>,
}

/// The channels of one partition.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    channels: HashMap<Channel, Entry>,
    /// Channels by the departure of their last stream. Some have streams again; `expire` skips
    /// them.
    unwanted: VecDeque<(Instant, Channel)>,
}

impl Coverage {
    /// A stream wants the channel. Returns true for a new channel: the caller subscribes, and a
    /// request of this serial follows.
    pub fn want(&mut self, channel: &Channel, serial: u64) -> bool {
        if let Some(entry) = self.channels.get_mut(channel) {
            entry.unwanted_since = None;
            return false;
        }
        let entry = Entry { progress: ChannelProgress::Asked(serial), unwanted_since: None };
        self.channels.insert(channel.clone(), entry);
        true
    }

    /// The channel has no stream left. Its grace period begins.
    pub fn leave(&mut self, channel: Channel, now: Instant) {
        if let Some(entry) = self.channels.get_mut(&channel) {
            entry.unwanted_since = Some(now);
            self.unwanted.push_back((now, channel));
        }
    }

    /// All channels may be without streams. [`Self::expire`] checks each.
    pub fn leave_all(&mut self, now: Instant) {
        let channels: Vec<Channel> = self.channels.keys().cloned().collect();
        channels.into_iter().for_each(|channel| self.leave(channel, now));
    }

    /// Whether to call [`Self::expire`]: a grace period is over, or too many channels are unused.
    pub fn has_expired(&self, now: Instant, grace: Duration) -> bool {
        let is_over = self.unwanted.front().is_some_and(|(since, _)| *since + grace <= now);
        is_over || self.unwanted.len() > MAX_UNWANTED
    }

    /// Drops the channels unused for the grace period, except the channels wanted by `is_wanted`.
    /// Above the bound, the longest unused go earlier. Returns the dropped channels.
    pub fn expire(
        &mut self,
        now: Instant,
        grace: Duration,
        is_wanted: impl Fn(&Channel) -> bool,
    ) -> Vec<Channel> {
        let mut gone = Vec::new();
        while self.has_expired(now, grace)
            && let Some((since, channel)) = self.unwanted.pop_front()
        {
            let Some(entry) = self.channels.get(&channel) else { continue };
            if entry.unwanted_since == Some(since) && !is_wanted(&channel) {
                self.channels.remove(&channel);
                gone.push(channel);
            }
        }
        gone
    }

    /// The answer to request `serial` confirms the subscription, if requested before it. `sequence`
    /// is the answer's head: the channel is complete after it.
    pub fn confirm(&mut self, channel: &Channel, serial: u64, sequence: u64) {
        let sequence = self.inherited(channel).unwrap_or(sequence);
        if let Some(entry) = self.channels.get_mut(channel)
            && matches!(entry.progress, ChannelProgress::Asked(asked) if asked <= serial)
        {
            entry.progress = ChannelProgress::Since(sequence);
        }
    }

    /// A topic already covered by the channel of all topics keeps this coverage.
    fn inherited(&self, channel: &Channel) -> Option<u64> {
        matches!(channel, Channel::Topic(_)).then(|| self.since(&Channel::All)).flatten()
    }

    /// A catch-up begins: only its answer confirms the unconfirmed channels.
    pub fn ask_anew(&mut self) {
        for entry in self.channels.values_mut() {
            if matches!(entry.progress, ChannelProgress::Asked(_)) {
                entry.progress = ChannelProgress::AskedAnew;
            }
        }
    }

    /// The answer to the catch-up arrived, with this head.
    pub fn confirm_all(&mut self, sequence: u64) {
        let sequence = self.since(&Channel::All).unwrap_or(sequence);
        for entry in self.channels.values_mut() {
            if entry.progress == ChannelProgress::AskedAnew {
                entry.progress = ChannelProgress::Since(sequence);
            }
        }
    }

    /// A new epoch begins: confirmed channels miss no event after this sequence.
    pub fn restart(&mut self, sequence: u64) {
        for entry in self.channels.values_mut() {
            if let ChannelProgress::Since(since) = &mut entry.progress {
                *since = sequence;
            }
        }
    }

    /// All channels, confirmed or not, in sorted order.
    pub fn channels(&self) -> Vec<Channel> {
        let mut channels: Vec<Channel> = self.channels.keys().cloned().collect();
        channels.sort_unstable();
        channels
    }

    /// The sequence before the channel's complete part; `None` while unconfirmed.
    pub fn since(&self, channel: &Channel) -> Option<u64> {
        match self.channels.get(channel)?.progress {
            ChannelProgress::Since(sequence) => Some(sequence),
            ChannelProgress::Asked(_) | ChannelProgress::AskedAnew => None,
        }
    }

    /// The same for a topic, by its own channel or by the channel of all topics.
    pub fn topic_since(&self, topic: &Topic) -> Option<u64> {
        let own = self.since(&Channel::Topic(topic.clone()));
        let all = self.since(&Channel::All);
        own.into_iter().chain(all).min()
    }

    /// Whether a channel of the topic is subscribed, confirmed or not.
    pub fn covers(&self, topic: &Topic) -> bool {
        self.channels.contains_key(&Channel::All)
            || self.channels.contains_key(&Channel::Topic(topic.clone()))
    }
}
