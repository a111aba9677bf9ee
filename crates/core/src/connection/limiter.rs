//! A stream's rate limits (governor): its own limit, and the limits of topic policies. The caller
//! passes the time.

use std::{cell::Cell, num::NonZeroU32, rc::Rc, time::Instant};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use crate::policy::{Policy, Rate};

/// The clock of all limiters of a worker. Each call of a limiter sets it.
#[derive(Debug, Clone)]
pub(super) struct LimiterClock(Rc<Cell<Option<Instant>>>);

impl LimiterClock {
    pub fn new() -> Self {
        Self(Rc::new(Cell::new(None)))
    }

    fn set(&self, now: Instant) {
        self.0.set(Some(now));
    }
}

impl Clock for LimiterClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.get().expect("the limiter sets the clock before it uses a bucket")
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, LimiterClock, NoOpMiddleware<Instant>>;

/// All limits of one stream.
#[derive(Debug)]
pub struct Limiter {
    stream: Option<Bucket>,
    /// Permits taken from the stream's limit for events then refused by a policy's limit. The next
    /// events use them first: otherwise each refusal would use up the stream's limit.
    stream_credit: u32,
    /// Buckets by the policy's entry, created with the stream's first event of this policy.
    #[expect(clippy::box_collection, reason = "most streams have none: one word, not three")]
    policies: Option<Box<Vec<(usize, Bucket)>>>,
}

impl Limiter {
    /// A limiter for a stream with this `rate`; zero turns the stream's own limit off.
    pub fn new(rate: Rate, clock: &LimiterClock, now: Instant) -> Self {
        clock.set(now);
        Self { stream: bucket(rate, clock), stream_credit: 0, policies: None }
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
        let credit = self.stream_credit.min(count);
        if let Some(bucket) = &self.stream {
            take(bucket, count - credit, now)?;
        }
        self.stream_credit -= credit;
        let taken = self.take_of_policy(policy, count, clock, now);
        if taken.is_err() {
            self.stream_credit += count;
        }
        taken
    }

    fn take_of_policy(
        &mut self,
        policy: &Policy,
        count: u32,
        clock: &LimiterClock,
        now: Instant,
    ) -> Result<(), Instant> {
        let (Some(entry), Some(rate)) = (policy.entry, policy.rate) else { return Ok(()) };
        let policies = self.policies.get_or_insert_default();
        if let Some((_, bucket)) = policies.iter().find(|(other, _)| *other == entry) {
            return take(bucket, count, now);
        }
        let Some(bucket) = bucket(rate, clock) else { return Ok(()) };
        let taken = take(&bucket, count, now);
        policies.push((entry, bucket));
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
        Ok(Err(denied)) => Err(denied.earliest_possible().max(now)),
        // More than the burst is never available at once: the caller must request fewer.
        Err(_) => Err(now),
    }
}
