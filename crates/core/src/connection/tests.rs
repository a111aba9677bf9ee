//! Streams over several partitions while a new epoch begins: the partitions begin it one after
//! another.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    access::Grant,
    cursor::{Cursor, ReplayKind},
    interest::{Begun, Rest, Told},
    partition::Interruption,
    partition_log::{Missed, MissedReason, Replay},
    policy::Conflate,
    subscription::{StreamLimits, StreamOptions, Subscription},
    testing,
    topic_manager::{ChangeStep, Frames, Opening, Page},
    wall_clock::WallClock,
};

/// A stream, and the end of its client.
struct Stream {
    state: ConnectionState,
    worker: WorkerContext,
    now: Instant,
    /// The client's last id, after each piece.
    ids: Vec<Cursor>,
    text: String,
}

impl Stream {
    /// A stream resuming with this cursor, opened with these replays.
    fn open(cursor: &str, replays: Vec<(u16, Replay)>) -> Self {
        let now = Instant::now();
        let clock = Arc::new(WallClock::new(now, Duration::from_secs(1000)));
        let worker = WorkerContext::new(clock);
        let last_event_id = (!cursor.is_empty()).then(|| cursor.to_owned());
        let options = StreamOptions { last_event_id, ..StreamOptions::default() };
        let subscription = Subscription::new().topics(["topic"]).or_options(options);
        let limits = StreamLimits { max_topics: 10, max_patterns: 10, max_types: 10 };
        let subscription = Arc::new(subscription.resolve(limits, 1, &Grant::everything()).unwrap());
        let spec = Arc::new(ConnectionSpec {
            rate: Rate { events_per_second: 0, burst: 1 },
            max_outbox_bytes: 1 << 20,
            slow_consumer: SlowConsumer::Disconnect,
            write_timeout: Duration::from_secs(60),
        });
        let retry = Duration::from_secs(1);
        let mut state = ConnectionState::new(spec, retry, subscription, &worker, now);
        state.on_opened(Opening { stream: 1, replays, at: now }, "client", &worker, now);
        Self { state, worker, now, ids: Vec::new(), text: String::new() }
    }

    fn change(&mut self, step: ChangeStep) {
        let subscription = self.state.subscription.clone();
        self.state.on_change(subscription, step, &self.worker);
    }

    fn join(&mut self, partition: u16, replay: Replay) {
        self.change(ChangeStep::Joined(Page { stream: 1, partition, replay }));
    }

    fn interrupt(&mut self, partition: u16, reason: Option<MissedReason>, beginning: (u64, u64)) {
        let beginning = Some((Epoch::new(beginning.0), beginning.1));
        let (topics, repeats) = (Vec::new(), false);
        let interruption = Interruption { partition, reason, topics, beginning, repeats };
        let frames = Frames::from_iter([Frame::interruption(Arc::new(interruption))]);
        self.state.on_frames(&frames, &mut self.worker, self.now).unwrap();
    }

    fn deliver(&mut self, events: Vec<Arc<SequencedEvent>>) {
        let frames: Frames = Frame::new(events).into_iter().collect();
        self.state.on_frames(&frames, &mut self.worker, self.now).unwrap();
    }

    /// The client takes everything.
    fn take_all(&mut self) {
        while let Next::Write(piece) = self.state.next(&mut self.worker, self.now) {
            let text = std::str::from_utf8(&piece.bytes).unwrap();
            let id = text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back();
            self.ids.extend(id.map(|id| id.parse::<Cursor>().unwrap()));
            self.text += text;
        }
    }

    fn last_id(&self) -> &Cursor {
        self.ids.last().unwrap()
    }
}

/// A replay of one page without events.
fn replay(epoch: u64, start: u64, head: u64) -> Replay {
    let (events, missed, next, mark) = (Vec::new(), None, None, None);
    Replay { epoch: Epoch::new(epoch), start, head, events, missed, next, mark }
}

fn missed_epoch() -> Option<Missed> {
    Some(Missed { reason: MissedReason::Epoch, topics: Vec::new() })
}

fn rest(epoch: u64, sequence: u64) -> Rest {
    let (epoch, told) = (Epoch::new(epoch), Told::Through(0));
    Rest { begun: Begun::After, epoch, sequence, head: 20, since: 0, told }
}

fn cursor(epoch: u64, positions: &[(u16, u64)]) -> String {
    let positions = positions.iter().copied().collect();
    encode::cursor_text(Epoch::new(epoch), 1000, &positions, &ReplayMarks::default())
}

/// Otherwise a client resuming in the new epoch would miss its events up to the old head.
#[test]
fn a_snapshot_of_an_old_epoch_leaves_no_mark_in_the_new_one() {
    let mark = Some((ReplayKind::Snapshot, 12));
    let old = Replay { mark, ..replay(1, 0, 12) };
    // Marks stay until all partitions have sent their last page.
    let paging = Replay { next: Some(rest(2, 3)), ..replay(2, 3, 3) };
    let mut stream = Stream::open("", vec![(0, paging), (1, old)]);
    stream.take_all();
    assert_eq!(stream.last_id().positions.get(1), Some(IN_ANOTHER_EPOCH));
    stream.interrupt(1, Some(MissedReason::Epoch), (2, 0));
    stream.take_all();
    assert_eq!(stream.last_id().positions.get(1), Some(0));
    assert_eq!(stream.last_id().marks.get(1), None);
}

/// Otherwise a client cut between another id with the position and the gap would never get the gap.
#[test]
fn the_gap_of_an_added_partition_comes_before_its_position() {
    let old = cursor(1, &[(0, 5), (1, 9)]);
    let mut stream = Stream::open(&old, vec![(0, replay(1, 5, 5))]);
    let added = Replay { missed: missed_epoch(), ..replay(1, 4, 8) };
    stream.join(1, added);
    stream.change(ChangeStep::Finished { at: stream.now });
    stream.take_all();
    let gap = stream.text.find("event: gap").unwrap();
    let before = stream.text[..gap].lines().filter_map(|line| line.strip_prefix("id: "));
    let before = before.map(|id| id.parse::<Cursor>().unwrap().positions.get(1));
    assert!(before.into_iter().all(|position| position == Some(9)));
    assert_eq!(stream.last_id().positions.get(1), Some(4));
}

/// Otherwise the partition would stay behind, and every resume would repeat its history.
#[test]
fn an_epoch_beginning_between_two_pages_comes_with_the_next_page() {
    let renamed = || replay(2, 7, 9);
    let emptied = || Replay { missed: missed_epoch(), ..replay(2, 0, 2) };
    let event = || testing::sequenced("topic", 6, None, &testing::policy(Conflate::None));
    let first = || Replay { next: Some(rest(1, 7)), ..replay(1, 5, 7) };
    for (second, expected) in [(renamed(), 7), (emptied(), 0)] {
        let opening = vec![(0, first()), (1, replay(1, 3, 3))];
        let mut stream = Stream::open(&cursor(1, &[(0, 5), (1, 3)]), opening);
        stream.take_all();
        stream.interrupt(1, None, (2, 3));
        stream.take_all();
        stream.state.on_page(Page { stream: 1, partition: 0, replay: second });
        stream.take_all();
        stream.change(ChangeStep::Finished { at: stream.now });
        stream.take_all();
        let last = stream.last_id();
        assert_eq!((last.epoch, last.positions.get(1)), (Epoch::new(2), Some(3)));
        assert!(last.positions.get(0) >= Some(expected), "{last:?}");
        assert_ne!(last.positions.get(0), Some(IN_ANOTHER_EPOCH));
    }
    for (second, expected) in [(renamed(), 7), (emptied(), 0)] {
        let old = cursor(1, &[(0, 5), (1, 3)]);
        let mut stream = Stream::open(&old, vec![(1, replay(1, 3, 3))]);
        stream.join(0, Replay { events: vec![event()], ..first() });
        stream.take_all();
        stream.interrupt(1, None, (2, 3));
        stream.take_all();
        stream.state.on_page(Page { stream: 1, partition: 0, replay: second });
        stream.take_all();
        stream.change(ChangeStep::Finished { at: stream.now });
        stream.take_all();
        let last = stream.last_id();
        assert_eq!((last.epoch, last.positions.get(1)), (Epoch::new(2), Some(3)));
        assert!(last.positions.get(0) >= Some(expected), "{last:?}");
        assert_ne!(last.positions.get(0), Some(IN_ANOTHER_EPOCH));
    }
}

/// Otherwise the position would go back, and a resume would repeat events.
#[test]
fn an_interruption_behind_the_page_telling_its_epoch_is_ignored() {
    let first = Replay { next: Some(rest(1, 7)), ..replay(1, 5, 7) };
    let mut stream = Stream::open(&cursor(1, &[(0, 5)]), vec![(0, first)]);
    stream.interrupt(0, Some(MissedReason::Epoch), (2, 0));
    let page = Replay { missed: missed_epoch(), ..replay(2, 0, 3) };
    stream.state.on_page(Page { stream: 1, partition: 0, replay: page });
    stream.interrupt(0, Some(MissedReason::Epoch), (2, 0));
    stream.take_all();
    stream.change(ChangeStep::Finished { at: stream.now });
    stream.take_all();
    assert_eq!(stream.last_id().positions.get(0), Some(3));
    assert_eq!(stream.text.matches("event: gap").count(), 1, "{}", stream.text);
}

/// Otherwise their sequences would pass for the new epoch's: its events up to them would be skipped.
#[test]
fn held_frames_of_an_old_epoch_are_ignored_after_an_addition_in_the_new_one() {
    let event = |epoch, partition, sequence| {
        let event = testing::sequenced("topic", sequence, None, &testing::policy(Conflate::None));
        let event = SequencedEvent::clone(&event);
        Arc::new(SequencedEvent { epoch: Epoch::new(epoch), partition, ..event })
    };
    let mut stream = Stream::open(&cursor(1, &[(0, 5)]), vec![(0, replay(1, 5, 5))]);
    stream.join(1, replay(2, 1, 1));
    stream.deliver(vec![event(1, 1, 6)]);
    stream.deliver(vec![event(1, 0, 6)]);
    stream.deliver(vec![event(2, 1, 3)]);
    stream.take_all();
    let positions: Vec<_> = stream.ids.iter().map(|id| id.positions.get(1)).collect();
    assert_eq!(positions.last(), Some(&Some(3)), "{}", stream.text);
    // Partition 0 is still in the old epoch.
    assert_eq!(stream.text.matches("data: 6").count(), 1, "{}", stream.text);
}
