//! A stream's rate limits (governor): its own, and those of the topic policies that have
//! one. Time is told, not asked for.

use std::{cell::Cell, num::NonZeroU32, rc::Rc, time::Instant};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use smallvec::SmallVec;

use crate::{config::Rate, domain::policy::Policy};

/// The clock that a limiter is told by its caller.
#[derive(Debug, Clone)]
struct ToldClock(Rc<Cell<Instant>>);

impl Clock for ToldClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.get()
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, ToldClock, NoOpMiddleware<Instant>>;

/// All limits of one stream.
#[derive(Debug)]
pub(crate) struct Limiter {
    clock: ToldClock,
    stream: Option<Bucket>,
    /// Taken of the stream's limit for events that a policy's then refused.
    stream_credit: u32,
    /// By the policy's entry, made when the stream gets its first event under it.
    policies: SmallVec<[(usize, Bucket); 0]>,
}

impl Limiter {
    /// A limiter for a stream that may get `rate`; none if that is zero.
    pub fn new(rate: Rate, now: Instant) -> Self {
        let clock = ToldClock(Rc::new(Cell::new(now)));
        Self { stream: bucket(rate, &clock), stream_credit: 0, policies: SmallVec::new(), clock }
    }

    /// Takes `count` events of one policy now, all or none.
    ///
    /// # Errors
    /// When one of them may leave at the earliest.
    pub fn take(&mut self, policy: &Policy, count: u32, now: Instant) -> Result<(), Instant> {
        self.clock.0.set(now);
        let credit = self.stream_credit.min(count);
        if let Some(bucket) = &self.stream {
            take(bucket, count - credit, now)?;
        }
        self.stream_credit -= credit;
        let taken = self.take_of_policy(policy, count, now);
        if taken.is_err() {
            self.stream_credit += count;
        }
        taken
    }

    fn take_of_policy(&mut self, policy: &Policy, count: u32, now: Instant) -> Result<(), Instant> {
        let (Some(entry), Some(rate)) = (policy.entry, policy.rate) else { return Ok(()) };
        if let Some((_, bucket)) = self.policies.iter().find(|(other, _)| *other == entry) {
            return take(bucket, count, now);
        }
        let Some(bucket) = bucket(rate, &self.clock) else { return Ok(()) };
        let taken = take(&bucket, count, now);
        self.policies.push((entry, bucket));
        taken
    }
}

fn bucket(rate: Rate, clock: &ToldClock) -> Option<Bucket> {
    let per_second = NonZeroU32::new(rate.events_per_second)?;
    let burst = NonZeroU32::new(rate.burst)?;
    let quota = Quota::per_second(per_second).allow_burst(burst);
    Some(RateLimiter::direct_with_clock(quota, clock.clone()))
}

fn take(bucket: &Bucket, count: u32, now: Instant) -> Result<(), Instant> {
    let Some(count) = NonZeroU32::new(count) else { return Ok(()) };
    match bucket.check_n(count) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(denied)) => Err(denied.earliest_possible().max(now)),
        // More than the burst: never at once, so the caller must ask for fewer.
        Err(_) => Err(now),
    }
}
