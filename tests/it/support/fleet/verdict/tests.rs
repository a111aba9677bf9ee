//! The checks themselves: too lenient checks would let every test pass.

use std::time::Instant;

use serde_json::json;

use super::*;
use crate::support::{
    Event,
    fleet::{ledger::data, wish::Wish},
};

/// A log of five events of one topic.
fn log() -> Log {
    let log = Log::default();
    for sequence in 1..=5 {
        let number = log.begin(0);
        let answer = json!({ "eventId": "e.0:1", "partition": 7, "sequence": sequence });
        log.acknowledge(number, &answer);
    }
    log
}

/// The record of a stream of this topic: event numbers, and a `gap` for each reason between them.
fn seen(steps: &[Result<usize, &str>]) -> Vec<Arc<Mutex<Ledger>>> {
    let mut ledger = Ledger::new(Wish::of_stream(0));
    let event =
        |kind: &str, data: String| Event { event: kind.to_owned(), data, id: "an-id".to_owned() };
    ledger.on_event(event("connected", json!({ "resumed": false }).to_string()));
    for step in steps {
        ledger.on_event(match step {
            Ok(number) => event("message", data(*number, 0)),
            Err(reason) => event("gap", json!({ "reason": reason, "partitions": [7] }).to_string()),
        });
    }
    vec![Arc::new(Mutex::new(ledger))]
}

#[test]
fn each_flaw_is_found() {
    let nothing_lost = |steps: &[_]| losses(&log(), &seen(steps)).is_empty();
    assert!(nothing_lost(&[Ok(0), Ok(1), Ok(2), Ok(3), Ok(4)]));
    assert!(!nothing_lost(&[Ok(0), Ok(1), Ok(3), Ok(4)]), "one is missing");
    assert!(!nothing_lost(&[Ok(0), Ok(1), Ok(2), Ok(3)]), "the last is missing");
    assert!(!nothing_lost(&[Ok(0), Ok(1), Ok(2), Ok(2), Ok(3), Ok(4)]), "one is there twice");
    assert!(!nothing_lost(&[Ok(0), Ok(2), Ok(1), Ok(3), Ok(4)]), "two changed places");
    assert!(!nothing_lost(&[Ok(0), Ok(1), Ok(2), Ok(3), Ok(4), Ok(5)]), "nobody published it");
    let with_gap = [Ok(0), Ok(1), Err("epoch"), Ok(2), Ok(3), Ok(4)];
    assert!(!nothing_lost(&with_gap), "a gap");
}

#[test]
fn a_gap_excuses_what_came_before_it_and_nothing_else() {
    let told = |steps: &[_]| untold_losses(&log(), &seen(steps)).is_empty();
    assert!(told(&[Ok(0), Err("epoch"), Ok(3), Ok(4)]));
    assert!(told(&[Ok(0), Ok(1), Err("epoch"), Ok(1), Ok(2), Ok(3), Ok(4)]), "on both sides");
    assert!(!told(&[Ok(0), Ok(3), Ok(4)]), "without a gap");
    assert!(!told(&[Ok(0), Err("history"), Ok(3), Ok(4)]), "another gap");
    assert!(!told(&[Err("epoch"), Ok(0), Ok(0), Ok(1), Ok(2), Ok(3), Ok(4)]), "one is there twice");

    let log = log();
    let ledgers = seen(&[Ok(0), Err("epoch"), Ok(1), Ok(2), Ok(3), Ok(4)]);
    let begun_after = Instant::now();
    let number = log.begin(0);
    let answer = json!({ "eventId": "e.0:1", "partition": 7, "sequence": 6 });
    log.acknowledge(number, &answer);
    assert!(log.records()[number].began >= begun_after);
    let flaws = untold_losses(&log, &ledgers);
    assert_eq!(flaws.len(), 1, "events begun after the gap must be present: {flaws:?}");
}
