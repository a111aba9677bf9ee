//! The partition actor: the only writer of its topics' sequence and history.
//!
//! It sends each manager one message at a time; what comes meanwhile gathers into the next.

mod listeners;
mod messages;
mod state;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Recipient, fut::wrap_future};

#[cfg(test)]
pub(crate) use messages::Panic;
pub(crate) use messages::{
    ChangeInterest, Deliver, DeliveriesTaken, Delivery, InterestChange, Place, PublishEvent,
    TrimHistory,
};
pub(crate) use state::{PartitionSpec, PartitionState};

use super::{
    ManagerId, catch, now,
    turn::{Turn, TurnLoop},
};
use crate::{error::PublishError, hub::Published, metrics::Metrics};

/// Publishes that are handled before others get a turn: some hundred microseconds of work.
const MAX_PUBLISHES_A_TURN: usize = 256;

/// How often expired events are forgotten when nothing else asks for it.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// The shell of a partition.
pub(crate) struct Partition {
    number: u16,
    /// Empty only while it is being rebuilt.
    state: Option<PartitionState>,
    managers: HashMap<ManagerId, ManagerLink>,
    others: Arc<std::sync::OnceLock<Vec<Addr<Partition>>>>,
    publishes_in_turn: usize,
    next_expiry: Instant,
    metrics: Arc<Metrics>,
}

/// A topic manager as a partition sees it.
struct ManagerLink {
    deliveries: Recipient<Deliver>,
    /// Whether a message to it is not answered yet.
    is_awaited: bool,
    /// Whether it has to be told that this partition was rebuilt.
    must_restart: bool,
}

impl Partition {
    /// `others` is filled once all partitions of the hub are started.
    pub fn new(
        spec: PartitionSpec,
        others: Arc<std::sync::OnceLock<Vec<Addr<Partition>>>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            number: spec.partition,
            state: Some(PartitionState::new(spec)),
            managers: HashMap::new(),
            others,
            publishes_in_turn: 0,
            next_expiry: now(),
            metrics,
        }
    }

    /// The partition's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Lets the state decide; rebuilds it should it panic.
    fn decide<R>(&mut self, work: impl FnOnce(&mut PartitionState) -> R) -> Option<R> {
        let mut state = self.state.take()?;
        let result = catch("partition", || work(&mut state));
        if result.is_some() {
            self.state = Some(state);
        } else {
            self.metrics.actor_panics.fetch_add(1, Ordering::Relaxed);
            self.state = Some(state.rebuild());
            for link in self.managers.values_mut() {
                link.must_restart = true;
            }
        }
        result
    }

    fn send_deliveries(&mut self) {
        let Some(state) = &mut self.state else { return };
        for (manager, link) in &mut self.managers {
            if link.is_awaited || !(link.must_restart || state.has_outgoing(*manager)) {
                continue;
            }
            let mut deliveries = state.take_outgoing(*manager);
            if std::mem::take(&mut link.must_restart) {
                deliveries.insert(0, Delivery::Restarted);
            }
            link.is_awaited = true;
            // One unanswered a manager: the bound is this flag. One that is gone is noticed
            // at the next look.
            link.deliveries.do_send(Deliver { partition: self.number, deliveries });
        }
    }

    /// Forgets managers whose threads have ended.
    fn drop_dead_managers(&mut self) {
        let dead = self.managers.iter().filter(|(_, link)| !link.deliveries.connected());
        for manager in dead.map(|(manager, _)| *manager).collect::<Vec<_>>() {
            self.managers.remove(&manager);
            self.decide(|state| state.remove_manager(manager));
        }
    }

    /// A mailbox is drained before anything else runs, on this thread too: so under a flood
    /// deliveries leave, and other partitions run, every so many publishes.
    fn bound_turn(&mut self, ctx: &mut Context<Self>) {
        self.publishes_in_turn += 1;
        if self.publishes_in_turn >= MAX_PUBLISHES_A_TURN {
            self.publishes_in_turn = 0;
            self.send_deliveries();
            ctx.wait(wrap_future(tokio::task::yield_now()));
        }
    }
}

impl Actor for Partition {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        TurnLoop::spawn::<Self>(ctx);
    }
}

impl Turn for Partition {
    fn end_turn(&mut self, _: &mut Self::Context) -> Option<Instant> {
        let now = now();
        self.publishes_in_turn = 0;
        if self.next_expiry <= now {
            self.next_expiry = now + EXPIRY_INTERVAL;
            self.decide(|state| state.expire(now));
            self.drop_dead_managers();
            let topics = self.state.as_ref().map_or(0, PartitionState::topic_count);
            self.metrics.set_topics(self.number, topics);
        }
        self.send_deliveries();
        Some(self.next_expiry)
    }
}

impl Handler<PublishEvent> for Partition {
    type Result = Result<Published, PublishError>;

    fn handle(&mut self, message: PublishEvent, ctx: &mut Self::Context) -> Self::Result {
        self.bound_turn(ctx);
        let PublishEvent { topic, event, place } = message;
        let now = now();
        let taken = self
            .decide(|state| state.publish(&topic, &event, place, now))
            .unwrap_or(Err(PublishError::Internal))?;
        if taken.is_new {
            self.metrics.published.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(partition) = taken.trim
            && let Some(other) = self.others.get().and_then(|all| all.get(usize::from(partition)))
        {
            // One a partition is under way at a time: the budget's flag is the bound.
            other.do_send(TrimHistory);
        }
        Ok(taken.published)
    }
}

impl Handler<ChangeInterest> for Partition {
    type Result = ();

    fn handle(&mut self, message: ChangeInterest, _: &mut Self::Context) {
        let ChangeInterest { manager, deliveries, changes } = message;
        self.managers.entry(manager).or_insert(ManagerLink {
            deliveries,
            is_awaited: false,
            must_restart: false,
        });
        self.decide(|state| state.change_interest(manager, changes, now()));
    }
}

impl Handler<DeliveriesTaken> for Partition {
    type Result = ();

    fn handle(&mut self, message: DeliveriesTaken, _: &mut Self::Context) {
        if let Some(link) = self.managers.get_mut(&message.manager) {
            link.is_awaited = false;
        }
    }
}

impl Handler<TrimHistory> for Partition {
    type Result = ();

    fn handle(&mut self, _: TrimHistory, _: &mut Self::Context) {
        self.decide(PartitionState::trim);
    }
}

#[cfg(test)]
impl Handler<Panic> for Partition {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        self.decide::<()>(|_| panic!("asked to"));
    }
}
