//! The clock of the hub's threads: Tokio's clock and the system's time of day. A test can move it for
//! one hub. The states of the core take the time as an argument.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use governor::{
    RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Sleep;

/// Between two looks at a movable clock: a sleeper notices a moved clock this late.
const LOOK: Duration = Duration::from_millis(2);

/// Whether the process has a movable clock: without one, a look at the time costs one load.
static IS_MOVABLE: AtomicBool = AtomicBool::new(false);

thread_local! {
    static MOVED: RefCell<Option<MovableClock>> = const { RefCell::new(None) };
}

/// The distance of a hub's time from the true time, on all threads of the hub.
#[derive(Debug, Clone, Default)]
pub(crate) struct MovableClock(Arc<AtomicU64>);

impl MovableClock {
    /// The clock of this thread, if it is movable. Threads started by a hub inherit it.
    pub fn of_thread() -> Option<Self> {
        if !IS_MOVABLE.load(Ordering::Relaxed) {
            return None;
        }
        MOVED.with_borrow(Clone::clone)
    }

    /// Makes this the clock of the thread.
    pub fn install(&self) {
        IS_MOVABLE.store(true, Ordering::Relaxed);
        MOVED.set(Some(self.clone()));
    }

    /// Gives the thread the true time, if this is its clock.
    pub fn uninstall(&self) {
        MOVED.with_borrow_mut(|clock| {
            clock.take_if(|clock| Arc::ptr_eq(&clock.0, &self.0));
        });
    }

    /// Moves the clock forward. The messages sent later see the new time.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::SeqCst);
    }

    fn moved(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

fn moved() -> Duration {
    MovableClock::of_thread().map_or(Duration::ZERO, |clock| clock.moved())
}

/// The time of Tokio's clock.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std() + moved()
}

/// The time of day, in milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    since_1970().as_millis() as u64
}

/// The time of day.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + moved()
}

/// Ready at this moment. Makes the timer on first use.
pub(crate) fn poll_sleep(
    sleep: &mut Option<Pin<Box<Sleep>>>,
    at: Instant,
    task: &mut Context<'_>,
) -> Poll<()> {
    let wake_at = wake_at(at).into();
    let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(wake_at)));
    sleep.as_mut().reset(wake_at);
    std::task::ready!(sleep.as_mut().poll(task));
    if wake_at == at.into() || at <= now() {
        return Poll::Ready(());
    }
    // Only a look at a movable clock.
    task.waker().wake_by_ref();
    Poll::Pending
}

/// The true time of the next look at the clock.
fn wake_at(at: Instant) -> Instant {
    let Some(clock) = MovableClock::of_thread() else { return at };
    let now = tokio::time::Instant::now().into_std();
    at.checked_sub(clock.moved()).unwrap_or(now).min(now + LOOK)
}

/// [`now`], for rate limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HubClock;

impl Clock for HubClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        now()
    }
}

/// A rate limit.
pub(crate) type Limit = RateLimiter<NotKeyed, InMemoryState, HubClock, NoOpMiddleware<Instant>>;
