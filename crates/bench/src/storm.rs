//! A reconnect storm: the tool cuts all streams, publishes events, and reopens all at once.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::sleep;

use super::{
    crowd::ReaderThreads,
    handshakes::Handshakes,
    progress::ProgressLine,
    publisher::{LoadPublisher, PublishLog},
    run::Run,
    server_process::ServerProcesses,
    until_open, wait_for_in_flight,
};
use crate::BenchError;

/// Time for the hub to notice the cut streams before the next publish. An event in flight to a
/// cut stream would be neither missed nor received for certain.
const NOTICE: Duration = Duration::from_secs(1);

/// Time of reading on after all streams caught up, to detect events delivered twice.
const AFTERMATH: Duration = Duration::from_millis(500);

/// The measurements of a storm.
pub(super) struct Storm {
    /// Events of each topic, published while no stream was open.
    pub events: u64,
    /// Deliveries of these events, over all streams.
    pub missed: u64,
    pub to_open: Duration,
    /// Until every stream had its missed events. None if a stream never had.
    pub to_catch_up: Option<Duration>,
    /// CPU time of the server, from the first reconnect until all have caught up.
    pub cpu: Option<Duration>,
    /// Of the whole machine, during the reconnects. None if the kernel has no such counters.
    pub handshakes: Option<Handshakes>,
}

/// Runs the storm. All streams must be open.
pub(super) async fn measure(
    run: &Arc<Run>,
    crowd: &ReaderThreads,
    processes: &ServerProcesses,
    publish_address: SocketAddr,
    progress: &ProgressLine,
    events: u64,
) -> Result<(Vec<PublishLog>, Storm), BenchError> {
    let mut publishers = LoadPublisher::all(run, publish_address);
    // Every stream needs a last event id to resume from.
    publish_each(&mut publishers, 1).await;
    wait_for_in_flight(run).await;
    crowd.cut().await?;
    sleep(NOTICE).await;
    let counters = &run.counters;
    let before = counters.expected.load(Relaxed);
    publish_each(&mut publishers, events).await;
    let missed = counters.expected.load(Relaxed) - before;

    let (handshakes, cpu, start) = (Handshakes::now(), processes.cpu(), run.micros());
    // The window opens before the first reconnect: its deliveries are the missed events.
    run.window.set(start, u64::MAX);
    crowd.come_back();
    until_open(run, &counters.returned, run.settings.stream_count, progress).await?;
    wait_for_in_flight(run).await;
    let cpu = processes.cpu().zip(cpu).map(|(after, before)| after.saturating_sub(before));
    let handshakes = Handshakes::now().zip(handshakes).map(|(after, before)| after - before);
    let opened = counters.last_return_micros.load(Relaxed);
    let caught_up = counters.last_delivery_micros.load(Relaxed).max(opened);
    let is_whole = counters.delivered.load(Relaxed) >= counters.expected.load(Relaxed);
    sleep(AFTERMATH).await;
    run.window.cut(caught_up);
    let since_start = |micros: u64| Duration::from_micros(micros.saturating_sub(start));
    let storm = Storm {
        events,
        missed,
        to_open: since_start(opened),
        to_catch_up: is_whole.then(|| since_start(caught_up)),
        cpu,
        handshakes,
    };
    Ok((publishers.into_iter().map(LoadPublisher::into_log).collect(), storm))
}

async fn publish_each(publishers: &mut [LoadPublisher], events: u64) {
    join_all(publishers.iter_mut().map(|publisher| publisher.publish_each(events))).await;
}
