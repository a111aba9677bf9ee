//! Thousands of cheap streams in one process. Each records its events, can be cut at a byte, can
//! stop reading or leave, and resumes with its last id.

mod answer;
mod ledger;
mod member;
mod numbered;
mod publisher;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet};

pub use answer::{Answer, Piece};
pub use ledger::{End, Ledger};
use member::Member;
pub use numbered::Numbered;
pub use publisher::{Publisher, pace};

use super::wait::until;

/// Deadline of thousands of streams for an operation of seconds, on a busy machine.
pub const CROWD_DEADLINE: Duration = Duration::from_secs(90);

/// The behaviour of one stream of a crowd.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The query of `/events/stream`, without its `?`.
    pub query: String,
    /// Whether it reconnects after an end by the server or by a cut.
    pub comes_back: bool,
    /// Whether it also tries again after a refusal or a failed connection: its server restarts.
    pub returns_always: bool,
    /// Its first, second, … connection is cut after this number of bytes. Later connections are not
    /// cut.
    pub cuts: Vec<usize>,
    /// The expected texts of a lane's events, from number 1 on, repeated; no check if empty.
    pub texts: Arc<Vec<Vec<String>>>,
    /// `SO_RCVBUF`; the kernel chooses if `None`.
    pub receive_buffer_bytes: Option<u32>,
}

/// An order to all streams of a crowd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Connect, and read.
    Read,
    /// Stay connected and read nothing.
    Stall,
    /// Close at once: streams with an even index by FIN, the others by RST.
    Leave,
}

/// Streams started together. Dropping it closes them.
pub struct Crowd {
    ledgers: Vec<Arc<Mutex<Ledger>>>,
    orders: watch::Sender<Order>,
    _tasks: JoinSet<()>,
}

impl Crowd {
    /// Starts a stream for each plan, all at once.
    pub fn start(addr: SocketAddr, plans: impl IntoIterator<Item = Plan>) -> Self {
        rlimit::increase_nofile_limit(u64::MAX).expect("the limit can be raised to the hard one");
        let orders = watch::Sender::new(Order::Read);
        let mut tasks = JoinSet::new();
        let mut ledgers = Vec::new();
        for (index, plan) in plans.into_iter().enumerate() {
            let ledger = Arc::new(Mutex::new(Ledger::new(plan.texts.clone())));
            ledgers.push(ledger.clone());
            let member = Member::new(addr, index, plan, ledger);
            tasks.spawn(member.run(orders.subscribe()));
        }
        Self { ledgers, orders, _tasks: tasks }
    }

    /// Starts `count` streams with the same plan.
    pub fn of(addr: SocketAddr, count: usize, plan: &Plan) -> Self {
        Self::start(addr, std::iter::repeat_n(plan.clone(), count))
    }

    /// Ends every stream at once, half of them with FIN and half with RST.
    pub fn leave(&self) {
        self.orders.send_replace(Order::Leave);
    }

    /// Makes closed streams reconnect, and stalled ones read on.
    pub fn read(&self) {
        self.orders.send_replace(Order::Read);
    }

    /// Keeps every stream connected, without reading.
    pub fn stall(&self) {
        self.orders.send_replace(Order::Stall);
    }

    pub fn len(&self) -> usize {
        self.ledgers.len()
    }

    /// The ledger of each stream.
    pub fn ledgers(&self) -> impl Iterator<Item = MutexGuard<'_, Ledger>> {
        self.ledgers.iter().map(|ledger| ledger.lock())
    }

    /// The ledger of a crowd's only or first stream.
    pub fn first(&self) -> MutexGuard<'_, Ledger> {
        self.ledgers[0].lock()
    }

    /// Waits until the condition is true for every stream.
    pub async fn until_all(&self, what: &str, is_so: impl Fn(&Ledger) -> bool) {
        // Checks the last failing stream first: the others are rarely faster. A full scan per poll
        // would be slow.
        let mut first_waiting = 0;
        let mut look = || {
            let order = (first_waiting..self.len()).chain(0..first_waiting);
            let waiting = order.into_iter().find(|index| !is_so(&self.ledgers[*index].lock()));
            first_waiting = waiting.unwrap_or(0);
            waiting
        };
        let start = std::time::Instant::now();
        while let Some(waiting) = look() {
            if start.elapsed() > CROWD_DEADLINE {
                let count = self.ledgers().filter(|ledger| !is_so(ledger)).count();
                let sample = self.ledgers[waiting].lock();
                panic!(
                    "not within {CROWD_DEADLINE:?}: {what}: {count} of {} are not so; stream \
                     {waiting}: {}",
                    self.len(),
                    sample.story()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until every stream has connected `times` times.
    pub async fn until_connected(&self, times: usize) {
        self.until_all("connected", |ledger| ledger.connected >= times).await;
    }

    /// Waits until every stream has event `last` of a lane.
    pub async fn until_number(&self, lane: usize, last: u32) {
        let what = format!("has event {last} of lane {lane}");
        self.until_all(&what, |ledger| ledger.newest(lane) >= last).await;
    }

    /// Every stream got the events 1 to `last` of a lane, each once and in order.
    pub fn assert_whole(&self, lane: usize, last: u32) {
        let flaws = self.ledgers().enumerate().filter_map(|(index, ledger)| {
            Some(format!("stream {index}: {}", ledger.flaw(lane, last)?))
        });
        let flaws: Vec<String> = flaws.collect();
        assert!(
            flaws.is_empty(),
            "{} streams: {}",
            flaws.len(),
            flaws[..flaws.len().min(3)].join("\n")
        );
    }

    /// Every ended connection was cut by the test.
    pub fn assert_only_cut(&self) {
        for (index, ledger) in self.ledgers().enumerate() {
            let other = ledger.ends.iter().find(|end| **end != End::Cut);
            assert_eq!(other, None, "stream {index}");
        }
    }

    /// The latencies of a lane's events with these numbers, in microseconds, ascending.
    pub fn latencies(&self, lane: usize, numbers: std::ops::RangeInclusive<u32>) -> Vec<u32> {
        let mut micros = Vec::new();
        for ledger in self.ledgers() {
            let arrivals = ledger.arrivals.get(lane).into_iter().flatten();
            let wanted = arrivals.filter(|arrival| numbers.contains(&arrival.number));
            micros.extend(wanted.map(|arrival| arrival.latency_micros));
        }
        micros.sort_unstable();
        micros
    }
}

/// The 99th percentile of ascending values.
pub fn p99(ascending: &[u32]) -> Duration {
    let at = (ascending.len() * 99 / 100).min(ascending.len().saturating_sub(1));
    Duration::from_micros(ascending.get(at).copied().expect("something was measured").into())
}

/// A random source, repeatable with `FANFARE_SEED=…`. A failed test shows its seed.
pub fn seeded() -> StdRng {
    let seed = std::env::var("FANFARE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("FANFARE_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Waits up to [`CROWD_DEADLINE`].
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    until(CROWD_DEADLINE, what, condition).await;
}
