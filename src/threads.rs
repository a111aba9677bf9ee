//! The threads owned by a hub: for its partitions, its router, its stores and its log.

use std::{io, sync::mpsc};

use actix::{Actor, Addr};
use tokio::runtime::LocalOptions;
use tokio_util::sync::CancellationToken;

use crate::{
    actors::{
        courier,
        partition::{LongTurns, Partition, PartitionQueue, PartitionQueues},
    },
    clock::MovableClock,
};

/// Starts partitions, spread over `thread_count` threads. Returns them in order of their
/// numbers, and the queues of their threads.
pub(crate) fn start_partitions(
    partitions: Vec<Partition>,
    thread_count: usize,
    mailbox_capacity: usize,
    stop: &CancellationToken,
) -> io::Result<(Vec<Addr<Partition>>, PartitionQueues)> {
    let mut by_thread: Vec<Vec<Partition>> = (0..thread_count).map(|_| Vec::new()).collect();
    for partition in partitions {
        by_thread[usize::from(partition.number()) % thread_count].push(partition);
    }
    let (mut started, mut queues) = (Vec::new(), Vec::new());
    for (thread, partitions) in by_thread.into_iter().enumerate() {
        let start = move || -> (Vec<(u16, Addr<Partition>)>, PartitionQueue) {
            courier::start();
            let long_turns = LongTurns.start();
            let start = |partition: Partition| {
                let number = partition.number();
                let partition = partition.with_long_turns(long_turns.clone());
                let addr = Partition::create(|ctx| {
                    // Set it before anybody has the address: a full mailbox wakes no sender.
                    ctx.set_mailbox_capacity(mailbox_capacity);
                    partition
                });
                (number, addr)
            };
            let started: Vec<_> = partitions.into_iter().map(start).collect();
            (started.clone(), PartitionQueue::start(started))
        };
        let (partitions, queue) = start_alone(&format!("fanfare-{thread}"), stop, start)?;
        started.extend(partitions);
        queues.push(queue);
    }
    started.sort_unstable_by_key(|(number, _)| *number);
    let partitions = started.into_iter().map(|(_, addr)| addr).collect();
    Ok((partitions, PartitionQueues::new(queues)))
}

/// Runs `start` on a new thread and returns its result. Actors started by it run on this thread
/// until `stop` is cancelled.
pub(crate) fn start_alone<T: Send + 'static>(
    name: &str,
    stop: &CancellationToken,
    start: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = mpsc::channel();
    let (stop, clock) = (stop.clone(), MovableClock::of_thread());
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        clock.inspect(MovableClock::install);
        run_actors(async {
            let _ = sender.send(start());
            stop.cancelled().await;
        });
    })?;
    receiver.recv().map_err(io::Error::other)
}

/// Runs `work` on a new thread, and does not wait for it.
pub(crate) fn run_detached<F: Future<Output = ()>>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let clock = MovableClock::of_thread();
    let run = move || {
        clock.inspect(MovableClock::install);
        run_actors(work());
    };
    thread.spawn(run).map(drop)
}

/// Runs actors on this thread as long as the future runs. An actix system would run them in a set
/// of local tasks inside its runtime, so each wake would take a detour.
///
/// If the runtime cannot be built, the future is dropped and the caller sees its channel close.
fn run_actors(future: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    match builder.enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => tracing::error!(%error, "cannot build the runtime"),
    }
}
