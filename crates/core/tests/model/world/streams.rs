//! Streams: clients connect and read, connections handle their mail, and all of it breaks.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use fanfare_core::{
    access::Grant,
    connection::{ConnectionState, Drained},
    event::SequencedEvent,
    interest::Start,
    sse::ShutdownReason,
    subscription::{Format, ResolvedSubscription, StreamOptions, Subscription},
    topic_manager::{ChangeStep, ManagerState},
};
use rand::RngExt;

use super::{
    CLIENTS, MANAGERS, PARTITIONS, Scope, TOPICS, World, any,
    nodes::{ConnectionMail, Mailbox, Session},
};
use crate::expectation::{Expectation, covers};

impl World {
    pub(super) fn run_connection(&mut self, client: usize) {
        let Some(session) = &mut self.sessions[client] else { return };
        while let Some(mail) = session.mailbox.0.borrow_mut().pop_front() {
            if !session.is_actor_alive {
                continue;
            }
            let events: Vec<&Arc<SequencedEvent>> = match &mail {
                ConnectionMail::Open(opening) => {
                    opening.replays.iter().flat_map(|(_, replay)| &replay.events).collect()
                }
                ConnectionMail::Page(page)
                | ConnectionMail::Change(_, ChangeStep::Joined(page)) => {
                    page.replay.events.iter().collect()
                }
                ConnectionMail::Frames(frames) | ConnectionMail::End(_, frames) => {
                    frames.iter().flat_map(|frame| &frame.events).collect()
                }
                ConnectionMail::Beat | ConnectionMail::Change(..) => Vec::new(),
            };
            for event in events.into_iter().filter(|event| event.body.collapse.is_some()) {
                session.handed.extend(self.reference.all_in(event));
            }
            let result = match mail {
                ConnectionMail::Open(opening) => {
                    session.state.on_opened(opening, "client", &self.worker, self.now);
                    Ok(())
                }
                ConnectionMail::Page(page) => {
                    session.state.on_page(page);
                    Ok(())
                }
                ConnectionMail::Frames(frames) => {
                    // Half of the transports write directly.
                    let is_direct = client.is_multiple_of(2) && !self.clients[client].is_stalled;
                    let pass = || session.state.pass(&frames, &mut self.worker, self.now);
                    if let Some(piece) = is_direct.then(pass).flatten() {
                        self.totals.passed += 1;
                        session.wire.extend(&piece.bytes);
                        Ok(())
                    } else {
                        session.state.on_frames(&frames, &mut self.worker, self.now)
                    }
                }
                ConnectionMail::Change(wanted, step) => {
                    session.state.on_change(wanted, step, &self.worker);
                    Ok(())
                }
                ConnectionMail::Beat => session.state.on_heartbeat(self.now),
                ConnectionMail::End(reason, frames) => {
                    self.totals.drained += frames.len();
                    let taken = session.state.on_frames(&frames, &mut self.worker, self.now);
                    taken.and(Err(reason))
                }
            };
            if let Err(reason) = result {
                session.state.end(reason, None);
                session.is_actor_alive = false;
            }
        }
        if !session.is_actor_alive {
            let (stream, manager) = (session.stream, session.manager);
            self.managers[manager].state.close(stream);
        }
    }

    /// The transport takes all available bytes, and the client reads some of them.
    pub(super) fn transport(&mut self, client: usize) {
        let Some(session) = &mut self.sessions[client] else { return };
        let reader = &mut self.clients[client];
        if reader.is_stalled {
            return;
        }
        session.write(&mut self.worker, self.now);
        if let Some(Drained { stream, partitions }) = session.state.take_drained() {
            self.totals.pages += 1;
            self.managers[session.manager].state.continue_replay(stream, &partitions);
        }
        let count = self.rng.random_range(0..=session.wire.len());
        let count = if self.rng.random_bool(0.5) { session.wire.len() } else { count };
        let bytes: Vec<u8> = session.wire.drain(..count).collect();
        if let Some(redis) = self.redis.as_ref().filter(|_| !bytes.is_empty()) {
            reader.evicted = Some(self.reference.evicted(self.now).clone());
            reader.present_era = redis.era;
        }
        reader.read(&bytes);
        let is_over = session.is_finished && session.wire.is_empty();
        self.note_told(client);
        if is_over {
            self.cut(client);
        }
    }

    /// The connection breaks with its latest bytes unread.
    pub(super) fn cut_unread(&mut self, client: usize) {
        self.run_connection(client);
        if let Some(session) = &mut self.sessions[client] {
            session.write(&mut self.worker, self.now);
        }
        self.cut(client);
    }

    /// A client connects. A feed opens in several steps.
    pub(super) fn open(&mut self, client: usize) {
        if self.sessions[client].is_some() {
            return;
        }
        match &mut self.clients[client].expectation {
            Expectation::Feed { user } => {
                let user = *user;
                self.open_feed(client, user);
            }
            Expectation::List { list, .. } => {
                if list.is_empty() {
                    list.insert(any(&mut self.rng, &TOPICS));
                }
                let often = if self.scope == Scope::Additions { 0.9 } else { 0.3 };
                let is_back_to_first = self.rng.random_bool(often);
                if is_back_to_first {
                    let id = self.clients[client].last_id.clone();
                    let owed = self.clients[client].expectation.return_to_first(&id);
                    self.totals.owed += owed;
                }
                let Expectation::List { list, owed, .. } = &self.clients[client].expectation else {
                    unreachable!("a list stays one");
                };
                let (list, owed) = (list.clone(), owed.clone());
                let manager = self.rng.random_range(0..MANAGERS);
                let subscription = Subscription::new().topics(list.iter().copied());
                let mut options = self.options(client);
                if self.clients[client].last_id.is_empty() {
                    match self.rng.random_range(0..4) {
                        0 => options.last_event_id = Some("earliest".to_owned()),
                        1 => options.snapshot = Some(true),
                        _ => {}
                    }
                }
                let subscription = subscription.or_options(options);
                let secret = self.rng.random();
                let wanted = subscription
                    .resolve(self.settings.limits(), secret, &Grant::everything())
                    .unwrap();
                let begins_with_history = matches!(wanted.start, Start::Earliest | Start::Snapshot);
                self.open_stream(client, manager, wanted);
                self.promise_at_open(client, begins_with_history, |record| {
                    covers(&list, record.topic) || owed.contains(record.topic)
                });
            }
        }
    }

    pub(super) fn open_stream(
        &mut self,
        client: usize,
        manager: usize,
        subscription: ResolvedSubscription,
    ) {
        let subscription = Arc::new(subscription);
        let stream = self.next_stream;
        self.next_stream += 1;
        self.streams.insert(stream, client);
        let mailbox = Mailbox::default();
        self.managers[manager].state.open(stream, mailbox.clone(), &subscription, 0.5, self.now);
        let spec = Arc::new(self.settings.connection.clone());
        let reader = &mut self.clients[client];
        reader.reconnect();
        reader.expectation.forget_all();
        self.totals.resumed += usize::from(!reader.last_id.is_empty());
        self.sessions[client] = Some(Session {
            stream,
            manager,
            mailbox,
            secret: subscription.secret,
            begins_with: subscription.start.clone(),
            begun: HashSet::new(),
            state: ConnectionState::new(
                spec,
                Duration::from_secs(1),
                subscription,
                &self.worker,
                self.now,
            ),
            is_actor_alive: true,
            is_finished: false,
            wire: VecDeque::new(),
            opened_at: (0..PARTITIONS).map(|number| self.reference.last_in(number)).collect(),
            arrived: HashSet::new(),
            is_adding: false,
            handed: BTreeSet::new(),
        });
    }

    /// The options of a client's next stream.
    pub(super) fn options(&mut self, client: usize) -> StreamOptions {
        let client = &self.clients[client];
        let types = client.types.as_ref();
        StreamOptions {
            types: types.map(|types| types.iter().map(|one| (*one).to_owned()).collect()),
            format: self.rng.random_bool(0.2).then_some(Format::JsonBatch),
            last_event_id: Some(client.last_id.clone()),
            snapshot: None,
        }
    }

    /// The connection breaks at any byte.
    pub(super) fn cut(&mut self, client: usize) {
        let Some(mut session) = self.sessions[client].take() else { return };
        let count = self.rng.random_range(0..=session.wire.len());
        let bytes: Vec<u8> = session.wire.drain(..count).collect();
        if let Some(redis) = self.redis.as_ref().filter(|_| !bytes.is_empty()) {
            self.clients[client].evicted = Some(self.reference.evicted(self.now).clone());
            self.clients[client].present_era = redis.era;
        }
        self.clients[client].read(&bytes);
        self.note_told(client);
        self.note_uncounted(client, &session.handed);
        self.totals.refused_mail += *session.mailbox.1.borrow();
        self.totals.cuts_between += usize::from(session.is_adding);
        self.managers[session.manager].state.close(session.stream);
    }

    /// A partition or a manager panics or drains and is rebuilt, or a connection's actor dies.
    pub(super) fn panic(&mut self) {
        match self.rng.random_range(0..3) {
            0 => {
                let partition = self.rng.random_range(0..usize::from(PARTITIONS));
                let instance = self.rng.random_range(0..self.instances.len());
                let node = &mut self.instances[instance][partition];
                node.rebuild();
                if let Some(redis) = &mut self.redis {
                    redis.partitions[partition].disconnect(instance);
                }
            }
            1 => {
                let manager = self.rng.random_range(0..MANAGERS);
                let node = &mut self.managers[manager];
                // A panic, or a drain: it sends all pending events first.
                match self.rng.random_bool(0.5) {
                    true => node.state.end_all(ShutdownReason::Drain),
                    false => node.state.drain(|| Duration::from_secs(1), self.now),
                }
                node.state = ManagerState::new(self.manager_spec.clone());
                node.state.reset_interest();
                self.forget_tickets(manager);
            }
            _ => {
                let client = self.rng.random_range(0..CLIENTS);
                if let Some(session) = &mut self.sessions[client] {
                    session.state.end(ShutdownReason::Drain, None);
                    session.is_actor_alive = false;
                }
            }
        }
    }
}
