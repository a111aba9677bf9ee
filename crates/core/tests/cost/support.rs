//! Streams, events and counts for the tests of cost.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use allocation_counter::AllocationInfo;
use fanfare_core::{
    access::Grant,
    budget::HistoryBudget,
    connection::{ConnectionSpec, ConnectionState, Next, WorkerContext},
    cursor::Epoch,
    event::{EventBody, SequencedEvent},
    id_budget::IdBudget,
    partition::{MemoryPartition, PartitionSpec, PartitionState},
    partition_log::Replay,
    policy::{Conflate, Flush, Policies, Policy, Rate, SlowConsumer},
    subscription::{ResolvedSubscription, StreamLimits, Subscription},
    topic::Topic,
    topic_manager::Opening,
    wall_clock::WallClock,
};

/// Wide limits: the tests measure the cost of large streams.
pub const LIMITS: StreamLimits =
    StreamLimits { max_topics: 100_000, max_patterns: 100_000, max_types: 64 };

/// The allocations of a run.
pub fn cost(run: impl FnOnce()) -> AllocationInfo {
    let mut run = Some(run);
    allocation_counter::measure(|| run.take().into_iter().for_each(|run| run()))
}

/// Asserts a linear cost: four times the input costs at most five times as many allocations and
/// bytes.
pub fn assert_linear(count: usize, mut cost_of: impl FnMut(usize) -> AllocationInfo) {
    let (one, four) = (cost_of(count), cost_of(4 * count));
    assert!(four.count_total <= 5 * one.count_total, "{one:?}, four times the input: {four:?}");
    assert!(four.bytes_total <= 5 * one.bytes_total, "{one:?}, four times the input: {four:?}");
}

pub fn policy(flush: Flush) -> Arc<Policy> {
    Arc::new(Policy {
        entry: None,
        flush,
        tick: Duration::from_millis(100),
        conflate: Conflate::None,
        history_events: 1000,
        history_ttl: Duration::from_secs(3600),
        rate: None,
    })
}

/// An event of partition 0 with a collapse key.
pub fn event(
    topic: &Topic,
    policy: &Arc<Policy>,
    sequence: u64,
    collapse: Option<&str>,
) -> Arc<SequencedEvent> {
    Arc::new(SequencedEvent {
        topic: topic.clone(),
        partition: 0,
        epoch: Epoch::new(1),
        sequence,
        published_at: Instant::now(),
        unix_ms: 0,
        policy: policy.clone(),
        body: Arc::new(EventBody {
            event_type: None,
            key: None,
            collapse: collapse.map(Into::into),
            text: None,
            lines: "data: {}\n".into(),
            data_at: 0,
            is_json: true,
            is_deletion: false,
            topic_count: 1,
        }),
        collapsed: None,
    })
}

fn clock() -> Arc<WallClock> {
    Arc::new(WallClock::new(Instant::now(), Duration::ZERO))
}

pub fn worker() -> WorkerContext {
    WorkerContext::new(clock())
}

pub fn partition_spec(partition: u16, policy: Policy, max_history_bytes: usize) -> PartitionSpec {
    let budget = || Arc::new(IdBudget::new(1 << 30));
    PartitionSpec {
        partition,
        epoch: Epoch::new(1),
        policies: Arc::new(Policies::new(policy, Vec::new())),
        budget: Arc::new(HistoryBudget::new(max_history_bytes, 16, Instant::now())),
        clock: clock(),
        started_ms: 0,
        max_idle_topics: 1_000_000,
        idempotency_window: Duration::from_secs(300),
        remembered: budget(),
        remembered_fan_outs: budget(),
    }
}

pub fn memory_partition(partition: u16) -> PartitionState<()> {
    let policy = Policy::clone(&policy(Flush::Leading));
    let memory = MemoryPartition::new(partition_spec(partition, policy, 1 << 30));
    PartitionState::Memory(Box::new(memory))
}

pub fn resolved(names: &[&str]) -> Arc<ResolvedSubscription> {
    let subscription = Subscription::new().topics(names.iter().copied());
    Arc::new(subscription.resolve(LIMITS, 1, &Grant::everything()).unwrap())
}

/// An open stream of partition 0, with everything before its first event taken.
pub fn open_stream(
    subscription: &Arc<ResolvedSubscription>,
    worker: &mut WorkerContext,
    now: Instant,
) -> ConnectionState {
    let spec = Arc::new(ConnectionSpec {
        rate: Rate { events_per_second: 0, burst: 1 },
        max_outbox_bytes: 1 << 30,
        slow_consumer: SlowConsumer::Disconnect,
        write_timeout: Duration::from_secs(60),
    });
    let mut stream =
        ConnectionState::new(spec, Duration::from_secs(1), subscription.clone(), worker, now);
    let replay = Replay {
        epoch: Epoch::new(1),
        start: 0,
        head: 0,
        events: Vec::new(),
        missed: None,
        next: None,
        mark: None,
    };
    let opening = Opening { stream: 1, replays: vec![(0, replay)], at: now };
    stream.on_opened(opening, "1", worker, now);
    take_all(&mut stream, worker, now);
    stream
}

/// Takes all output. Returns its text.
pub fn take_all(stream: &mut ConnectionState, worker: &mut WorkerContext, now: Instant) -> String {
    let mut text = Vec::new();
    while let Next::Write(piece) = stream.next(worker, now) {
        text.extend_from_slice(&piece.bytes);
    }
    String::from_utf8(text).unwrap()
}
