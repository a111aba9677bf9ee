//! A stream's rate limits (governor): its own limit, and the limits of topic policies. The caller
//! passes the time.

use std::{
    cell::Cell,
    num::NonZeroU32,
    rc::Rc,
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};

use crate::policy::{Policy, Rate};

/// The clock of all limiters of a worker. Each call of a limiter sets it. The streams of a turn have
/// the same time, so it is converted once.
#[derive(Debug, Clone)]
pub(super) struct LimiterClock(Rc<Cell<Time>>);

#[derive(Debug, Clone, Copy)]
struct Time {
    /// The first time set.
    base: Option<Instant>,
    last: Option<Instant>,
    since_base: Nanos,
}

impl LimiterClock {
    pub fn new() -> Self {
        let time = Time { base: None, last: None, since_base: Nanos::default() };
        Self(Rc::new(Cell::new(time)))
    }

    fn set(&self, now: Instant) {
        let time = self.0.get();
        if time.last == Some(now) {
            return;
        }
        let base = time.base.unwrap_or(now);
        let since_base = Nanos::new(now.saturating_duration_since(base).as_nanos() as u64);
        self.0.set(Time { base: Some(base), last: Some(now), since_base });
    }

    /// The moment of a time of this clock.
    fn moment(&self, time: Nanos) -> Option<Instant> {
        self.0.get().base.map(|base| base + Duration::from_nanos(time.as_u64()))
    }
}

impl Clock for LimiterClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.get().since_base
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, LimiterClock, NoOpMiddleware<Nanos>>;

/// All limits of one stream.
#[derive(Debug)]
pub struct Limiter {
    stream: Option<Bucket>,
    /// None before the stream's first event with such a policy.
    policies: Option<Box<PolicyLimits>>,
}

/// The limits of topic policies.
#[derive(Debug, Default)]
struct PolicyLimits {
    /// Permits taken from the stream's limit for events then refused by a policy's limit. The next
    /// events use them first: otherwise each refusal would use up the stream's limit.
    stream_credit: u32,
    /// Buckets by the policy's entry, created with the stream's first event of this policy.
    buckets: Vec<(usize, Bucket)>,
}

impl Limiter {
    /// A limiter for a stream with this `rate`; zero turns the stream's own limit off.
    pub fn new(rate: Rate, clock: &LimiterClock, now: Instant) -> Self {
        clock.set(now);
        Self { stream: bucket(rate, clock), policies: None }
    }

    /// Takes permits for `count` events of one policy, for all or none.
    ///
    /// # Errors
    /// A limit is reached. The error is the earliest moment for a retry; for more events than the
    /// burst it is `now`.
    pub fn take(
        &mut self,
        policy: &Policy,
        count: u32,
        clock: &LimiterClock,
        now: Instant,
    ) -> Result<(), Instant> {
        clock.set(now);
        let credit = self.policies.as_ref().map_or(0, |limits| limits.stream_credit.min(count));
        if let Some(bucket) = &self.stream {
            take(bucket, count - credit, now)?;
        }
        let (Some(entry), Some(rate)) = (policy.entry, policy.rate) else {
            self.policies.iter_mut().for_each(|limits| limits.stream_credit -= credit);
            return Ok(());
        };
        let limits = self.policies.get_or_insert_default();
        limits.stream_credit -= credit;
        let taken = limits.take(entry, rate, count, clock, now);
        if taken.is_err() {
            limits.stream_credit += count;
        }
        taken
    }
}

impl PolicyLimits {
    fn take(
        &mut self,
        entry: usize,
        rate: Rate,
        count: u32,
        clock: &LimiterClock,
        now: Instant,
    ) -> Result<(), Instant> {
        if let Some((_, bucket)) = self.buckets.iter().find(|(other, _)| *other == entry) {
            return take(bucket, count, now);
        }
        let Some(bucket) = bucket(rate, clock) else { return Ok(()) };
        let taken = take(&bucket, count, now);
        self.buckets.push((entry, bucket));
        taken
    }
}

fn bucket(rate: Rate, clock: &LimiterClock) -> Option<Bucket> {
    let per_second = NonZeroU32::new(rate.events_per_second)?;
    let burst = NonZeroU32::new(rate.burst)?;
    let quota = Quota::per_second(per_second).allow_burst(burst);
    Some(RateLimiter::direct_with_clock(quota, clock.clone()))
}

#[inline]
fn take(bucket: &Bucket, count: u32, now: Instant) -> Result<(), Instant> {
    let Some(count) = NonZeroU32::new(count) else { return Ok(()) };
    match bucket.check_n(count) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(denied)) => {
            let at = bucket.clock().moment(denied.earliest_possible());
            Err(at.unwrap_or(now).max(now))
        }
        // More than the burst is never available at once: the caller must request fewer.
        Err(_) => Err(now),
    }
}
