//! The cost of patterns: their memory over all partitions, and changes of streams with many.

use std::{sync::Arc, time::Instant};

use fanfare_core::{
    partition::{Delivery, PartitionState},
    partition_log::Replay,
    subscription::{Change, ResolvedSubscription},
    topic::Pattern,
    topic_manager::ManagerState,
};

use super::{
    ahead::{Collected, manager_of},
    support::{cost, memory_partition, resolved},
};

const PARTITIONS: u16 = 16;

/// Opens a stream, and attaches it in all partitions.
fn open(
    manager: &mut ManagerState<Collected>,
    partitions: &mut [PartitionState<()>],
    subscription: &Arc<ResolvedSubscription>,
    now: Instant,
) {
    manager.open(1, Collected::default(), subscription, 0.0, now);
    for (number, partition) in (0..).zip(partitions) {
        partition.change_interest(1, manager.take_changes(number), now);
        while partition.continue_changes(now) {}
        for delivery in partition.routing().take_outgoing(1) {
            manager.on_delivery(number, delivery, now);
        }
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("tenant:{number}:room:*")).collect()
}

fn subscription(names: &[String]) -> Arc<ResolvedSubscription> {
    resolved(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// One test: the index is common to the process, and its spare room hides memory.
#[test]
fn many_patterns_cost_their_own_bytes() {
    all_partitions_share_one_index_of_a_streams_patterns();
    a_change_of_a_stream_with_many_patterns_costs_the_change();
}

fn all_partitions_share_one_index_of_a_streams_patterns() {
    let now = Instant::now();
    let names = names(10_000);
    let mut manager = manager_of(PARTITIONS, now);
    let mut partitions: Vec<_> = (0..PARTITIONS).map(memory_partition).collect();
    let cost = cost(|| open(&mut manager, &mut partitions, &subscription(&names), now));
    // The text, its entries in the lists of the stream and of the set, and the index.
    assert!(cost.bytes_current < 10_000 * 200, "{cost:?}");
    assert!(cost.bytes_max < 10_000 * 400, "{cost:?}");
}

fn a_change_of_a_stream_with_many_patterns_costs_the_change() {
    let now = Instant::now();
    let change_of = |count: usize, add: &str, remove: &str| {
        let mut manager = manager_of(1, now);
        let mut partitions = vec![memory_partition(0)];
        open(&mut manager, &mut partitions, &subscription(&names(count)), now);
        let pattern = |name: &str| Pattern::parse(name).into_iter().collect();
        let change = Change { add: pattern(add), remove: pattern(remove), ..Change::default() };
        let reference = manager.find_stream(1, 1).unwrap();
        cost(|| {
            manager.change(1, reference, change, now);
            let replay = Replay {
                epoch: fanfare_core::cursor::Epoch::new(1),
                start: 0,
                head: 0,
                events: Vec::new(),
                missed: None,
                next: None,
                mark: None,
            };
            let stream = (1 << 63) | 1;
            manager.on_delivery::<()>(0, Delivery::Attached { stream, replay }, now);
        })
    };
    for added in ["a:topic", "another:*"] {
        let [few, many] = [10, 9_900].map(|count| change_of(count, added, ""));
        // The answer has all names: one allocation each.
        assert!(many.count_total - few.count_total < 9_900 + 100, "{few:?} {many:?}");
        // Beside the names, some lists of pointers.
        assert!(many.bytes_total < 9_900 * 120, "{many:?}");
    }
}
