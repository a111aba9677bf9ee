//! Very many cheap streams in one process: each knows what it has seen, can be cut at a byte
//! or told to stop reading or to leave, and comes back with its last id.

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

/// How long thousands of streams may take for what takes seconds, on a busy machine.
pub const CROWD_DEADLINE: Duration = Duration::from_secs(90);

/// What one stream of a crowd is to do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What follows `/events/stream?`.
    pub query: String,
    /// Whether it returns when the server or a cut has ended it.
    pub comes_back: bool,
    /// Bytes of its first, second, … connection after which it is cut; then it is not.
    pub cuts: Vec<usize>,
    /// The texts that a lane's events have, from number 1 on, over and over; any if empty.
    pub texts: Arc<Vec<Vec<String>>>,
    /// `SO_RCVBUF`, the kernel's own choice if `None`.
    pub receive_buffer_bytes: Option<u32>,
}

/// What all streams of a crowd are told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Connect, and read.
    Read,
    /// Stay connected and read nothing.
    Stall,
    /// Close at once: the even ones with FIN, the odd ones with RST.
    Leave,
}

/// Streams that were started together. Dropping it closes them.
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

    /// The same plan for each of `count` streams.
    pub fn of(addr: SocketAddr, count: usize, plan: &Plan) -> Self {
        Self::start(addr, std::iter::repeat_n(plan.clone(), count))
    }

    /// Ends every stream now, half of them with FIN and half with RST.
    pub fn leave(&self) {
        self.orders.send_replace(Order::Leave);
    }

    /// Has streams that left come back, and stalled ones read on.
    pub fn read(&self) {
        self.orders.send_replace(Order::Read);
    }

    /// Has every stream stay connected and read nothing.
    pub fn stall(&self) {
        self.orders.send_replace(Order::Stall);
    }

    pub fn len(&self) -> usize {
        self.ledgers.len()
    }

    /// What each stream has seen.
    pub fn ledgers(&self) -> impl Iterator<Item = MutexGuard<'_, Ledger>> {
        self.ledgers.iter().map(|ledger| ledger.lock())
    }

    /// What a crowd's only or first stream has seen.
    pub fn first(&self) -> MutexGuard<'_, Ledger> {
        self.ledgers[0].lock()
    }

    /// Waits until every stream is so.
    pub async fn until_all(&self, what: &str, is_so: impl Fn(&Ledger) -> bool) {
        // Looks at the one that was not so first: the others are as a rule no faster.
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

    /// Waits until every stream is connected, for the `times`th time.
    pub async fn until_connected(&self, times: usize) {
        self.until_all("connected", |ledger| ledger.connected >= times).await;
    }

    /// Waits until every stream has the last event of a lane.
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

    /// No connection ended but those that the test cut.
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

/// The value that 99 % of these, ascending, do not exceed.
pub fn p99(ascending: &[u32]) -> Duration {
    let at = (ascending.len() * 99 / 100).min(ascending.len().saturating_sub(1));
    Duration::from_micros(ascending.get(at).copied().expect("something was measured").into())
}

/// Random choices that can be made again: `FANFARE_SEED=…`. A failed test shows its seed.
pub fn seeded() -> StdRng {
    let seed = std::env::var("FANFARE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("FANFARE_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Waits with the crowd's patience.
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    until(CROWD_DEADLINE, what, condition).await;
}
