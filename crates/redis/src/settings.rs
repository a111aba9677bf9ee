//! Settings and state shared by all parts of the bridge.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fanfare_core::{
    cluster::SettingConflict, cursor::Epoch, policy::Policies, wall_clock::WallClock,
};
use tokio::sync::watch;

use crate::{
    agreement::Agreement,
    script::{Names, PublishCall},
    signature::{self, Secret},
    target::Target,
};

/// Settings of the log and cluster over Redis.
#[derive(Debug, Clone)]
pub struct RedisSpec {
    pub target: Target,
    /// The prefix of all keys and channels.
    pub prefix: String,
    /// Time limit of an answer. Afterwards Redis counts as unavailable.
    pub timeout: Duration,
    /// Time between two probes of a link.
    pub probe: Duration,
    pub partition_count: u16,
    /// Topics remembered in Redis by all partitions together. Above it, Redis forgets the topic
    /// idle longest, if it has no history.
    pub max_idle_topics: usize,
    pub idempotency_window: Duration,
    /// The instance's history budget in bytes. It also bounds one read, but never below 64 MiB.
    pub max_history_bytes: usize,
    /// Bytes of history in Redis, of all partitions together.
    pub max_stored_bytes: usize,
    pub policies: Arc<Policies>,
    /// The hub's clock; Redis sets it.
    pub clock: Arc<WallClock>,
}

/// Counts new events in Redis, for the hub's metrics. A repeated id counts nothing.
pub trait CountPublished: std::fmt::Debug + Send + Sync {
    fn count_published(&self, count: u64);
}

/// Lower bound of `max_read_bytes`, even on an instance with little memory: a topic of the default
/// policy with the largest events.
pub(crate) const MIN_READ_BYTES: usize = 64 * 1024 * 1024;

/// Shared by all parts of the bridge.
#[derive(Debug)]
pub(crate) struct BridgeSettings {
    pub target: Target,
    pub prefix: String,
    pub timeout: Duration,
    pub probe: Duration,
    /// This instance's random name.
    pub instance: String,
    pub partition_count: u16,
    /// Topics remembered in Redis by one partition.
    pub max_topics: usize,
    pub window_ms: u64,
    /// Bytes of one read. Past this bound, the remaining topics get a gap.
    pub max_read_bytes: usize,
    pub policies: Arc<Policies>,
    pub clock: Arc<WallClock>,
    pub agreement: Agreement,
    pub secrets: Secrets,
    pub epochs: Arc<Epochs>,
    pub status: Arc<Status>,
    pub published: Arc<dyn CountPublished>,
}

impl BridgeSettings {
    /// The call joining a partition. `own` is the number of own subscriptions to its `control`
    /// channel.
    pub fn join_call(&self, partition: u16, own: usize) -> redis::Cmd {
        let secret = self.secrets.proposed(partition);
        self.agreement.join(&self.names(partition), own, &secret)
    }

    pub fn names(&self, partition: u16) -> Names {
        Names::new(&self.prefix, partition, self.target.database())
    }

    pub fn publish_call<'a>(
        &self,
        sha: &'a str,
        server: &'a str,
        partition: u16,
        names: &'a Names,
    ) -> PublishCall<'a> {
        let (max_topics, window_ms) = (self.max_topics, self.window_ms);
        let known = self.epochs.known(partition);
        PublishCall { sha, names, server, known, max_topics, window_ms }
    }
}

/// The last seen epoch of each partition, with the highest seen sequence and the bytes of its
/// history; 0 before the first contact. Links bring all partitions to the latest: a cursor has room for one epoch.
#[derive(Debug)]
pub(crate) struct Epochs(Box<[KnownHead]>);

/// Written on the thread of the bridge only.
#[derive(Debug, Default)]
struct KnownHead {
    epoch: AtomicU64,
    sequence: AtomicU64,
    /// Bytes of its history in Redis.
    history_bytes: AtomicU64,
}

impl Epochs {
    pub fn new(partition_count: u16) -> Self {
        Self((0..partition_count).map(|_| KnownHead::default()).collect())
    }

    /// Redis named this sequence of the partition, in this epoch. `earlier` are earlier epochs of
    /// the same sequences.
    pub fn note(&self, partition: u16, epoch: Epoch, earlier: &[Epoch], sequence: u64) {
        let known = &self.0[usize::from(partition)];
        let before = Epoch::new(known.epoch.swap(epoch.number(), Ordering::Relaxed));
        if before == epoch || earlier.contains(&before) {
            known.sequence.fetch_max(sequence, Ordering::Relaxed);
        } else {
            known.sequence.store(sequence, Ordering::Relaxed);
        }
    }

    /// Redis named the bytes of the partition's history.
    pub fn note_history(&self, partition: u16, bytes: u64) {
        self.0[usize::from(partition)].history_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of history of all partitions in Redis.
    pub fn history_bytes(&self) -> u64 {
        self.0.iter().map(|known| known.history_bytes.load(Ordering::Relaxed)).sum()
    }

    pub fn latest(&self) -> u64 {
        let epochs = self.0.iter().map(|known| known.epoch.load(Ordering::Relaxed));
        epochs.max().unwrap_or_default()
    }

    /// A partition's epoch and its highest seen sequence.
    pub fn known(&self, partition: u16) -> (u64, u64) {
        let known = &self.0[usize::from(partition)];
        (known.epoch.load(Ordering::Relaxed), known.sequence.load(Ordering::Relaxed))
    }

    /// The partitions with an epoch before the latest. Unknown epochs do not count.
    pub fn lagging(&self, partitions: impl Iterator<Item = u16>) -> Vec<u16> {
        let latest = self.latest();
        let is_behind = |partition: &u16| {
            let (own, _) = self.known(*partition);
            own != 0 && own < latest
        };
        partitions.filter(is_behind).collect()
    }
}

/// The secrets of the partitions. Locked for a join, and to sign a call or its answer; never on an
/// event's way.
#[derive(Debug)]
pub(crate) struct Secrets {
    /// For partitions without a secret.
    fresh: String,
    known: Mutex<BTreeMap<u16, Secret>>,
}

impl Secrets {
    pub fn new() -> Self {
        Self { fresh: signature::new_secret(), known: Mutex::default() }
    }

    /// The secret of a partition; `None` before this instance has joined it.
    pub fn of(&self, partition: u16) -> Option<Secret> {
        self.locked().get(&partition).cloned()
    }

    /// The text of a join: the known secret, or a new one.
    pub fn proposed(&self, partition: u16) -> String {
        let known = self.locked();
        known.get(&partition).map_or_else(|| self.fresh.clone(), |known| known.text().to_owned())
    }

    pub fn note(&self, partition: u16, secret: Secret) {
        self.locked().insert(partition, secret);
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u16, Secret>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last attempt to link this instance to its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Contact {
    /// The first attempt is running.
    #[default]
    Opening,
    /// The attempt succeeded, or Redis was unavailable.
    Tried,
    Refused(SettingConflict),
}

/// The state of the bridge, for status requests and metrics.
#[derive(Debug, Default)]
pub(crate) struct Status {
    pub contact: watch::Sender<Contact>,
    pub is_up: AtomicBool,
    pub reconnects: AtomicU64,
    /// Skipped messages without a valid signature.
    pub rejected: AtomicU64,
    pub lag_micros: AtomicU64,
}

impl Status {
    pub fn note_contact(&self, contact: Contact) {
        self.contact.send_replace(contact);
    }

    pub fn note_lag(&self, lag: Duration) {
        self.lag_micros.store(lag.as_micros() as u64, Ordering::Relaxed);
    }
}
