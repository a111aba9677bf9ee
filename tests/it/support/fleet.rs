//! Hundreds of streams and a few publishers on all instances of a cluster. They reconnect and retry
//! during faults of instances, Redis and network. At the end every acknowledged event must have
//! reached every stream subscribed to its topic, once and in order.

mod ledger;
mod log;
mod member;
mod publisher;
mod verdict;
mod wish;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use self::{ledger::Ledger, log::Log, member::Member, publisher::Publisher, wish::Wish};
use super::{Instances, crowd::seeded};

const STREAM_COUNT: usize = 300;

/// Publishers per instance.
const PUBLISHERS_EACH: usize = 2;

/// Bound of the recovery, on a busy machine.
const FLEET_DEADLINE: Duration = Duration::from_secs(60);

/// An order to every task of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Publish,
    /// Publishers finish their current event, then end.
    Listen,
    End,
}

/// A running fleet. Dropping it ends its streams.
pub struct Fleet {
    addresses: Arc<[SocketAddr]>,
    log: Arc<Log>,
    ledgers: Vec<Arc<Mutex<Ledger>>>,
    phase: watch::Sender<Phase>,
    members: JoinSet<()>,
    publishers: JoinSet<()>,
    /// Random choices of the test itself.
    pub random: StdRng,
}

impl Fleet {
    /// Opens the streams, spread over the instances. Publishers start after all streams are
    /// connected.
    pub async fn start(instances: &Instances) -> Self {
        let mut random = seeded();
        let addresses: Arc<[SocketAddr]> = instances.addresses().into();
        let phase = watch::Sender::new(Phase::Publish);
        let mut fleet = Self {
            addresses: addresses.clone(),
            log: Arc::default(),
            ledgers: Vec::new(),
            phase,
            members: JoinSet::new(),
            publishers: JoinSet::new(),
            random: StdRng::from_rng(&mut random),
        };
        for index in 0..STREAM_COUNT {
            let wish = Wish::of_stream(index);
            let ledger = Arc::new(Mutex::new(Ledger::new(wish)));
            fleet.ledgers.push(ledger.clone());
            let first = addresses[index % addresses.len()];
            let random = StdRng::from_rng(&mut random);
            let member = Member::new(ledger, first, addresses.clone(), random);
            fleet.members.spawn(member.run(fleet.phase.subscribe()));
        }
        fleet
            .until("every stream is connected", |fleet| {
                fleet.ledgers.iter().all(|ledger| ledger.lock().connected > 0)
            })
            .await;
        for first in 0..fleet.publisher_count() {
            let publisher = fleet.publisher(first % addresses.len(), &mut random);
            fleet.publishers.spawn(publisher.run(fleet.phase.subscribe()));
        }
        fleet
    }

    fn publisher(&self, first: usize, random: &mut StdRng) -> Publisher {
        let random = StdRng::from_rng(random);
        Publisher::new(self.log.clone(), self.addresses.clone(), first, random)
    }

    /// Waits for `more` further acknowledged events.
    pub async fn until_acknowledged(&mut self, more: usize) {
        let wanted = self.log.acknowledged() + more;
        let what = format!("{more} more events are acknowledged");
        self.until(&what, |fleet| fleet.log.acknowledged() >= wanted).await;
    }

    /// Waits for a random number of further acknowledged events.
    pub async fn until_random_moment(&mut self) {
        let more = self.random.random_range(10..80);
        self.until_acknowledged(more).await;
    }

    /// Waits for `more` further failed publishes, for any reason.
    pub async fn until_refused(&mut self, more: usize) {
        let wanted = self.log.refused() + more;
        let what = format!("{more} more publishes are refused");
        self.until(&what, |fleet| fleet.log.refused() >= wanted).await;
    }

    /// Number of publishers; each has one event in flight.
    pub fn publisher_count(&self) -> usize {
        self.addresses.len() * PUBLISHERS_EACH
    }

    /// Failed publishes so far, by error code.
    pub fn refusals(&self) -> Vec<(String, usize)> {
        self.log.refusals()
    }

    /// Ends the publishing and waits until every stream has the last events. Every event must have
    /// reached all its streams, and no stream may have a gap.
    pub async fn assert_nothing_lost(self) {
        let ended = self.finish().await;
        assert_none(&verdict::losses(&ended.log, &ended.ledgers));
    }

    /// The same, but events may be missing if the stream got a gap with a new epoch.
    pub async fn assert_loss_is_told(self) {
        let ended = self.finish().await;
        assert_none(&verdict::untold_losses(&ended.log, &ended.ledgers));
    }

    async fn finish(mut self) -> Self {
        self.phase.send_replace(Phase::Listen);
        let ended = timeout(FLEET_DEADLINE, async {
            while let Some(publisher) = self.publishers.join_next().await {
                publisher.expect("no publisher panics");
            }
        });
        if ended.await.is_err() {
            panic!("publishers do not end: {}", self.story());
        }
        // One closing event per topic: a stream with all of them has everything before them too.
        let mut random = StdRng::from_rng(&mut self.random);
        let mut last = self.publisher(0, &mut random);
        let mut closing = Vec::new();
        for topic in 0..wish::TOPIC_COUNT {
            closing.push(last.publish(topic).await);
        }
        self.until("every stream has the last event of each topic", |fleet| {
            fleet.ledgers.iter().all(|ledger| ledger.lock().has_all(&closing))
        })
        .await;
        self.phase.send_replace(Phase::End);
        while let Some(member) = self.members.join_next().await {
            member.expect("no stream panics");
        }
        println!("{}", self.story());
        self
    }

    /// Waits until the condition is true.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            // A panicked task has failed the test and printed its reason.
            for tasks in [&mut self.members, &mut self.publishers] {
                while let Some(ended) = tasks.try_join_next() {
                    ended.expect("no task panics");
                }
            }
            let waited = start.elapsed();
            assert!(waited < FLEET_DEADLINE, "not in {waited:?}: {what}: {}", self.story());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A summary in numbers.
    fn story(&self) -> String {
        let sum = |count: fn(&Ledger) -> usize| -> usize {
            self.ledgers.iter().map(|ledger| count(&ledger.lock())).sum()
        };
        format!(
            "{} events begun, {} acknowledged, publishes refused: {:?}; {} streams connected {} \
             times, got {} events and {} gaps, were refused {} times",
            self.log.begun(),
            self.log.acknowledged(),
            self.log.refusals(),
            self.ledgers.len(),
            sum(|ledger| ledger.connected),
            sum(|ledger| ledger.receipts.len()),
            sum(|ledger| ledger.gaps.len()),
            sum(|ledger| ledger.refused),
        )
    }
}

fn assert_none(report: &[String]) {
    let shown = &report[..report.len().min(5)];
    assert!(report.is_empty(), "{} flaws:\n{}", report.len(), shown.join("\n"));
}
