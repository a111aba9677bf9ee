//! The streams of a run: threads that read them, each with a runtime, a buffer and a tally of
//! its own, so that no event takes a lock.

use std::{cell::RefCell, rc::Rc, sync::Arc, thread};

use futures_util::future::join_all;
use hdrhistogram::Histogram;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinSet, LocalSet},
};

use super::{ledger::Ledger, run::Run, stream};
use crate::cli::CliError;

/// What is read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Longest latency that is told from longer ones.
const MAX_LATENCY_MICROS: u64 = 600_000_000;

/// What a stream had, over all its connections.
pub(super) struct Had {
    /// Among those of the run.
    pub number: usize,
    /// Of its topics.
    pub ledgers: Box<[Ledger]>,
    /// What its last `id:` line said, if it is to come back with it.
    pub last_id: Vec<u8>,
}

/// What the streams of a thread had.
pub(super) struct Tally {
    pub streams: Vec<Had>,
    /// Deliveries that arrived within the window.
    pub delivered: u64,
    /// Of events that were sent within the window, in microseconds.
    pub latencies: Histogram<u64>,
    /// Times that a hub told of missed events.
    pub gaps: u64,
    /// Events of topics that the stream had not asked for.
    pub strays: u64,
}

impl Tally {
    pub fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, MAX_LATENCY_MICROS, 3);
        Self {
            streams: Vec::new(),
            delivered: 0,
            latencies: latencies.expect("the bounds are valid"),
            gaps: 0,
            strays: 0,
        }
    }

    /// Takes what another thread had.
    pub fn add(&mut self, other: Self) {
        self.streams.extend(other.streams);
        self.delivered += other.delivered;
        self.latencies.add(other.latencies).expect("the bounds are the same");
        self.gaps += other.gaps;
        self.strays += other.strays;
    }
}

/// What the streams of one thread share.
pub(super) struct Crew {
    pub run: Arc<Run>,
    pub buffer: RefCell<Box<[u8]>>,
    pub tally: RefCell<Tally>,
}

impl Crew {
    /// A place for a stream's tally.
    fn add(&self, number: usize) -> usize {
        let topics = self.run.settings.topics.per_stream;
        let ledgers = (0..topics).map(|_| Ledger::default()).collect();
        let streams = &mut self.tally.borrow_mut().streams;
        streams.push(Had { number, ledgers, last_id: Vec::new() });
        streams.len() - 1
    }
}

/// What a thread is to do next.
enum Order {
    /// Open the stream of this number.
    Open(usize),
    /// Cut all streams, and answer when that is done.
    Cut(oneshot::Sender<()>),
    /// Open again all that were cut, at once.
    ComeBack,
}

/// All streams. They end with [`finish`](Self::finish), or with it.
pub(super) struct Crowd {
    threads: Vec<(mpsc::UnboundedSender<Order>, thread::JoinHandle<Tally>)>,
}

impl Crowd {
    /// Starts the threads; there are no streams yet.
    pub fn start(run: &Arc<Run>) -> Result<Self, CliError> {
        let threads = (0..run.settings.thread_count).map(|number| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let run = run.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = thread::Builder::new().name(format!("streams-{number}"));
            let thread =
                thread.spawn(move || LocalSet::new().block_on(&runtime, work(run, receiver)))?;
            Ok((sender, thread))
        });
        let threads: Result<_, std::io::Error> = threads.collect();
        let failed = |error| CliError::Failed(format!("no threads to read streams: {error}"));
        Ok(Self { threads: threads.map_err(failed)? })
    }

    /// Begins to open a stream, on the thread whose turn it is.
    pub fn open(&self, number: usize) {
        let (sender, _) = &self.threads[number % self.threads.len()];
        // A thread that is gone has panicked, which `finish` tells.
        let _ = sender.send(Order::Open(number));
    }

    /// Cuts the connections of all streams.
    pub async fn cut(&self) -> Result<(), CliError> {
        let cutting = self.threads.iter().map(|(sender, _)| {
            let (done, is_done) = oneshot::channel();
            let _ = sender.send(Order::Cut(done));
            is_done
        });
        let all = join_all(cutting.collect::<Vec<_>>()).await;
        if all.iter().any(Result::is_err) { Err(panicked()) } else { Ok(()) }
    }

    /// Begins to open again all that were cut.
    pub fn come_back(&self) {
        for (sender, _) in &self.threads {
            let _ = sender.send(Order::ComeBack);
        }
    }

    /// Closes all streams and says what they had.
    pub fn finish(self) -> Result<Tally, CliError> {
        let mut all = Tally::new();
        for (sender, thread) in self.threads {
            drop(sender);
            all.add(thread.join().map_err(|_| panicked())?);
        }
        Ok(all)
    }
}

fn panicked() -> CliError {
    CliError::Failed("a thread that reads streams panicked".to_owned())
}

/// Does as it is told, and reads streams until nothing more can be asked.
async fn work(run: Arc<Run>, mut orders: mpsc::UnboundedReceiver<Order>) -> Tally {
    let buffer = RefCell::new(vec![0; BUFFER_BYTES].into_boxed_slice());
    let crew = Rc::new(Crew { run, buffer, tally: RefCell::new(Tally::new()) });
    let mut streams = JoinSet::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Open(number) => {
                let Ok(permit) = crew.run.connecting.clone().acquire_owned().await else {
                    break;
                };
                let slot = crew.add(number);
                streams.spawn_local(stream::follow(crew.clone(), slot, Some(permit)));
            }
            Order::Cut(done) => {
                streams.shutdown().await;
                // The run may be over.
                let _ = done.send(());
            }
            Order::ComeBack => {
                for slot in 0..crew.tally.borrow().streams.len() {
                    streams.spawn_local(stream::follow(crew.clone(), slot, None));
                }
            }
        }
    }
    crew.tally.replace(Tally::new())
}
