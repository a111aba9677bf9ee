//! A client of one topic: the numbers it has received, and its position.

use std::collections::BTreeMap;

use fanfare_core::{event::SequencedEvent, partition::Delivery, partition_log::Replay};

#[derive(Default)]
pub struct Client {
    pub topic: usize,
    pub position: u64,
    /// The sequences and data of all events received.
    pub received: Vec<(u64, String)>,
    /// Current values by key.
    pub values: BTreeMap<String, String>,
    pub is_attached: bool,
    /// Without a stream, also across restarts.
    pub is_away: bool,
    /// The positions at each gap.
    pub gaps: Vec<u64>,
    pub rest: Option<fanfare_core::interest::Rest>,
}

impl Client {
    pub fn on_delivery(&mut self, delivery: Delivery<()>) {
        match delivery {
            Delivery::Event { event, .. } => self.on_event(&event),
            Delivery::Attached { replay, .. } => self.on_replay(replay),
            Delivery::Interrupted(_) | Delivery::Relinked | Delivery::Restarted => {}
        }
    }

    fn on_replay(&mut self, replay: Replay) {
        if replay.missed.is_some() {
            self.gaps.push(self.position);
        }
        replay.events.iter().for_each(|event| self.on_event(event));
        self.rest = replay.next;
        if self.rest.is_none() {
            self.is_attached = true;
            self.position = self.position.max(replay.head);
        }
    }

    fn on_event(&mut self, event: &SequencedEvent) {
        if event.sequence <= self.position {
            return;
        }
        self.position = event.sequence;
        let data = String::from_utf8(event.body.lines[event.body.data_at..].to_vec()).unwrap();
        if let Some(key) = event.key() {
            match event.body.is_deletion {
                true => drop(self.values.remove(key)),
                false => drop(self.values.insert(key.to_owned(), data.clone())),
            }
        }
        self.received.push((event.sequence, data));
    }
}
