//! A reconnect storm: all streams are cut, miss events, and come back at once.

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
    settle, until_open,
};
use crate::BenchError;

/// What a hub has to notice that its streams are gone, before more is published: of what is
/// on its way to those nobody could say whether they missed it.
const NOTICE: Duration = Duration::from_secs(1);

/// How long is read on after every stream has what it missed: some of it could come twice.
const AFTERMATH: Duration = Duration::from_millis(500);

/// How it went.
pub(super) struct Storm {
    /// Of each topic, while nobody listened.
    pub events: u64,
    /// Deliveries that this led to.
    pub missed: u64,
    pub to_open: Duration,
    /// Until every stream had what it missed. None if some never had it.
    pub to_catch_up: Option<Duration>,
    /// The server's.
    pub cpu: Option<Duration>,
    /// Of this whole machine, while the streams came back. None where the kernel does not say.
    pub handshakes: Option<Handshakes>,
}

/// Runs it, with all streams open.
pub(super) async fn measure(
    run: &Arc<Run>,
    crowd: &ReaderThreads,
    processes: &ServerProcesses,
    publish_address: SocketAddr,
    progress: &ProgressLine,
    events: u64,
) -> Result<(Vec<PublishLog>, Storm), BenchError> {
    let mut publishers = LoadPublisher::all(run, publish_address);
    // So that each has an id to come back with.
    publish_each(&mut publishers, 1).await;
    settle(run).await;
    crowd.cut().await?;
    sleep(NOTICE).await;
    let counters = &run.counters;
    let before = counters.expected.load(Relaxed);
    publish_each(&mut publishers, events).await;
    let missed = counters.expected.load(Relaxed) - before;

    let (handshakes, cpu, start) = (Handshakes::now(), processes.cpu(), run.micros());
    run.window.set(start, u64::MAX);
    crowd.come_back();
    until_open(run, &counters.returned, run.settings.stream_count, progress).await?;
    settle(run).await;
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
