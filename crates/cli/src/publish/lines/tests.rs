//! Batches, outcomes and retries of lines.

use fanfare_bench::hub_address::HubArgs;

use super::*;
use crate::hub_connection::HubConnection;

fn publisher() -> LinePublisher {
    let hub = HubArgs { url: "http://127.0.0.1:1".into(), token: None };
    let hub = HubConnection { hub, ca: None };
    let event = PublishedEvent {
        topics: vec!["t".into()],
        event: None,
        key: None,
        collapse: None,
        delete: false,
        ttl: None,
        id: None,
        is_json: false,
    };
    let mut publisher =
        LinePublisher::new(HubClient::new(&hub).unwrap(), event, ProgressBar::hidden());
    for line in ["a", "b", "c"] {
        publisher.on_input(Ok(line.into())).unwrap();
    }
    publisher
}

fn refused(code: &str) -> LineOutcome {
    LineOutcome::Refused(ErrorBody { code: code.into(), message: String::new() })
}

fn numbers(publisher: &LinePublisher) -> Vec<u64> {
    publisher.pending.iter().map(|line| line.number).collect()
}

#[test]
fn lines_lose_their_ends_and_empty_ones_count() {
    let (sender, mut receiver) = mpsc::channel(10);
    read_lines(&b"a\n\nb\r\nc\rd\n e"[..], &sender);
    drop(sender);
    let lines: Vec<Vec<u8>> =
        std::iter::from_fn(|| receiver.blocking_recv()).map(Result::unwrap).collect();
    assert_eq!(lines, [&b"a"[..], b"", b"b", b"c\rd", b" e"]);
}

#[test]
fn lines_that_were_not_taken_stay_in_order() {
    let mut publisher = publisher();
    publisher.settle(3, vec![LineOutcome::Later, LineOutcome::Taken, LineOutcome::Later]);
    assert_eq!(numbers(&publisher), [1, 3]);
    publisher.settle(1, vec![]);
    assert_eq!(numbers(&publisher), [1, 3]);
    publisher.settle(2, vec![refused("bad_event"), LineOutcome::Taken]);
    assert_eq!(numbers(&publisher), [0_u64; 0]);
    assert_eq!((publisher.published_count, publisher.refused_count), (2, 1));
}

#[test]
fn a_line_that_is_not_utf_8_is_refused_by_its_number() {
    let mut publisher = publisher();
    publisher.on_input(Ok(vec![0xff])).unwrap();
    publisher.on_input(Ok(b"e".to_vec())).unwrap();
    assert_eq!(numbers(&publisher), [1, 2, 3, 5]);
    assert_eq!(publisher.refused_count, 1);
}

#[test]
fn ids_are_another_for_each_line_and_the_same_when_sent_again() {
    let mut publisher = publisher();
    let before: Vec<Vec<u8>> = publisher.pending.iter().map(|line| line.body.clone()).collect();
    assert!(before[0] != before[1] && before[1] != before[2]);
    publisher.settle(3, vec![]);
    let after: Vec<Vec<u8>> = publisher.pending.iter().map(|line| line.body.clone()).collect();
    assert_eq!(before, after);
}

#[test]
fn a_request_has_bounds_and_at_least_a_line() {
    let pending = |sizes: &[usize]| -> VecDeque<InputLine> {
        sizes
            .iter()
            .map(|size| InputLine { number: 1, input_bytes: 1, body: vec![b'x'; *size] })
            .collect()
    };
    assert_eq!(batch_count(&pending(&[2 * MAX_BATCH_BYTES, 1]), 500), 1);
    assert_eq!(batch_count(&pending(&[1, 1, MAX_BATCH_BYTES]), 500), 2);
    assert_eq!(batch_count(&pending(&[1; 600]), 500), 500);
    let topics = |count: usize| vec!["x".repeat(256); count];
    assert_eq!(max_batch_lines(&["t".to_owned()]), 500);
    assert!(max_batch_lines(&topics(2)) * 2 * (256 + ANSWER_BYTES) <= MAX_ANSWERS_BYTES);
    assert_eq!(max_batch_lines(&topics(10_000)), 1);
}

#[test]
fn answers_are_told_apart_by_success_and_code() {
    let is_later = |code: &str| {
        let line = format!(r#"{{"success":false,"error":{{"code":"{code}","message":"m"}}}}"#);
        matches!(outcome(line.as_bytes()), Ok(LineOutcome::Later))
    };
    assert!(is_later("at_capacity") && is_later("rate_limited") && !is_later("bad_event"));
    assert!(matches!(outcome(br#"{"success":true,"sequence":1}"#), Ok(LineOutcome::Taken)));
    let both = br#"[{"success":true},{"success":true}]"#;
    assert!(matches!(outcome(both), Ok(LineOutcome::Taken)));
    assert!(matches!(outcome(b"[]"), Err(Halt::Fatal(_))));
    assert!(matches!(outcome(b"<html>"), Err(Halt::Fatal(_))));
    assert!(matches!(outcome(br#"{"success":false}"#), Err(Halt::Fatal(_))));
}

#[test]
fn answers_are_parted_at_line_ends_and_a_cut_one_is_none() {
    let mut answers = AnswerReader::default();
    assert!(answers.push(b"{}\n\n{\"a\"").is_ok());
    assert_eq!(answers.next().as_deref(), Some(&b"{}\n"[..]));
    assert_eq!(answers.next(), None);
    assert!(answers.push(b":1}\n").is_ok());
    assert_eq!(answers.next().as_deref(), Some(&b"{\"a\":1}\n"[..]));
}
