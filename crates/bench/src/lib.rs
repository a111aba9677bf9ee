//! `fanfare bench`: the load tool. It opens streams, publishes to their topics, and reports
//! deliveries, latency and the server's cost. This file owns the life of a run and starts the
//! publishers; reader threads (`crowd`) own the streams.

mod crowd;
mod exchange;
mod handshakes;
mod http;
pub mod hub_address;
mod ledger;
mod mark;
mod progress;
mod publisher;
mod reader;
mod records;
mod report;
mod run;
mod server_process;
mod settings;
mod stalled;
mod storm;
mod stream;
mod topics;

use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
pub use settings::BenchArgs;
use tokio::time::{Instant, sleep};

use self::{
    crowd::ReaderThreads,
    exchange::{DeliveryDefaults, HubStats},
    ledger::Loss,
    progress::ProgressLine,
    publisher::{LoadPublisher, PublishLog, PublishedTopic},
    reader::Greeting,
    records::{StreamRecord, Totals},
    report::{
        BenchReport, Cost, Deliveries, LatencyReport, LossReport, PublishReport, Reconnect,
        ServerReport, StalledStreams, StreamsReport,
    },
    run::Run,
    server_process::ServerProcesses,
    settings::BenchSettings,
    stalled::Stalled,
    storm::Storm,
};

/// How a run failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Invalid flags.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
}

/// Open files besides the streams: runtimes, publishers' connections, `/proc`.
const SPARE_FILES: u64 = 64;

/// Most streams opened before the first memory measurement. One-time allocations of the server
/// fall before it and do not count as memory of a stream.
const MAX_WARM_STREAMS: usize = 200;

/// After this long without a delivery, missing events count as lost. Longer than any tick.
const MAX_QUIET: Duration = Duration::from_secs(2);

/// Time limit for all events in flight to arrive.
const MAX_SETTLING: Duration = Duration::from_secs(60);

/// Wait after opening streams without a visible `connected` event: streams of another hub, and
/// stalled streams. In this time the hub completes their subscriptions.
const UNSEEN_DELAY: Duration = Duration::from_secs(1);

/// Interval between two reads of the counters.
const POLL: Duration = Duration::from_millis(5);

/// Measures and prints the report.
///
/// # Errors
/// Invalid flags, a failed run, or a failed check: loss, duplicates, wrong order, gaps, streams
/// ended early. The report is printed before a failed check is returned.
pub async fn run(args: BenchArgs) -> Result<(), BenchError> {
    let settings = args.settings()?;
    // The soft limit is often 1,024, for compatibility with old programs.
    let open_files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    check_open_files(&settings, open_files)?;
    let publish_address = exchange::resolve(&settings.publishing.place).await?;
    let stream_address = exchange::resolve(&settings.streams).await?;
    let server = ServerProcesses::find(&settings.pids, stream_address).await;
    let is_json = settings.is_json;
    let run = Arc::new(Run::new(settings, stream_address));
    let progress = ProgressLine::new();
    let crowd = ReaderThreads::start(&run)?;
    let measured = measure(&run, &crowd, &server, publish_address, &progress).await;
    progress.done();
    let (server, times, logs) = measured?;
    let broken = logs.iter().find_map(|log| log.broken.clone());
    let report = report(&run, crowd.finish()?, server, times, logs);
    print(&report, is_json)?;
    let problems = [broken.map(|why| format!("publishing broke off: {why}")), report.failure()];
    let problems: Vec<String> = problems.into_iter().flatten().collect();
    if problems.is_empty() { Ok(()) } else { Err(BenchError::Failed(problems.join("\n"))) }
}

/// Measurements besides those of the reader threads.
struct Times {
    to_open: Duration,
    conflated: Option<u64>,
    delivery: Option<DeliveryDefaults>,
    /// CPU time of the server within the window.
    cpu: Option<Duration>,
    storm: Option<Storm>,
    /// Stalled streams ended by the server.
    stalled_ended: u64,
}

fn check_open_files(settings: &BenchSettings, limit: u64) -> Result<(), BenchError> {
    let streams = (settings.stream_count + settings.stalled_count) as u64;
    let needed = streams + u64::from(settings.publisher_count) + SPARE_FILES;
    if needed <= limit {
        return Ok(());
    }
    Err(BenchError::Failed(format!(
        "too few open files: {} streams need {needed}, the limit is {limit}; \
         raise it (ulimit -n) or open fewer streams",
        streams
    )))
}

async fn measure(
    run: &Arc<Run>,
    crowd: &ReaderThreads,
    processes: &ServerProcesses,
    publish_address: SocketAddr,
    progress: &ProgressLine,
) -> Result<(ServerReport, Times, Vec<PublishLog>), BenchError> {
    let stats_before = stats(run).await;
    let start = Instant::now();
    let memory = open_streams(run, crowd, processes, progress).await?;
    let to_open = start.elapsed();
    let stalled = Stalled::open(run).await?;
    if run.settings.greeting == Greeting::Head || !stalled.is_empty() {
        sleep(UNSEEN_DELAY).await;
    }
    let mut server = ServerReport { pids: processes.pids().to_vec(), ..memory };
    let (logs, cpu, storm) = if let Some(events) = run.settings.reconnect {
        let storm = storm::measure(run, crowd, processes, publish_address, progress, events);
        let (logs, storm) = storm.await?;
        (logs, storm.cpu, Some(storm))
    } else {
        let (logs, cpu) = publish(run, processes, publish_address, progress).await;
        wait_for_in_flight(run).await;
        (logs, cpu, None)
    };
    server.memory_bytes_at_end = processes.memory_bytes();
    let (conflated, delivery) = match (stats_before, stats(run).await) {
        (Some(before), Some(after)) => {
            (Some(after.conflated.saturating_sub(before.conflated)), after.delivery)
        }
        _ => (None, None),
    };
    let stalled_ended = stalled.count_ended().await;
    Ok((server, Times { to_open, conflated, delivery, cpu, storm, stalled_ended }, logs))
}

async fn stats(run: &Run) -> Option<HubStats> {
    let place = run.settings.stats.as_ref()?;
    exchange::stats(run.stream_address, place).await
}

/// Opens all streams. Memory per connection is measured over all but the first, warm ones.
async fn open_streams(
    run: &Run,
    crowd: &ReaderThreads,
    processes: &ServerProcesses,
    progress: &ProgressLine,
) -> Result<ServerReport, BenchError> {
    let count = run.settings.stream_count;
    let warm = (count / 10).min(MAX_WARM_STREAMS);
    (0..warm).for_each(|number| crowd.open(number));
    until_open(run, &run.counters.opened, warm, progress).await?;
    let before = processes.memory_bytes();
    (warm..count).for_each(|number| crowd.open(number));
    until_open(run, &run.counters.opened, count, progress).await?;
    let after = processes.memory_bytes();
    let per_connection = match (before, after) {
        (Some(before), Some(after)) => {
            Some(after.saturating_sub(before) as f64 / (count - warm) as f64)
        }
        _ => None,
    };
    Ok(ServerReport {
        memory_bytes: after,
        memory_bytes_per_connection: per_connection,
        ..ServerReport::default()
    })
}

/// Waits until the counter reaches `count`.
///
/// # Errors
/// A stream was refused: with fewer streams, the run would measure something else.
async fn until_open(
    run: &Run,
    counter: &AtomicU64,
    count: usize,
    progress: &ProgressLine,
) -> Result<(), BenchError> {
    loop {
        let opened = counter.load(Relaxed);
        if let Some(why) = run.counters.first_refusal.lock().clone() {
            let asked = run.stream_count();
            let message = format!("a stream failed to open ({opened} of {asked} opened): {why}");
            return Err(BenchError::Failed(message));
        }
        if opened >= count as u64 {
            return Ok(());
        }
        progress.opening(opened, run.stream_count());
        sleep(POLL).await;
    }
}

/// Publishes during warm-up and window. Returns the server's CPU time within the window too.
async fn publish(
    run: &Arc<Run>,
    processes: &ServerProcesses,
    address: SocketAddr,
    progress: &ProgressLine,
) -> (Vec<PublishLog>, Option<Duration>) {
    let BenchSettings { warmup, duration, .. } = run.settings;
    let (start, now) = (Instant::now(), run.micros());
    let from = now + micros(warmup);
    run.window.set(from, from + micros(duration));
    let end = start + warmup + duration;
    let publishers = LoadPublisher::all(run, address);
    let publishing = publishers.into_iter().map(|publisher| publisher.publish(start, end));
    let watching = async {
        wait_until(run, start, start + warmup, end - start, progress).await;
        let cpu_before = processes.cpu();
        wait_until(run, start, end, end - start, progress).await;
        run.window.cut(run.micros());
        Some(processes.cpu()?.saturating_sub(cpu_before?))
    };
    tokio::join!(join_all(publishing), watching)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Waits until `time`, or until the run is over.
async fn wait_until(
    run: &Run,
    start: Instant,
    time: Instant,
    of: Duration,
    progress: &ProgressLine,
) {
    while Instant::now() < time {
        if run.is_over() {
            return;
        }
        progress.publishing(start.elapsed(), of, run);
        sleep(POLL.min(time.saturating_duration_since(Instant::now()))).await;
    }
}

/// Waits for the events in flight, at most [`MAX_QUIET`] from one delivery to the next.
async fn wait_for_in_flight(run: &Run) {
    let counters = &run.counters;
    let start = Instant::now();
    let (mut last, mut since) = (counters.delivered.load(Relaxed), start);
    while last < counters.expected.load(Relaxed)
        && counters.ended.load(Relaxed) < run.stream_count()
        && since.elapsed() < MAX_QUIET
        && start.elapsed() < MAX_SETTLING
    {
        sleep(POLL).await;
        let delivered = counters.delivered.load(Relaxed);
        if delivered != last {
            (last, since) = (delivered, Instant::now());
        }
    }
}

fn report(
    run: &Run,
    totals: Totals,
    mut server: ServerReport,
    times: Times,
    logs: Vec<PublishLog>,
) -> BenchReport {
    let (settings, counters) = (&run.settings, &run.counters);
    let window = run.window.length();
    let cost =
        Cost { cpu: times.cpu, window, streams: run.stream_count(), deliveries: totals.delivered };
    cost.put_into(&mut server);
    let per_second = |count: u64| count as f64 / window.as_secs_f64().max(f64::MIN_POSITIVE);
    let sum = |of: fn(&PublishLog) -> u64| logs.iter().map(of).sum::<u64>();
    BenchReport {
        url: format!("http://{}{}", settings.streams.authority, settings.streams.path),
        seconds: window.as_secs_f64(),
        payload_bytes: settings.payload_bytes,
        topics: settings.topics.count,
        topics_per_stream: settings.topics.per_stream,
        streams: StreamsReport {
            asked: run.stream_count(),
            opened: counters.opened.load(Relaxed),
            ended: counters.ended.load(Relaxed),
            first_end: counters.first_end.lock().clone(),
            seconds_to_open: times.to_open.as_secs_f64(),
        },
        published: PublishReport {
            asked_per_second: settings.events_per_second,
            per_second: per_second(sum(|log| log.measured)),
            confirmed: sum(|log| log.confirmed),
            unconfirmed: sum(|log| log.unconfirmed),
            first_refusal: logs.iter().find_map(|log| log.first_refusal.clone()),
        },
        deliveries: Deliveries {
            per_second: per_second(totals.delivered),
            total: counters.delivered.load(Relaxed),
            expected: counters.expected.load(Relaxed),
        },
        loss: LossReport {
            is_checked: times.conflated.unwrap_or(0) == 0,
            loss: loss(run, &totals, &logs),
            gaps: totals.gaps,
            strays: totals.strays,
            conflated: times.conflated,
        },
        latency_ms: LatencyReport::of(&totals.latencies),
        delivery: times.delivery,
        reconnect: times.storm.map(|storm| Reconnect::of(&storm, run.stream_count())),
        stalled: (settings.stalled_count > 0).then_some(StalledStreams {
            asked: settings.stalled_count as u64,
            ended: times.stalled_ended,
        }),
        server,
    }
}

/// The loss of all streams together.
fn loss(run: &Run, totals: &Totals, logs: &[PublishLog]) -> Loss {
    let topics = &run.settings.topics;
    let mut published = vec![PublishedTopic::default(); topics.count as usize];
    for (topic, log) in logs.iter().flat_map(|log| &log.topics) {
        published[*topic as usize] = *log;
    }
    let mut all = Loss::default();
    for StreamRecord { number, ledgers, .. } in &totals.streams {
        for (topic, ledger) in topics.of_stream(*number).zip(ledgers) {
            let log = published[topic as usize];
            all += ledger.loss(log.numbers, log.unconfirmed);
        }
    }
    all
}

fn print(report: &BenchReport, is_json: bool) -> Result<(), BenchError> {
    let text = if is_json {
        let json = serde_json::to_string(report);
        json.map_err(|error| BenchError::Failed(error.to_string()))? + "\n"
    } else {
        report.to_string()
    };
    let failed = |error| BenchError::Failed(format!("standard output: {error}"));
    std::io::stdout().write_all(text.as_bytes()).map_err(failed)
}
