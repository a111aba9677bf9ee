//! The memory of remembered ids, against the bytes counted in their budget.

use std::{sync::Arc, time::Duration, time::Instant};

use fanfare_core::{
    id_budget::IdBudget,
    idempotency::{FanOutWindow, FirstAnswer, IdempotencyWindow},
    ids::PublisherId,
    topic::Topic,
};

use super::support::cost;

const WINDOW: Duration = Duration::from_secs(300);

fn publisher(number: u32) -> PublisherId {
    PublisherId::of_address(number.to_be_bytes().into())
}

/// Fills the budget in turns of the publishers; returns the share of counted in allocated bytes.
fn share(publishers: u32, mut add: impl FnMut(&Arc<IdBudget>, u32, PublisherId) -> bool) -> f64 {
    let budget = Arc::new(IdBudget::new(8 << 20));
    let cost = cost(|| {
        let mut number = 0;
        while add(&budget, number, publisher(number % publishers)) {
            number += 1;
        }
    });
    assert!(budget.used_bytes() > 3 << 20, "{}", budget.used_bytes());
    budget.used_bytes() as f64 / cost.bytes_current as f64
}

#[test]
fn ids_of_any_length_are_counted() {
    let (topic, now) = (Topic::parse("a").unwrap(), Instant::now());
    let answer = FirstAnswer { sequence: 1, unix_ms: 9, receivers: 0 };
    for publishers in [1, 1000, u32::MAX] {
        let mut window = None;
        let share = share(publishers, |budget, number, publisher| {
            let new = || IdempotencyWindow::new(WINDOW, budget.clone());
            let window = window.get_or_insert_with(new);
            let may = window.check(publisher).is_ok();
            window.insert(&topic, &format!("{number:0256}"), publisher, answer, now);
            may
        });
        assert!((0.95..2.0).contains(&share), "{publishers} publishers: {share}");
    }
}

#[test]
fn followers_reached_are_counted() {
    let now = Instant::now();
    for followers in [1, 5000] {
        let mut window = None;
        let share = share(7, |budget, number, publisher| {
            let window = window.get_or_insert_with(|| FanOutWindow::new(WINDOW, budget.clone()));
            let id: Arc<str> = format!("author {}", number / followers).into();
            let topic = [Topic::parse(&format!("t:{number}")).unwrap()];
            let may = window.check(&id, publisher, &topic, now).is_ok();
            window.insert(&id, publisher, &topic[0], now);
            may
        });
        assert!((0.95..2.0).contains(&share), "{followers} followers: {share}");
    }
}
