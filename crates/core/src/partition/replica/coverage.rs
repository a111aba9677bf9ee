//! The channels subscribed by a replica, and the sequence since which each is complete.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{log::Channel, topic::Topic};

/// Bound on the channels kept for returning streams.
const MAX_UNWANTED: usize = 4096;

/// How far a channel's subscription has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChannelProgress {
    /// To be confirmed by an answer to a request of this serial or a later one.
    Asked(u64),
    /// The answer ending the catch-up confirms it.
    AskedAnew,
    /// Nothing after this sequence is missed.
    Since(u64),
}

#[derive(Debug)]
struct Entry {
    progress: ChannelProgress,
    /// When its last stream left, if none came since.
    unwanted_since: Option<Instant>,
}

/// The channels of one partition.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    channels: HashMap<Channel, Entry>,
    /// Channels without streams, in the order they became so; some have some again.
    unwanted: VecDeque<(Instant, Channel)>,
}

impl Coverage {
    /// A stream wants the channel. Returns whether it is new, and so to be confirmed by an
    /// answer to a request of this serial.
    pub fn want(&mut self, channel: &Channel, serial: u64) -> bool {
        if let Some(entry) = self.channels.get_mut(channel) {
            entry.unwanted_since = None;
            return false;
        }
        let entry = Entry { progress: ChannelProgress::Asked(serial), unwanted_since: None };
        self.channels.insert(channel.clone(), entry);
        true
    }

    /// No stream wants the channel for now.
    pub fn leave(&mut self, channel: Channel, now: Instant) {
        if let Some(entry) = self.channels.get_mut(&channel) {
            entry.unwanted_since = Some(now);
            self.unwanted.push_back((now, channel));
        }
    }

    /// No stream may want any channel for now.
    pub fn leave_all(&mut self, now: Instant) {
        let channels: Vec<Channel> = self.channels.keys().cloned().collect();
        channels.into_iter().for_each(|channel| self.leave(channel, now));
    }

    /// Whether a channel may be forgotten: its grace period is over, or there are too many.
    pub fn has_expired(&self, now: Instant, grace: Duration) -> bool {
        let is_over = self.unwanted.front().is_some_and(|(since, _)| *since + grace <= now);
        is_over || self.unwanted.len() > MAX_UNWANTED
    }

    /// Drops the channels unused for the grace period, unless `is_wanted` claims them.
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

    /// An answer confirms the subscriptions requested before it. Events up to the sequence are
    /// accounted for.
    pub fn confirm(&mut self, channel: &Channel, serial: u64, sequence: u64) {
        let sequence = self.inherited(channel).unwrap_or(sequence);
        if let Some(entry) = self.channels.get_mut(channel)
            && matches!(entry.progress, ChannelProgress::Asked(asked) if asked <= serial)
        {
            entry.progress = ChannelProgress::Since(sequence);
        }
    }

    /// A topic continues from its coverage by the channel of all topics.
    fn inherited(&self, channel: &Channel) -> Option<u64> {
        matches!(channel, Channel::Topic(_)).then(|| self.since(&Channel::All)).flatten()
    }

    /// The answer to the next request confirms all requested channels.
    pub fn ask_anew(&mut self) {
        for entry in self.channels.values_mut() {
            if matches!(entry.progress, ChannelProgress::Asked(_)) {
                entry.progress = ChannelProgress::AskedAnew;
            }
        }
    }

    /// The answer to that request arrived.
    pub fn confirm_all(&mut self, sequence: u64) {
        let sequence = self.since(&Channel::All).unwrap_or(sequence);
        for entry in self.channels.values_mut() {
            if entry.progress == ChannelProgress::AskedAnew {
                entry.progress = ChannelProgress::Since(sequence);
            }
        }
    }

    /// Sequences begin anew: everything after this one is to be had.
    pub fn restart(&mut self, sequence: u64) {
        for entry in self.channels.values_mut() {
            if let ChannelProgress::Since(since) = &mut entry.progress {
                *since = sequence;
            }
        }
    }

    /// All channels.
    pub fn channels(&self) -> Vec<Channel> {
        let mut channels: Vec<Channel> = self.channels.keys().cloned().collect();
        channels.sort_unstable();
        channels
    }

    /// Since when the events of the channel are known, if they are.
    pub fn since(&self, channel: &Channel) -> Option<u64> {
        match self.channels.get(channel)?.progress {
            ChannelProgress::Since(sequence) => Some(sequence),
            ChannelProgress::Asked(_) | ChannelProgress::AskedAnew => None,
        }
    }

    /// The same for a topic, by whichever channel.
    pub fn topic_since(&self, topic: &Topic) -> Option<u64> {
        let own = self.since(&Channel::Topic(topic.clone()));
        let all = self.since(&Channel::All);
        own.into_iter().chain(all).min()
    }

    /// Whether any event of the topic is to come.
    pub fn covers(&self, topic: &Topic) -> bool {
        self.channels.contains_key(&Channel::All)
            || self.channels.contains_key(&Channel::Topic(topic.clone()))
    }
}
