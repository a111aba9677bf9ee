//! The reader threads of a run. Each thread has its own runtime, buffer and totals, so no event
//! takes a lock.

use std::{cell::RefCell, rc::Rc, sync::Arc, thread};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinSet, LocalSet},
};

use super::{
    records::{BUFFER_BYTES, ReaderThread, Totals},
    run::Run,
    stream,
};
use crate::BenchError;

/// A command to a reader thread.
enum ThreadOrder {
    /// Open the stream with this number.
    Open(usize),
    /// Cut all streams, and answer once they are cut.
    Cut(oneshot::Sender<()>),
    /// Reopen all cut streams at once.
    ComeBack,
}

/// All reader threads. [`finish`](Self::finish) or dropping this closes the streams.
pub(super) struct ReaderThreads {
    threads: Vec<(mpsc::UnboundedSender<ThreadOrder>, thread::JoinHandle<Totals>)>,
}

impl ReaderThreads {
    /// Starts the threads, without streams.
    pub fn start(run: &Arc<Run>) -> Result<Self, BenchError> {
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
        let failed = |error| BenchError::Failed(format!("cannot start reader threads: {error}"));
        Ok(Self { threads: threads.map_err(failed)? })
    }

    /// Begins to open a stream. Streams are spread over the threads in turn.
    pub fn open(&self, number: usize) {
        let (sender, _) = &self.threads[number % self.threads.len()];
        // Sending fails only after a panic of the thread; `finish` reports it.
        let _ = sender.send(ThreadOrder::Open(number));
    }

    /// Cuts the connections of all streams.
    pub async fn cut(&self) -> Result<(), BenchError> {
        let cutting = self.threads.iter().map(|(sender, _)| {
            let (done, is_done) = oneshot::channel();
            let _ = sender.send(ThreadOrder::Cut(done));
            is_done
        });
        let all = join_all(cutting.collect::<Vec<_>>()).await;
        if all.iter().any(Result::is_err) { Err(panicked()) } else { Ok(()) }
    }

    /// Begins to reopen all cut streams.
    pub fn come_back(&self) {
        for (sender, _) in &self.threads {
            let _ = sender.send(ThreadOrder::ComeBack);
        }
    }

    /// Closes all streams and returns their totals.
    pub fn finish(self) -> Result<Totals, BenchError> {
        let mut all = Totals::new();
        for (sender, thread) in self.threads {
            drop(sender);
            all.add(thread.join().map_err(|_| panicked())?);
        }
        Ok(all)
    }
}

fn panicked() -> BenchError {
    BenchError::Failed("a reader thread panicked".to_owned())
}

/// Executes orders and reads streams until the order channel closes.
async fn work(run: Arc<Run>, mut orders: mpsc::UnboundedReceiver<ThreadOrder>) -> Totals {
    let buffer = RefCell::new(vec![0; BUFFER_BYTES].into_boxed_slice());
    let state = Rc::new(ReaderThread { run, buffer, totals: RefCell::new(Totals::new()) });
    let mut streams = JoinSet::new();
    while let Some(order) = orders.recv().await {
        match order {
            ThreadOrder::Open(number) => {
                let Ok(permit) = state.run.connecting.clone().acquire_owned().await else {
                    break;
                };
                let slot = state.add(number);
                streams.spawn_local(stream::follow(state.clone(), slot, Some(permit)));
            }
            ThreadOrder::Cut(done) => {
                streams.shutdown().await;
                // The receiver is gone if the run is over.
                let _ = done.send(());
            }
            ThreadOrder::ComeBack => {
                for slot in 0..state.totals.borrow().streams.len() {
                    streams.spawn_local(stream::follow(state.clone(), slot, None));
                }
            }
        }
    }
    state.totals.replace(Totals::new())
}
