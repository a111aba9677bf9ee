//! Clients changing the list of their open stream, and the outcomes of the changes.

use fanfare_core::{
    ids::StreamId,
    subscription::Change,
    topic::Pattern,
    topic_manager::{ChangeOutcome, Ticket},
};
use rand::RngExt;

use super::{PATTERNS, TOPICS, World, any};
use crate::expectation::{AskedChange, Expectation};

/// The caller waiting for a change.
#[derive(Debug, Clone, Copy)]
pub(super) enum IssuedChange {
    /// A client, for its stream.
    Client { client: usize, stream: StreamId },
    /// A call changing a user's feed.
    Call,
}

/// An unanswered ticket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Issued {
    pub manager: usize,
    pub waiting: IssuedChange,
}

fn parsed(names: &[&str]) -> Vec<Pattern> {
    names.iter().map(|name| Pattern::parse(name).unwrap()).collect()
}

impl World {
    /// A client requests a change of its open stream.
    pub(super) fn ask_change(&mut self, client: usize) {
        let Some(session) = &self.sessions[client] else { return };
        let Expectation::List { list, owed, .. } = &self.clients[client].expectation else {
            return;
        };
        let owed: Vec<&'static str> = owed.iter().copied().collect();
        let known: Vec<&'static str> = list.iter().copied().collect();
        let mut some = |pool: &[&'static str], max: usize| -> Vec<&'static str> {
            let count = self.rng.random_range(0..=max.min(pool.len()));
            (0..count).map(|_| any(&mut self.rng, pool)).collect()
        };
        let mut add = some(&TOPICS, 2);
        add.extend(some(&PATTERNS, 1));
        let mut remove = some(&known, 2);
        remove.extend(some(&TOPICS, 1));
        if !owed.is_empty() {
            (add, remove) = (owed, Vec::new());
        }
        let manager = session.manager;
        self.totals.changes_between += usize::from(session.is_adding);
        let state = &mut self.managers[manager].state;
        let Some(reference) = state.find_stream(session.stream, session.secret) else { return };
        let stream = session.stream;
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let change = Change { add: parsed(&add), remove: parsed(&remove), ..Change::default() };
        if let Expectation::List { asked, .. } = &mut self.clients[client].expectation {
            self.totals.queued_changes += usize::from(!asked.is_empty());
            asked.push(AskedChange { ticket, add, remove });
        }
        self.revise(client);
        let waiting = IssuedChange::Client { client, stream };
        self.tickets.insert(ticket, Issued { manager, waiting });
        self.managers[manager].state.change(ticket, reference, change, self.now);
        // A refusal counts before the next change: that one begins with the list as it is.
        self.take_finished(manager);
    }

    /// A client goes away and comes back with its first list, or adds its other topics again, or
    /// changes its list or goes away while these are replayed.
    pub(super) fn add_again(&mut self, client: usize) {
        let Expectation::List { list, first, owed, .. } = &self.clients[client].expectation else {
            return;
        };
        let (has_more, owes) = (list.len() > first.len(), !owed.is_empty());
        match &self.sessions[client] {
            Some(session) if session.is_adding => match self.rng.random_bool(0.3) {
                true => self.cut_unread(client),
                false => self.ask_change(client),
            },
            Some(_) if owes => self.ask_owed(client),
            Some(_) if has_more && self.rng.random_bool(0.3) => self.cut(client),
            Some(_) => {}
            None => self.open(client),
        }
    }

    /// A client back with its first list adds its other topics again.
    pub(super) fn ask_owed(&mut self, client: usize) {
        if let Expectation::List { owed, asked, .. } = &self.clients[client].expectation
            && !owed.is_empty()
            && asked.is_empty()
        {
            self.ask_change(client);
        }
    }

    /// Takes the outcomes of a manager's changes.
    pub(super) fn take_finished(&mut self, manager: usize) {
        for (ticket, outcome) in self.managers[manager].state.take_finished() {
            let issued = self.tickets.remove(&ticket).expect("a ticket is answered once");
            match issued.waiting {
                IssuedChange::Client { client, stream } => {
                    self.on_client_changed(client, stream, ticket, &outcome);
                }
                IssuedChange::Call => self.on_call_answered(ticket, &outcome),
            }
        }
    }

    /// A manager has panicked: drops its tickets.
    pub(super) fn forget_tickets(&mut self, manager: usize) {
        let gone = self.tickets.extract_if(.., |_, issued| issued.manager == manager);
        for (ticket, issued) in gone.collect::<Vec<_>>() {
            match issued.waiting {
                IssuedChange::Client { client, .. } => {
                    self.clients[client].expectation.forget(ticket)
                }
                IssuedChange::Call => self.on_call_answered(ticket, &ChangeOutcome::Ended),
            }
        }
    }

    fn on_client_changed(
        &mut self,
        client: usize,
        stream: StreamId,
        ticket: Ticket,
        outcome: &ChangeOutcome,
    ) {
        let session = self.sessions[client].as_ref();
        let is_stale = session.is_some_and(|session| session.stream != stream);
        let expectation = &mut self.clients[client].expectation;
        match outcome {
            ChangeOutcome::Changed(names) if !is_stale => {
                // None if the client has reconnected since the request.
                if let Some(list) = expectation.acknowledge(ticket) {
                    assert!(list.iter().copied().eq(names.iter().map(String::as_str)));
                    self.totals.changed += 1;
                }
            }
            ChangeOutcome::TooMany(_)
            | ChangeOutcome::Forbidden(_)
            | ChangeOutcome::Busy
            | ChangeOutcome::TooFast => {
                expectation.forget(ticket);
                self.totals.refused_changes += 1;
            }
            ChangeOutcome::Changed(_) | ChangeOutcome::Ended => expectation.forget(ticket),
        }
    }
}
