//! The cost of events leaving ahead of their tick.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_core::{
    cursor::Epoch,
    partition::Delivery,
    partition_log::Replay,
    policy::Flush,
    replays::ReplayLimit,
    sse::ShutdownReason,
    subscription::ResolvedSubscription,
    topic::Topic,
    topic_manager::{ChangeStep, Frames, ManagerSpec, ManagerState, Opening, Page},
};

use super::support::{LIMITS, cost, event, policy, resolved};

/// Collects the frames of streams.
#[derive(Default, Clone)]
pub struct Collected(Rc<RefCell<Vec<Frames>>>);

impl fanfare_core::topic_manager::Outlet for Collected {
    fn open(&self, _: Opening) {}

    fn page(&self, _: Page) {}

    fn deliver(&self, frames: Frames) -> Result<(), Frames> {
        self.0.borrow_mut().push(frames);
        Ok(())
    }

    fn change(&self, _: &Arc<ResolvedSubscription>, _: ChangeStep) {}

    fn renew(&self, _: Duration) {}

    fn beat(&self) {}

    fn end(&self, _: ShutdownReason, _: Option<Duration>, _: Frames) {}
}

pub fn manager_of(partition_count: u16, now: Instant) -> ManagerState<Collected> {
    ManagerState::new(ManagerSpec {
        start: now,
        ticks_from: now,
        tick_phase: 0,
        partition_count,
        heartbeat: Duration::from_secs(15),
        max_lifetime: Duration::ZERO,
        max_lifetime_jitter: Duration::ZERO,
        max_batch_events: 10_000,
        max_batch_bytes: 1 << 20,
        limits: LIMITS,
        max_changes_per_second: 0,
        renew_before: Duration::from_secs(30),
        ask_grace: Duration::from_secs(300),
        ask_timeout: Duration::from_secs(5),
        replays: Arc::new(ReplayLimit::new(1)),
    })
}

#[test]
fn streams_alike_share_the_frames_of_events_ahead_of_their_tick() {
    const STREAMS: u64 = 20;
    let now = Instant::now();
    let (slow, fast) = (Topic::parse("slow").unwrap(), Topic::parse("fast").unwrap());
    let subscription = resolved(&["slow", "fast"]);
    let mut manager = manager_of(1, now);
    let collected = Collected::default();
    for stream in 1..=STREAMS {
        manager.open(stream, collected.clone(), &subscription, 0.0, now);
        let (epoch, events) = (Epoch::new(1), Vec::new());
        let replay =
            Replay { epoch, start: 0, head: 0, events, missed: None, next: None, mark: None };
        manager.on_delivery::<()>(0, Delivery::Attached { stream, replay }, now);
    }
    let (tick, immediate) = (policy(Flush::Tick), policy(Flush::Immediate));
    let deliver = |event| Delivery::<()>::Event { event, permit: None };
    for sequence in 1..=1000 {
        manager.on_delivery(0, deliver(event(&slow, &tick, sequence, None)), now);
    }
    let cost = cost(|| {
        manager.on_delivery(0, deliver(event(&fast, &immediate, 1001, None)), now);
        manager.on_time(now);
    });
    let collected = collected.0.take();
    assert_eq!(collected.len() as u64, STREAMS);
    let counts = |frames: &Frames| frames.iter().map(|frame| frame.events.len()).sum::<usize>();
    assert!(collected.iter().all(|frames| counts(frames) == 1001), "every stream gets all events");
    // One encoding takes 40 bytes an event, in a buffer grown by half, and one list 8.
    assert!(cost.bytes_total < 150_000, "{cost:?}");
}
