//! The cost of merging by collapse key.

use std::{sync::Arc, time::Instant};

use fanfare_core::{batch::Batch, policy::Flush, topic::Topic, topic_manager::Frame};

use super::support::{assert_linear, cost, event, open_stream, policy, resolved, take_all, worker};

/// The frame of a tick: `count` events with keys of their own, and one merged event.
fn frame(count: usize) -> Arc<Frame> {
    let (topic, policy) = (Topic::parse("a").unwrap(), policy(Flush::Tick));
    let mut batch = Batch::default();
    for sequence in 1..=count as u64 {
        batch.push(event(&topic, &policy, sequence, Some(&sequence.to_string())));
    }
    batch.push(event(&topic, &policy, count as u64 + 1, Some("1")));
    Frame::new(batch.take()).unwrap()
}

#[test]
fn a_stream_counts_merged_events_in_linear_time() {
    assert_linear(500, |count| {
        let frames = [frame(count), frame(1)];
        let (subscription, now) = (resolved(&["a"]), Instant::now());
        let mut worker = worker();
        let mut stream = open_stream(&subscription, &mut worker, now);
        cost(|| stream.on_frames(&frames, &mut worker, now).unwrap())
    });
}

#[test]
fn streams_alike_share_the_count_of_merged_events() {
    let count = 1000;
    // An event of the frame is already sent, so the shared bytes of the frame do not fit.
    let (first, now) = ([frame(1)], Instant::now());
    let frames = [frame(count)];
    let subscription = resolved(&["a"]);
    let mut worker = worker();
    let mut streams: Vec<_> =
        (0..3).map(|_| open_stream(&subscription, &mut worker, now)).collect();
    for stream in &mut streams {
        stream.on_frames(&first, &mut worker, now).unwrap();
        take_all(stream, &mut worker, now);
    }
    let mut texts = Vec::new();
    let costs: Vec<u64> = streams
        .iter_mut()
        .map(|stream| {
            let cost = cost(|| {
                stream.on_frames(&frames, &mut worker, now).unwrap();
                texts.push(take_all(stream, &mut worker, now));
            });
            cost.count_total
        })
        .collect();
    assert!(texts.iter().all(|text| *text == texts[0] && text.contains("id: ")), "{texts:?}");
    assert!(costs[0] > count as u64, "the first stream counts: {costs:?}");
    assert!(costs[1] < 50 && costs[2] < 50, "the others reuse its work: {costs:?}");
}

#[test]
fn merging_one_key_takes_linear_memory() {
    let (topic, policy) = (Topic::parse("a").unwrap(), policy(Flush::Tick));
    assert_linear(1000, |count| {
        let events: Vec<_> = (1..=count as u64)
            .map(|sequence| event(&topic, &policy, sequence, Some("key")))
            .collect();
        cost(|| {
            let mut batch = Batch::default();
            for event in events {
                batch.push(event);
            }
            assert_eq!(batch.take()[0].count(), count);
        })
    });
}
