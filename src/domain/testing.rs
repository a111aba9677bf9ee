//! Events and policies for the tests of this folder.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    event::{Encoded, SequencedEvent},
    policy::Policy,
    topic::Topic,
};
use crate::config::{Conflate, Flush};

/// A policy that conflates so, and keeps all.
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
        sequence,
        event_type: None,
        key: key.map(Into::into),
        published_at: Instant::now(),
        policy: policy.clone(),
        encoded: Encoded {
            bytes: format!("data: {sequence}\nid: {sequence}\n\n").into(),
            data_at: 0,
            id_at: 0,
            is_json: false,
        },
    })
}
