//! Events and policies for the unit tests of this crate.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    cursor::Epoch,
    event::{EventBody, SequencedEvent},
    policy::{Conflate, Flush, Policy},
    topic::Topic,
};

/// A policy with this conflation, and a history of 1,000 events and one hour.
pub fn policy(conflate: Conflate) -> Arc<Policy> {
    Arc::new(Policy {
        entry: None,
        flush: Flush::Tick,
        tick: Duration::from_millis(100),
        conflate,
        history_events: 1000,
        history_ttl: Duration::from_secs(3600),
        rate: None,
    })
}

/// An event of partition 0, published now.
pub fn sequenced(
    topic: &str,
    sequence: u64,
    key: Option<&str>,
    policy: &Arc<Policy>,
) -> Arc<SequencedEvent> {
    Arc::new(SequencedEvent {
        topic: Topic::parse(topic).unwrap(),
        partition: 0,
        epoch: Epoch::new(1),
        sequence,
        published_at: Instant::now(),
        unix_ms: 1000 + sequence,
        policy: policy.clone(),
        body: Arc::new(EventBody {
            event_type: None,
            key: key.map(Into::into),
            collapse: None,
            text: None,
            lines: format!("data: {sequence}\n").into(),
            data_at: 0,
            is_json: false,
            is_deletion: false,
            topic_count: 1,
        }),
        collapsed: None,
    })
}
