//! Publishes the events of a run, at a rate or as fast as they are answered and delivered. Each
//! topic uses one connection, so its numbers keep their order. A connection has one request in
//! flight; the next request carries all events due by then.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};

use super::{exchange::Exchange, mark::Mark, run::Run};

/// Most events of one request. The hub answers while it reads, and the tool reads only after it
/// has sent everything, so all answers must fit into the sockets' buffers.
const MAX_BATCH_EVENTS: usize = 256;
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Most events of one request without a rate.
const UNBOUNDED_BATCH_EVENTS: usize = 32;

/// Without a rate, the most a stream may be behind. A hub drops events or ends streams beyond its
/// own bound, often 1 MiB.
const MAX_BEHIND_BYTES: usize = 256 * 1024;
const MAX_BEHIND_EVENTS: usize = 256;

/// Approximate bytes of an event besides its data.
const EVENT_OVERHEAD_BYTES: usize = 100;

/// After this long, missing deliveries count as conflated or lost, and publishing continues.
const CATCH_UP_PATIENCE: Duration = Duration::from_millis(500);

/// Interval between two checks of the deliveries behind.
const CATCH_UP_POLL: Duration = Duration::from_millis(1);

/// The fractions of its multiples fill the range from 0 to 1 with the best evenness.
const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;

/// The outcome of one topic's events.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct PublishedTopic {
    /// Count of numbers assigned; the next event gets this number.
    pub numbers: u64,
    /// Events refused or not answered by the server: they may be missing.
    pub unconfirmed: u64,
}

/// The outcome of one connection's events.
#[derive(Debug, Default)]
pub(super) struct PublishLog {
    pub topics: Vec<(u32, PublishedTopic)>,
    pub confirmed: u64,
    /// Confirmed events sent within the window.
    pub measured: u64,
    pub unconfirmed: u64,
    pub first_refusal: Option<String>,
    /// Why publishing ended early.
    pub broken: Option<String>,
}

pub(super) struct LoadPublisher {
    run: Arc<Run>,
    exchange: Exchange,
    /// Number of streams on each topic.
    receivers: Arc<[u64]>,
    /// The topics of this publisher.
    topics: Vec<u32>,
    /// Events sent so far, answered or not.
    event_count: u64,
    log: PublishLog,
    /// Missing deliveries given up by the wait for slow streams.
    written_off: u64,
}

impl LoadPublisher {
    /// All publishers of the run.
    pub fn all(run: &Arc<Run>, address: SocketAddr) -> Vec<Self> {
        let receivers: Arc<[u64]> = run.settings.topics.receivers(run.settings.stream_count).into();
        let numbers = 0..run.settings.publisher_count;
        numbers.map(|number| Self::new(run.clone(), address, receivers.clone(), number)).collect()
    }

    /// Topics are assigned to publishers in turn.
    fn new(run: Arc<Run>, address: SocketAddr, receivers: Arc<[u64]>, number: u32) -> Self {
        let settings = &run.settings;
        let step = settings.publisher_count as usize;
        let topics: Vec<u32> = (number..settings.topics.count).step_by(step).collect();
        let logs = topics.iter().map(|topic| (*topic, PublishedTopic::default())).collect();
        let log = PublishLog { topics: logs, ..PublishLog::default() };
        let exchange = Exchange::new(address);
        Self { run, exchange, receivers, topics, event_count: 0, log, written_off: 0 }
    }

    /// Publishes from `start` until `end`, or until the run is over.
    pub async fn publish(mut self, start: Instant, end: Instant) -> PublishLog {
        while !self.run.is_over() && Instant::now() < end {
            let batch = match self.run.settings.events_per_second {
                Some(rate) => self.due(rate, start, end).await,
                None => self.after_catching_up().await,
            };
            if batch > 0 && !self.send(batch).await {
                self.run.is_over.store(true, Relaxed);
            }
        }
        self.log
    }

    /// Publishes `events` to each topic as fast as they are answered. It does not wait for slow
    /// streams, so it is for cut streams and for few events.
    pub async fn publish_each(&mut self, events: u64) {
        let mut left = events * self.topics.len() as u64;
        let most = self.batch_of(MAX_BATCH_EVENTS) as u64;
        while left > 0 && !self.run.is_over() {
            let batch = left.min(most);
            left -= batch;
            if !self.send(batch as usize).await {
                self.run.is_over.store(true, Relaxed);
            }
        }
    }

    pub fn into_log(self) -> PublishLog {
        self.log
    }

    fn max_batch(&self) -> usize {
        self.batch_of(match self.run.settings.events_per_second {
            Some(_) => MAX_BATCH_EVENTS,
            None => UNBOUNDED_BATCH_EVENTS,
        })
    }

    /// The number of events for one request: at most `most`, bounded by the bytes, at least 1.
    fn batch_of(&self, most: usize) -> usize {
        let settings = &self.run.settings;
        let most = if settings.publishing.takes_lines { most } else { 1 };
        let bytes = settings.payload_bytes + EVENT_OVERHEAD_BYTES;
        most.min(MAX_BATCH_BYTES / bytes).max(1)
    }

    /// Waits until the next event is due. Returns the number of events due by then.
    async fn due(&self, rate: f64, start: Instant, end: Instant) -> usize {
        let next = self.due_at(self.event_count, rate, start);
        if next >= end {
            sleep_until(end).await;
            return 0;
        }
        sleep_until(next).await;
        let now = Instant::now();
        let later = (1..self.max_batch() as u64)
            .take_while(|more| self.due_at(self.event_count + more, rate, start) <= now);
        1 + later.count()
    }

    /// The due time of this publisher's event number `event`. All topics of the run take turns.
    /// The golden ratio shifts each event within its turn; otherwise all events would meet a hub's
    /// ticks at the same phase.
    fn due_at(&self, event: u64, rate: f64, start: Instant) -> Instant {
        let own = self.topics.len() as u64;
        let round = event / own * u64::from(self.run.settings.topics.count);
        let turn = (round + u64::from(self.topics[(event % own) as usize])) as f64;
        let turn = turn + (turn * GOLDEN_RATIO).fract();
        start + Duration::try_from_secs_f64(turn / rate).unwrap_or(Duration::MAX / 4)
    }

    /// Waits until few deliveries are missing. Returns the number of events to send next.
    async fn after_catching_up(&mut self) -> usize {
        let settings = &self.run.settings;
        let event_bytes = settings.payload_bytes + EVENT_OVERHEAD_BYTES;
        let events = (MAX_BEHIND_BYTES / event_bytes).clamp(1, MAX_BEHIND_EVENTS) as u64;
        let max_behind = events * self.run.stream_count();
        let counters = &self.run.counters;
        let since = Instant::now();
        loop {
            let behind =
                counters.expected.load(Relaxed).saturating_sub(counters.delivered.load(Relaxed));
            if behind.saturating_sub(self.written_off) <= max_behind || self.run.is_over() {
                return self.max_batch();
            }
            if since.elapsed() > CATCH_UP_PATIENCE {
                self.written_off = behind;
            }
            sleep(CATCH_UP_POLL).await;
        }
    }

    /// Publishes the next events. False to stop publishing.
    async fn send(&mut self, count: usize) -> bool {
        let sent_micros = self.run.micros();
        let mut slots = Vec::with_capacity(count);
        let mut lines = String::new();
        for _ in 0..count {
            let slot = (self.event_count % self.topics.len() as u64) as usize;
            self.event_count += 1;
            self.push_event(slot, sent_micros, &mut lines);
            slots.push(slot);
        }
        let request = self.request(&lines, self.topics[slots[0]]);
        match self.exchange.ask(request.as_bytes()).await {
            Ok((status, body)) => self.on_answer(status, &body, &slots, sent_micros),
            Err(error) => {
                self.on_unconfirmed(&slots);
                self.log.broken = Some(error.to_string());
                false
            }
        }
    }

    fn push_event(&mut self, slot: usize, sent_micros: u64, lines: &mut String) {
        let (topic, log) = &mut self.log.topics[slot];
        let mark = Mark { topic: *topic, number: log.numbers, sent_micros };
        log.numbers += 1;
        let settings = &self.run.settings;
        let data = self.run.marker.payload(mark, settings.payload_bytes);
        let name = settings.topics.name(*topic);
        let body = &settings.publishing.body;
        lines.push_str(&body.replace("{topic}", &name).replace("{data}", &data));
        if settings.publishing.takes_lines {
            lines.push('\n');
        }
    }

    fn request(&self, body: &str, topic: u32) -> String {
        let settings = &self.run.settings;
        let publishing = &settings.publishing;
        format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: {}\r\ncontent-length: {}\r\n{}\r\n{body}",
            publishing.place.path_of(&[settings.topics.name(topic)]),
            publishing.place.authority,
            publishing.content_type,
            body.len(),
            settings.authorization,
        )
    }

    fn on_answer(&mut self, status: u16, body: &[u8], slots: &[usize], sent_micros: u64) -> bool {
        if !(200..300).contains(&status) {
            self.on_unconfirmed(slots);
            let text = String::from_utf8_lossy(body).chars().take(300).collect::<String>();
            return self
                .on_refused(format!("HTTP {status}: {}", text.trim()), is_temporary(status));
        }
        if !self.run.settings.publishing.takes_lines {
            self.on_confirmed(slots, sent_micros);
            return true;
        }
        let answers =
            body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let mut answers =
            answers.map(PublishVerdict::of).chain(std::iter::repeat_with(|| PublishVerdict::None));
        let mut goes_on = true;
        for slot in slots {
            match answers.next().unwrap_or(PublishVerdict::None) {
                PublishVerdict::Taken => self.on_confirmed(&[*slot], sent_micros),
                PublishVerdict::Refused(code) => {
                    self.on_unconfirmed(&[*slot]);
                    let is_temporary = TEMPORARY.contains(&code.as_str());
                    goes_on &= self.on_refused(code, is_temporary);
                }
                PublishVerdict::None => {
                    self.on_unconfirmed(&[*slot]);
                    goes_on &= self.on_refused("no answer to an event".to_owned(), true);
                }
            }
        }
        goes_on
    }

    fn on_confirmed(&mut self, slots: &[usize], sent_micros: u64) {
        let count = slots.len() as u64;
        self.log.confirmed += count;
        if self.run.window.is_within(sent_micros) {
            self.log.measured += count;
        }
        let receivers = slots.iter().map(|slot| self.receivers[self.topics[*slot] as usize]).sum();
        self.run.counters.expected.fetch_add(receivers, Relaxed);
    }

    fn on_unconfirmed(&mut self, slots: &[usize]) {
        self.log.unconfirmed += slots.len() as u64;
        slots.iter().for_each(|slot| self.log.topics[*slot].1.unconfirmed += 1);
    }

    /// Records a refusal. True to continue publishing.
    fn on_refused(&mut self, why: String, is_temporary: bool) -> bool {
        if !is_temporary {
            self.log.broken.get_or_insert_with(|| format!("an event was refused: {why}"));
        }
        self.log.first_refusal.get_or_insert(why);
        is_temporary
    }
}

/// Codes of temporary refusals: a later publish may succeed.
const TEMPORARY: [&str; 6] =
    ["at_capacity", "rate_limited", "too_many_ids", "draining", "bridge_down", "unconfirmed"];

fn is_temporary(status: u16) -> bool {
    matches!(status, 429 | 503)
}

/// The hub's answer to one event.
enum PublishVerdict {
    Taken,
    /// The error code.
    Refused(String),
    None,
}

impl PublishVerdict {
    fn of(line: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Line {
            #[serde(default)]
            success: bool,
            error: Option<crate::hub_address::ErrorBody>,
        }
        match serde_json::from_slice(line) {
            Ok(Line { success: true, .. }) => Self::Taken,
            Ok(Line { error: Some(error), .. }) => Self::Refused(error.code),
            _ => Self::Refused("no fanfare hub at this address".to_owned()),
        }
    }
}
