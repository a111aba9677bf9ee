//! The manager alone, with the test's own clock.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::{Credential, Grant},
    cursor::Epoch,
    event::SequencedEvent,
    ids::StreamId,
    interest::{Begun, Rest, StartFrom, Told},
    partition::{Delivery, InterestChange, Interruption},
    partition_log::{MissedReason, Replay},
    policy::{Conflate, Flush, Policy},
    replays::ReplayLimit,
    sse::ShutdownReason,
    subscription::{Change, ChangeBy, ResolvedSubscription, StreamLimits, Subscription},
    testing,
    topic::Pattern,
    topic_manager::{
        ChangeOutcome, ChangeStep, Frames, ManagerSpec, ManagerState, Opening, Outlet, Page,
        Renewal, Slot,
    },
};

#[derive(Debug, PartialEq)]
enum Mail {
    Open,
    /// Partition and head.
    Page(u16, u64),
    /// The sequences of each frame.
    Frames(Vec<Vec<u64>>),
    Beat,
    Change,
    End(ShutdownReason),
}

#[derive(Clone, Default)]
struct Inbox(Rc<RefCell<Vec<Mail>>>);

impl Inbox {
    fn take(&self) -> Vec<Mail> {
        self.0.take()
    }
}

impl Outlet for Inbox {
    fn open(&self, _: Opening) {
        self.0.borrow_mut().push(Mail::Open);
    }

    fn page(&self, page: Page) {
        self.0.borrow_mut().push(Mail::Page(page.partition, page.replay.head));
    }

    fn deliver(&self, frames: Frames) -> Result<(), Frames> {
        let sequences =
            |events: &[Arc<SequencedEvent>]| events.iter().map(|e| e.sequence).collect();
        let frames = frames.iter().map(|frame| sequences(&frame.events)).collect();
        self.0.borrow_mut().push(Mail::Frames(frames));
        Ok(())
    }

    fn change(&self, _: &Arc<ResolvedSubscription>, _: ChangeStep) {
        self.0.borrow_mut().push(Mail::Change);
    }

    fn renew(&self, _: Duration) {}

    fn beat(&self) {
        self.0.borrow_mut().push(Mail::Beat);
    }

    fn end(&self, reason: ShutdownReason, _: Option<Duration>, _: Frames) {
        self.0.borrow_mut().push(Mail::End(reason));
    }
}

const LIMITS: StreamLimits = StreamLimits { max_topics: 10_000, max_patterns: 100, max_types: 64 };

struct Bench {
    manager: ManagerState<Inbox>,
    start: Instant,
}

impl Bench {
    fn new(change: impl FnOnce(&mut ManagerSpec)) -> Self {
        let start = Instant::now();
        let mut spec = ManagerSpec {
            start,
            ticks_from: start,
            tick_phase: 0,
            partition_count: 1,
            heartbeat: Duration::from_secs(15),
            max_lifetime: Duration::ZERO,
            max_lifetime_jitter: Duration::ZERO,
            max_batch_events: 10_000,
            max_batch_bytes: 1024 * 1024,
            limits: LIMITS,
            max_changes_per_second: 0,
            renew_before: Duration::from_secs(30),
            ask_grace: Duration::from_secs(300),
            ask_timeout: Duration::from_secs(5),
            replays: Arc::new(ReplayLimit::new(1)),
        };
        change(&mut spec);
        Self { manager: ManagerState::new(spec), start }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    /// Opens a stream and attaches it.
    fn open(&mut self, stream: u64, topics: &[&str]) -> Inbox {
        self.open_by(stream, topics, &Grant::everything())
    }

    fn open_by(&mut self, stream: u64, topics: &[&str], grant: &Arc<Grant>) -> Inbox {
        let inbox = Inbox::default();
        let subscription = Subscription::new().topics(topics.iter().copied());
        let resolved = Arc::new(subscription.resolve(LIMITS, 0, grant).unwrap());
        self.manager.open(stream, inbox.clone(), &resolved, 0.5, self.start);
        let replay = Replay {
            epoch: Epoch::new(1),
            start: 0,
            head: 0,
            events: Vec::new(),
            missed: None,
            next: None,
            mark: None,
        };
        self.manager.on_delivery(0, Delivery::<()>::Attached { stream, replay }, self.start);
        assert_eq!(inbox.take(), [Mail::Open]);
        inbox
    }

    fn event(&mut self, topic: &str, sequence: u64, policy: &Arc<Policy>, millis: u64) {
        let event = testing::sequenced(topic, sequence, None, policy);
        let now = self.at(millis);
        self.manager.on_delivery(0, Delivery::<()>::Event { event, permit: None }, now);
    }

    /// Ends a turn at every moment requested by the manager, as its shell does.
    fn run_until(&mut self, millis: u64) {
        while let Some(due) = self.manager.next_due().filter(|due| *due <= self.at(millis)) {
            self.manager.on_time(due);
        }
    }
}

fn policy(flush: Flush) -> Arc<Policy> {
    Arc::new(Policy { flush, ..(*testing::policy(Conflate::None)).clone() })
}

#[test]
fn ticked_events_of_all_topics_leave_together_at_the_tick() {
    let mut bench = Bench::new(|_| {});
    let inbox = bench.open(1, &["a", "b"]);
    let tick = policy(Flush::Tick);
    bench.event("a", 1, &tick, 10);
    bench.event("b", 2, &tick, 50);
    bench.event("a", 3, &tick, 99);
    bench.run_until(99);
    assert_eq!(inbox.take(), []);
    bench.run_until(100);
    let frames = inbox.take();
    let Mail::Frames(mut frames) = frames.into_iter().next().unwrap() else { panic!() };
    frames.sort();
    assert_eq!(frames, [vec![1, 3], vec![2]]);
}

#[test]
fn immediate_events_leave_at_the_end_of_the_turn() {
    let mut bench = Bench::new(|_| {});
    let inbox = bench.open(1, &["a"]);
    bench.event("a", 1, &policy(Flush::Immediate), 10);
    bench.run_until(10);
    assert_eq!(inbox.take(), [Mail::Frames(vec![vec![1]])]);
}

#[test]
fn a_leading_topic_sends_at_once_after_a_quiet_tick_and_else_at_the_tick() {
    let mut bench = Bench::new(|_| {});
    let inbox = bench.open(1, &["*"]);
    let leading = policy(Flush::Leading);
    bench.event("a", 1, &leading, 10);
    bench.run_until(10);
    assert_eq!(inbox.take(), [Mail::Frames(vec![vec![1]])]);
    bench.event("a", 2, &leading, 20);
    bench.event("a", 3, &leading, 30);
    bench.run_until(99);
    assert_eq!(inbox.take(), []);
    bench.run_until(100);
    assert_eq!(inbox.take(), [Mail::Frames(vec![vec![2, 3]])]);
    // One millisecond less than a tick after the last event, and exactly a tick.
    bench.event("a", 4, &leading, 129);
    bench.run_until(199);
    assert_eq!(inbox.take(), []);
    bench.run_until(200);
    assert_eq!(inbox.take(), [Mail::Frames(vec![vec![4]])]);
    bench.event("a", 5, &leading, 229);
    bench.run_until(229);
    assert_eq!(inbox.take(), [Mail::Frames(vec![vec![5]])]);
}

#[test]
fn quiet_leading_topics_wake_the_manager_once_a_tick_and_are_forgotten() {
    let mut bench = Bench::new(|_| {});
    let inbox = bench.open(1, &["*"]);
    let leading = policy(Flush::Leading);
    for number in 0..50 {
        bench.event(&format!("topic-{number}"), number + 1, &leading, number);
        bench.run_until(number);
    }
    assert_eq!(inbox.take().len(), 50);
    assert_eq!(bench.manager.topics.len(), 50);
    assert_eq!(bench.manager.next_due(), Some(bench.at(200)));
    bench.run_until(200);
    assert_eq!(bench.manager.topics.len(), 0);
}

#[test]
fn a_leading_event_takes_older_events_of_its_partition_with_it() {
    let mut bench = Bench::new(|_| {});
    let both = bench.open(1, &["busy", "quiet"]);
    let leading = policy(Flush::Leading);
    bench.event("busy", 1, &leading, 10);
    bench.run_until(10);
    bench.event("busy", 2, &leading, 20);
    bench.event("quiet", 3, &leading, 30);
    bench.run_until(30);
    let sent = both.take();
    assert_eq!(sent, [Mail::Frames(vec![vec![1]]), Mail::Frames(vec![vec![3], vec![2]])]);
}

#[test]
fn what_waits_for_its_tick_goes_before_newer_events_of_its_partition() {
    let mut bench = Bench::new(|_| {});
    let both = bench.open(1, &["slow", "fast"]);
    let one = bench.open(2, &["slow"]);
    bench.event("slow", 1, &policy(Flush::Tick), 10);
    bench.event("fast", 2, &policy(Flush::Immediate), 20);
    bench.run_until(20);
    assert_eq!(both.take(), [Mail::Frames(vec![vec![2], vec![1]])]);
    assert_eq!(one.take(), []);
    bench.run_until(100);
    assert_eq!(one.take(), [Mail::Frames(vec![vec![1]])]);
}

#[test]
fn a_batch_at_its_bound_leaves_before_its_tick() {
    let mut bench = Bench::new(|spec| spec.max_batch_events = 2);
    let inbox = bench.open(1, &["a"]);
    let tick = policy(Flush::Tick);
    bench.event("a", 1, &tick, 10);
    bench.event("a", 2, &tick, 11);
    bench.run_until(11);
    assert_eq!(inbox.take(), [Mail::Frames(vec![vec![1, 2]])]);
}

#[test]
fn only_quiet_streams_get_heartbeats() {
    let mut bench = Bench::new(|spec| spec.heartbeat = Duration::from_secs(1));
    let (quiet, busy) = (bench.open(1, &["quiet"]), bench.open(2, &["busy"]));
    for (sequence, millis) in (1..).zip((0..3000).step_by(500)) {
        bench.event("busy", sequence, &policy(Flush::Immediate), millis);
        bench.run_until(millis);
    }
    bench.run_until(3100);
    assert_eq!(quiet.take(), [Mail::Beat, Mail::Beat, Mail::Beat]);
    assert!(!busy.take().contains(&Mail::Beat));
}

#[test]
fn a_stream_ends_at_its_maximum_lifetime() {
    let mut bench = Bench::new(|spec| {
        spec.max_lifetime = Duration::from_secs(5);
        spec.max_lifetime_jitter = Duration::from_secs(2);
    });
    let inbox = bench.open(1, &["a"]);
    bench.run_until(5900);
    assert_eq!(inbox.take(), []);
    bench.run_until(6400);
    assert_eq!(inbox.take(), [Mail::End(ShutdownReason::Lifetime)]);
}

#[test]
fn nothing_is_left_of_streams_that_are_gone() {
    let mut bench = Bench::new(|_| {});
    for stream in 1..=100 {
        bench.open(stream, &["a", "b", "c:*"]);
    }
    bench.event("a", 1, &policy(Flush::Tick), 10);
    (1..=100).for_each(|stream| bench.manager.close(stream));
    bench.run_until(200);
    assert!(bench.manager.is_empty());
}

/// A page of partition 0 up to `head`, with more behind it or not.
fn page(stream: u64, head: u64, has_more: bool) -> Delivery<()> {
    let epoch = Epoch::new(1);
    let rest = Rest {
        begun: Begun::After,
        epoch,
        sequence: head,
        head: 9,
        since: 0,
        told: Told::Through(0),
    };
    let next = has_more.then_some(rest);
    let replay =
        Replay { epoch, start: 0, head, events: Vec::new(), missed: None, next, mark: None };
    Delivery::Attached { stream, replay }
}

#[test]
fn a_long_replay_is_pulled_page_by_page_and_live_events_follow_the_last_page() {
    let mut bench = Bench::new(|_| {});
    let (inbox, immediate) = (Inbox::default(), policy(Flush::Immediate));
    let other = bench.open(1, &["a"]);
    bench.manager.take_changes(0);
    let subscription =
        Subscription::new().topic("a").resolve(LIMITS, 0, &Grant::everything()).unwrap();
    bench.manager.open(2, inbox.clone(), &Arc::new(subscription), 0.5, bench.start);
    bench.manager.take_changes(0);
    bench.manager.on_delivery(0, page(2, 3, true), bench.start);
    assert_eq!(inbox.take(), [Mail::Open]);
    assert!(!bench.manager.has_changes(0), "the next page waits for the client");
    // The partition sends it for the other stream.
    bench.event("a", 8, &immediate, 1);
    bench.run_until(1);
    assert_eq!((inbox.take(), other.take()), (vec![], vec![Mail::Frames(vec![vec![8]])]));

    bench.manager.continue_replay(2, &[0]);
    bench.manager.continue_replay(2, &[0]);
    let asked = bench.manager.take_changes(0);
    assert!(
        matches!(&asked[..], [InterestChange::Attach { from: StartFrom::Continue(rest), .. }]
            if rest.sequence == 3),
        "one page at a time: {asked:?}"
    );
    bench.manager.on_delivery(0, page(2, 8, false), bench.start);
    bench.event("a", 9, &immediate, 2);
    bench.run_until(2);
    assert_eq!(inbox.take(), [Mail::Page(0, 8), Mail::Frames(vec![vec![9]])]);
    assert_eq!(bench.manager.spec.replays.count(), 0);
}

/// A stream of partition 0, with a change adding a topic of partition 1. Returns the id of the added
/// attachment, and the stream's inbox.
fn adding(bench: &mut Bench, stream: StreamId) -> (StreamId, Inbox) {
    let name = |partition: u16| {
        let mut names = (0..).map(|number| Pattern::parse(&format!("t:{number}")).unwrap());
        let is_of = |name: &Pattern| name.to_topic().unwrap().partition(2) == partition;
        names.find(is_of).unwrap()
    };
    let inbox = bench.open(stream, &[name(0).as_str()]);
    let reference = bench.manager.find_stream(stream, 0).unwrap();
    let change = Change { add: vec![name(1)], ..Change::default() };
    bench.manager.change(stream, reference, change, bench.start);
    let asked = bench.manager.take_changes(1);
    let [InterestChange::Attach { stream: attachment, .. }] = asked[..] else {
        panic!("{asked:?}")
    };
    (attachment, inbox)
}

#[test]
fn the_pages_of_an_added_topic_wait_for_the_client_and_its_change_for_the_first() {
    let mut bench = Bench::new(|spec| spec.partition_count = 2);
    let (attachment, inbox) = adding(&mut bench, 1);
    assert!(bench.manager.take_finished().is_empty());
    bench.manager.on_delivery(1, page(attachment, 3, true), bench.start);
    let began_joined_finished = [Mail::Change, Mail::Change, Mail::Change];
    assert_eq!(inbox.take(), began_joined_finished);
    let finished = bench.manager.take_finished();
    assert!(matches!(finished[..], [(1, ChangeOutcome::Changed(_))]), "{finished:?}");
    assert!(!bench.manager.has_changes(1), "the next page waits for the client");
    assert_eq!(bench.manager.spec.replays.count(), 1);
    bench.manager.continue_replay(1, &[1]);
    bench.manager.continue_replay(1, &[1]);
    let asked = bench.manager.take_changes(1);
    assert!(
        matches!(&asked[..], [InterestChange::Attach { stream, from: StartFrom::Continue(rest), .. }]
            if *stream == attachment && rest.sequence == 3),
        "one page at a time: {asked:?}"
    );
    bench.manager.on_delivery(1, page(attachment, 9, false), bench.start);
    assert_eq!(inbox.take(), [Mail::Page(1, 9)]);
    assert_eq!(bench.manager.spec.replays.count(), 0);
    bench.manager.close(1);
    assert!(bench.manager.is_empty());
}

/// Otherwise a topic added there again would continue in the old epoch, after its last sequence: the
/// stream would ignore events with lower sequences.
#[test]
fn a_stream_is_told_of_a_new_epoch_in_a_partition_it_has_left() {
    let mut bench = Bench::new(|spec| spec.partition_count = 2);
    let (attachment, inbox) = adding(&mut bench, 1);
    bench.manager.on_delivery(1, page(attachment, 9, false), bench.start);
    let reference = bench.manager.find_stream(1, 0).unwrap();
    let names = bench.manager.take_finished().pop();
    let Some((_, ChangeOutcome::Changed(names))) = names else { panic!("{names:?}") };
    let is_added =
        |name: &&String| Pattern::parse(name).unwrap().to_topic().unwrap().partition(2) == 1;
    let added = Pattern::parse(names.iter().find(is_added).unwrap()).unwrap();
    let change = Change { remove: vec![added], ..Change::default() };
    bench.manager.change(2, reference, change, bench.start);
    inbox.take();
    let interruption = Interruption {
        partition: 1,
        reason: Some(MissedReason::Epoch),
        topics: Vec::new(),
        beginning: Some((Epoch::new(2), 0)),
        repeats: false,
    };
    let delivery = Delivery::<()>::Interrupted(Arc::new(interruption));
    bench.manager.on_delivery(1, delivery, bench.start);
    assert_eq!(inbox.take(), [Mail::Frames(vec![vec![]])]);
}

#[test]
fn past_the_limit_of_replays_a_stream_with_an_added_topic_ends() {
    let mut bench = Bench::new(|spec| spec.partition_count = 2);
    let (first, _inbox) = adding(&mut bench, 1);
    bench.manager.on_delivery(1, page(first, 3, true), bench.start);
    let (second, inbox) = adding(&mut bench, 2);
    bench.manager.on_delivery(1, page(second, 3, true), bench.start);
    let ended = Mail::End(ShutdownReason::Capacity);
    assert_eq!(inbox.take(), [Mail::Change, Mail::Change, ended, Mail::Change]);
}

#[test]
fn past_the_limit_of_replays_a_stream_gets_its_first_page_and_ends() {
    let mut bench = Bench::new(|_| {});
    let inboxes = [Inbox::default(), Inbox::default()];
    for (stream, inbox) in (1..).zip(&inboxes) {
        let subscription =
            Subscription::new().topic("a").resolve(LIMITS, 0, &Grant::everything()).unwrap();
        bench.manager.open(stream, inbox.clone(), &Arc::new(subscription), 0.5, bench.start);
        bench.manager.on_delivery(0, page(stream, 3, true), bench.start);
    }
    assert_eq!(inboxes[0].take(), [Mail::Open]);
    assert_eq!(inboxes[1].take(), [Mail::Open, Mail::End(ShutdownReason::Capacity)]);
    bench.manager.close(1);
    assert_eq!(bench.manager.spec.replays.count(), 0);
    bench.manager.close(2);
    assert!(bench.manager.is_empty());
}

#[test]
fn changes_of_a_stream_wait_in_bounded_number_while_a_partition_does_not_answer() {
    let mut bench = Bench::new(|_| {});
    bench.open(1, &["a"]);
    let reference = bench.manager.find_stream(1, 0).unwrap();
    for ticket in 0..1000 {
        let add = vec![Pattern::parse(&format!("t:{ticket}")).unwrap()];
        let change = Change { add, ..Change::default() };
        bench.manager.change(ticket, reference, change, bench.start);
    }
    let busy = bench.manager.take_finished();
    assert!(busy.iter().all(|(_, outcome)| *outcome == ChangeOutcome::Busy));
    assert_eq!(busy.len(), 1000 - 1 - 16, "one runs, 16 wait");
}

#[test]
fn a_client_changes_as_many_topics_at_once_as_a_stream_may_have_and_then_some_a_second() {
    let mut bench = Bench::new(|spec| {
        spec.limits.max_topics = 100;
        spec.max_changes_per_second = 10;
    });
    bench.open(1, &["a"]);
    let reference = bench.manager.find_stream(1, 0).unwrap();
    let mut ticket = 0;
    let mut change = |bench: &mut Bench, count: usize, millis: u64| {
        let names = (0..count).map(|number| Pattern::parse(&format!("t:{number}")).unwrap());
        // Names the stream does not have: each change is answered at once.
        let change = Change { remove: names.collect(), ..Change::default() };
        ticket += 1;
        bench.manager.change_paced(ticket, reference, change, bench.at(millis));
        let finished = bench.manager.take_finished();
        let [(answered, outcome)] = &finished[..] else { panic!("{finished:?}") };
        assert_eq!(*answered, ticket);
        *outcome == ChangeOutcome::TooFast
    };
    // The bound counts the names before the change.
    assert!(!change(&mut bench, 60, 0));
    assert!(!change(&mut bench, 50, 0));
    assert!(change(&mut bench, 1, 0));
    assert!(change(&mut bench, 1, 999), "a refused change costs nothing");
    assert!(!change(&mut bench, 10, 1000));
    assert!(change(&mut bench, 1, 1001));
    // Changes by the follow graph have no pace.
    bench.manager.change(99, reference, Change::default(), bench.at(1001));
    assert!(matches!(bench.manager.take_finished()[..], [(99, ChangeOutcome::Changed(_))]));
}

#[test]
fn a_change_waiting_during_a_renewal_to_less_is_checked_again() {
    let grant = |json: &str| {
        let rights = Arc::new(serde_json::from_str(json).unwrap());
        Arc::new(Grant::new(None, Credential::None, [rights]))
    };
    let mut bench = Bench::new(|_| {});
    bench.open_by(1, &["a"], &grant(r#"{"subscribe":["a","b","c"]}"#));
    let reference = bench.manager.find_stream(1, 0).unwrap();
    for (ticket, name) in [(1, "b"), (2, "c")] {
        let (add, by) = (vec![Pattern::parse(name).unwrap()], ChangeBy::Caller(None));
        let change = Change { add, by, ..Change::default() };
        bench.manager.change(ticket, reference, change, bench.start);
    }
    let asked = bench.manager.take_changes(0);
    let attachment = asked.iter().find_map(|change| match change {
        InterestChange::Attach { stream, .. } if *stream != 1 => Some(*stream),
        _ => None,
    });
    let less = grant(r#"{"subscribe":["a","b"]}"#);
    let renewed = bench.manager.renew(3, reference, &less, bench.start);
    assert_eq!(renewed, Renewal::Done(Vec::new()));
    bench.manager.on_delivery(0, page(attachment.unwrap(), 0, false), bench.start);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        bench.manager.take_finished(),
        [
            (1, ChangeOutcome::Changed(names(&["a", "b"]))),
            (2, ChangeOutcome::Forbidden(names(&["c"])))
        ]
    );
}

/// The memory of each stream: see "Memory" in the book.
#[test]
#[cfg(target_pointer_width = "64")]
fn a_stream_has_small_blocks() {
    assert!(size_of::<Slot<usize>>() <= 152, "{}", size_of::<Slot<usize>>());
    // Two counters come on top: 128 bytes, a size of the allocator.
    let subscription = size_of::<ResolvedSubscription>();
    assert!(subscription <= 112, "{subscription}");
}
