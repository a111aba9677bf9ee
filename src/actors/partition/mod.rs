//! The partition actor: the only writer of its topics' sequence and history, or, where the
//! log is in Redis, of this instance's part of it.
//!
//! It sends each manager one message at a time; what comes meanwhile gathers into the next.

mod answers;
mod listeners;
mod messages;
mod mirror;
mod relay;
mod state;
mod under_way;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Recipient, fut::wrap_future};

pub(crate) use answers::{Answers, PublishResult};
#[cfg(test)]
pub(crate) use messages::Panic;
pub(crate) use messages::{
    AskTopic, ChangeInterest, Deliver, DeliveriesTaken, Delivery, FanOut, FanOutEvent, FannedOut,
    InterestChange, Interruption, Place, PublishEvent, PublishEvents, Relayed, RelayedFanOut,
    RelayedPublish, SettleFanOut, TakeNews, TrimHistory,
};
pub(crate) use mirror::{MirrorSpec, MirrorState};
pub(crate) use relay::Relay;
pub(crate) use state::{PartitionSpec, PartitionState};
pub(crate) use under_way::UnderWay;

use super::{
    ManagerId, catch, now,
    turn::{Turn, TurnLoop},
};
use crate::{error::PublishError, metrics::Metrics};

/// Publishes that are handled before others get a turn: some hundred microseconds of work.
const MAX_PUBLISHES_A_TURN: usize = 256;

/// How often expired events are forgotten when nothing else asks for it.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// Where the log of a partition is.
#[derive(Debug, Clone)]
pub(crate) enum LogPlace {
    /// Here, in memory.
    Here,
    /// In Redis.
    Redis { interest_grace: Duration, relay: Arc<dyn Relay> },
}

/// What a partition decides, by where its log is.
enum State {
    Own(Box<PartitionState>),
    Mirror(Box<MirrorState>),
}

impl State {
    fn new(spec: PartitionSpec, place: &LogPlace) -> Self {
        match place {
            LogPlace::Here => Self::Own(Box::new(PartitionState::new(spec))),
            LogPlace::Redis { interest_grace, .. } => {
                let spec = MirrorSpec { partition: spec, interest_grace: *interest_grace };
                Self::Mirror(Box::new(MirrorState::new(spec)))
            }
        }
    }

    fn rebuild(self) -> Self {
        match self {
            Self::Own(state) => Self::Own(Box::new(state.rebuild())),
            Self::Mirror(state) => Self::Mirror(Box::new(state.rebuild())),
        }
    }

    fn has_outgoing(&self, manager: ManagerId) -> bool {
        match self {
            Self::Own(state) => state.has_outgoing(manager),
            Self::Mirror(state) => state.has_outgoing(manager),
        }
    }

    fn take_outgoing(&mut self, manager: ManagerId) -> Vec<Delivery> {
        match self {
            Self::Own(state) => state.take_outgoing(manager),
            Self::Mirror(state) => state.take_outgoing(manager),
        }
    }

    fn change_interest(&mut self, manager: ManagerId, changes: Vec<InterestChange>, now: Instant) {
        match self {
            Self::Own(state) => state.change_interest(manager, changes, now),
            Self::Mirror(state) => state.change_interest(manager, changes, now),
        }
    }

    fn remove_manager(&mut self, manager: ManagerId, now: Instant) {
        match self {
            Self::Own(state) => state.remove_manager(manager),
            Self::Mirror(state) => state.remove_manager(manager, now),
        }
    }

    fn trim(&mut self) {
        match self {
            Self::Own(state) => state.trim(),
            Self::Mirror(state) => state.trim(),
        }
    }

    fn expire(&mut self, now: Instant) {
        match self {
            Self::Own(state) => state.expire(now),
            Self::Mirror(state) => state.expire(now),
        }
    }

    fn topic_count(&self) -> usize {
        match self {
            Self::Own(state) => state.topic_count(),
            Self::Mirror(state) => state.topic_count(),
        }
    }
}

/// The shell of a partition.
pub(crate) struct Partition {
    number: u16,
    /// Empty only while it is being rebuilt.
    state: Option<State>,
    place: LogPlace,
    /// Publishes on their way to Redis, sent at the end of the turn.
    publishes: Vec<Relayed>,
    managers: HashMap<ManagerId, ManagerLink>,
    others: Arc<std::sync::OnceLock<Vec<Addr<Partition>>>>,
    publishes_in_turn: usize,
    next_expiry: Instant,
    metrics: Arc<Metrics>,
}

/// A topic manager as a partition sees it.
struct ManagerLink {
    deliveries: Recipient<Deliver>,
    /// Whether it has not taken yet what it was sent last.
    under_way: Arc<UnderWay>,
    /// Whether it has to be told that this partition was rebuilt.
    must_restart: bool,
}

impl Partition {
    /// `others` is filled once all partitions of the hub are started.
    pub fn new(
        spec: PartitionSpec,
        place: LogPlace,
        others: Arc<std::sync::OnceLock<Vec<Addr<Partition>>>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            number: spec.partition,
            state: Some(State::new(spec, &place)),
            place,
            publishes: Vec::new(),
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
    fn decide<R>(&mut self, work: impl FnOnce(&mut State) -> R) -> Option<R> {
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
            if let LogPlace::Redis { relay, .. } = &self.place {
                relay.reconnect(self.number);
            }
        }
        result
    }

    /// Sends on what is for Redis, and for other partitions.
    fn send_to_relay(&mut self) {
        let LogPlace::Redis { relay, .. } = &self.place else { return };
        if !self.publishes.is_empty() {
            relay.publish(self.number, std::mem::take(&mut self.publishes));
        }
        let Some(State::Mirror(mirror)) = &mut self.state else { return };
        let (generation, requests) = mirror.take_requests();
        if !requests.is_empty() {
            relay.ask(self.number, generation, requests);
        }
        self.metrics.set_refills(self.number, mirror.refill_count());
        for partition in mirror.take_trims() {
            self.ask_to_trim(partition);
        }
    }

    fn ask_to_trim(&self, partition: u16) {
        if let Some(other) = self.others.get().and_then(|all| all.get(usize::from(partition))) {
            // One a partition is under way at a time: the budget's flag is the bound.
            other.do_send(TrimHistory);
        }
    }

    /// Sends what is queued; what waits for a manager to take what it was sent before leaves
    /// when that says so.
    fn send_deliveries(&mut self) {
        let Some(state) = &mut self.state else { return };
        for (manager, link) in &mut self.managers {
            let has_news = link.must_restart || state.has_outgoing(*manager);
            if !has_news || !link.under_way.begin() {
                continue;
            }
            let mut deliveries = state.take_outgoing(*manager);
            if std::mem::take(&mut link.must_restart) {
                deliveries.insert(0, Delivery::Restarted);
            }
            let (partition, under_way) = (self.number, link.under_way.clone());
            // One not taken a manager: the bound is `under_way`. One that is gone is noticed
            // at the next look.
            link.deliveries.do_send(Deliver { partition, deliveries, under_way });
        }
    }

    /// Forgets managers whose threads have ended.
    fn drop_dead_managers(&mut self) {
        let dead = self.managers.iter().filter(|(_, link)| !link.deliveries.connected());
        for manager in dead.map(|(manager, _)| *manager).collect::<Vec<_>>() {
            self.managers.remove(&manager);
            self.decide(|state| state.remove_manager(manager, now()));
        }
    }

    fn publish(&mut self, publish: PublishEvent, place: Option<Place>, now: Instant) {
        let PublishEvent { topic, event, answer } = publish;
        let decided = self.decide(|state| match state {
            State::Own(state) => Ok(state.publish(&topic, &event, place, now)),
            State::Mirror(mirror) => {
                Err((mirror.receiver_count(&topic, event.event_type.as_deref()), place))
            }
        });
        let taken = match decided {
            Some(Ok(taken)) => taken,
            Some(Err((receivers, place))) => {
                let publish = RelayedPublish { topic, event, receivers, _place: place, answer };
                self.publishes.push(Relayed::Publish(publish));
                return;
            }
            None => Err(PublishError::Internal),
        };
        answer.send(taken.map(|taken| {
            if taken.is_new {
                self.metrics.published.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(partition) = taken.trim {
                self.ask_to_trim(partition);
            }
            taken.published
        }));
    }

    /// A mailbox is drained before anything else runs, on this thread too: so under a flood
    /// deliveries leave, and other partitions run, every so many publishes.
    fn bound_turn(&mut self, publishes: usize, ctx: &mut Context<Self>) {
        self.publishes_in_turn += publishes;
        if self.publishes_in_turn >= MAX_PUBLISHES_A_TURN {
            self.publishes_in_turn = 0;
            self.send_deliveries();
            self.send_to_relay();
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
            let topics = self.state.as_ref().map_or(0, State::topic_count);
            self.metrics.set_topics(self.number, topics);
        }
        self.send_deliveries();
        self.send_to_relay();
        Some(self.next_expiry)
    }
}

impl Handler<PublishEvents> for Partition {
    type Result = ();

    fn handle(&mut self, message: PublishEvents, ctx: &mut Self::Context) {
        self.bound_turn(message.events.len(), ctx);
        let now = now();
        for event in message.events {
            self.publish(event, message.place.clone(), now);
        }
    }
}

impl Handler<FanOutEvent> for Partition {
    type Result = ();

    fn handle(&mut self, message: FanOutEvent, ctx: &mut Self::Context) {
        self.bound_turn(message.topics.len(), ctx);
        let FanOutEvent { fan_out, topics, place, answer } = message;
        let decided = self.decide(|state| match state {
            State::Own(state) => Some(state.fan_out(&fan_out, &topics, place.as_ref(), now())),
            State::Mirror(_) => None,
        });
        let taken = match decided {
            Some(Some(taken)) => taken,
            Some(None) => {
                let publish = RelayedFanOut { fan_out, topics, _place: place, answer };
                return self.publishes.push(Relayed::FanOut(publish));
            }
            None => Err(PublishError::Internal),
        };
        // Whoever asked may have gone; then nobody wants to know.
        let _ = answer.send(taken.map(|(fanned_out, trims)| {
            self.metrics.published.fetch_add(fanned_out.new as u64, Ordering::Relaxed);
            trims.into_iter().for_each(|partition| self.ask_to_trim(partition));
            fanned_out
        }));
    }
}

impl Handler<TakeNews> for Partition {
    type Result = ();

    fn handle(&mut self, message: TakeNews, _: &mut Self::Context) {
        self.decide(|state| {
            if let State::Mirror(mirror) = state {
                message.0.into_iter().for_each(|news| mirror.on_news(news, now()));
            }
        });
        // The bridge waits for no more than this: what is asked now goes at once.
        self.send_deliveries();
        self.send_to_relay();
    }
}

impl Handler<AskTopic> for Partition {
    type Result = actix::MessageResult<AskTopic>;

    fn handle(&mut self, message: AskTopic, _: &mut Self::Context) -> Self::Result {
        let status = self.decide(|state| match state {
            State::Own(state) => state.topic_status(&message.0),
            State::Mirror(mirror) => (mirror.subscriber_count(&message.0), 0),
        });
        actix::MessageResult(status.unwrap_or_default())
    }
}

impl Handler<SettleFanOut> for Partition {
    type Result = actix::MessageResult<SettleFanOut>;

    fn handle(&mut self, message: SettleFanOut, _: &mut Self::Context) -> Self::Result {
        let SettleFanOut { name, is_pull } = message;
        let settled = self.decide(|state| match state {
            State::Own(state) => state.settle(&name, is_pull, now()),
            State::Mirror(_) => is_pull,
        });
        actix::MessageResult(settled.ok_or(PublishError::Internal))
    }
}

impl Handler<ChangeInterest> for Partition {
    type Result = ();

    fn handle(&mut self, message: ChangeInterest, _: &mut Self::Context) {
        let ChangeInterest { manager, deliveries, changes } = message;
        self.managers.entry(manager).or_insert(ManagerLink {
            deliveries,
            under_way: Arc::default(),
            must_restart: false,
        });
        self.decide(|state| state.change_interest(manager, changes, now()));
    }
}

impl Handler<DeliveriesTaken> for Partition {
    type Result = ();

    /// The end of the turn sends what waits.
    fn handle(&mut self, _: DeliveriesTaken, _: &mut Self::Context) {}
}

impl Handler<TrimHistory> for Partition {
    type Result = ();

    fn handle(&mut self, _: TrimHistory, _: &mut Self::Context) {
        self.decide(State::trim);
    }
}

#[cfg(test)]
impl Handler<Panic> for Partition {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        self.decide::<()>(|_| panic!("asked to"));
    }
}
