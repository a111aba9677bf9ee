//! Texts and cursors.

use proptest::prelude::*;

use super::{digits::MAX_TIME, *};

fn cursor() -> impl Strategy<Value = Cursor> {
    let positions = prop::collection::btree_map(0..MAX_PARTITIONS, 0..(1_u64 << 54), 1..20);
    let time = prop::option::of(0..=MAX_TIME);
    let marks = prop::collection::vec((0..MAX_PARTITIONS, any::<bool>(), 1..4096_u64), 0..20);
    (any::<u64>(), time, positions, marks).prop_map(|(epoch, unix_ms, positions, marks)| {
        let positions: Positions = positions.into_iter().collect();
        let mark = |(partition, is_snapshot, distance)| {
            let kind = if is_snapshot { ReplayKind::Snapshot } else { ReplayKind::History };
            let head = positions.get(partition)? + distance;
            (head < 1 << 54).then_some(ReplayMark { partition, kind, head })
        };
        let marks = marks.into_iter().filter_map(mark).collect();
        Cursor { epoch: Epoch::new(epoch), unix_ms, positions, marks }
    })
}

proptest! {
    #[test]
    fn text_and_cursor_are_one_to_one(cursor in cursor()) {
        let text = cursor.to_string();
        prop_assert_eq!(text.parse::<Cursor>(), Ok(cursor));
    }

    #[test]
    fn any_text_is_refused_or_comes_back_the_same(
        text in "[0-9a-zA-Z_.:~*!-]{0,40}|[0-9a-z]{8}~[0-9a-z]{7}.[1-3]:[1-9]([*!][0-9a-z]{1,11})?|.*",
    ) {
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(cursor.to_string(), text);
        }
    }
}

proptest! {
    #[test]
    fn a_text_that_moves_on_is_that_of_its_cursor(
        mut cursor in cursor(),
        moves in prop::collection::vec((0..20_u16, 0..(1_u64 << 54), 0..=MAX_TIME), 0..40),
    ) {
        let marks = cursor.marks.clone();
        let mut text = CursorText::new(cursor.epoch, Some(0), &cursor.positions, &marks);
        for (partition, sequence, unix_ms) in moves {
            cursor.unix_ms = Some(unix_ms);
            cursor.positions.set(partition, sequence);
            text.set_time(unix_ms);
            text.set(partition, sequence);
            let expected = cursor.to_string();
            prop_assert_eq!(text.as_bytes(), expected.as_bytes());
        }
    }
}

#[test]
fn sixteen_partitions_take_at_most_210_printable_bytes() {
    let cursor = Cursor {
        epoch: Epoch::new(u64::MAX),
        unix_ms: Some(u64::MAX),
        positions: (0..16).map(|partition| (partition, (1 << 54) - 1)).collect(),
        marks: ReplayMarks::default(),
    };
    let text = cursor.to_string();
    assert!(text.len() <= 210, "{}", text.len());
    assert!(text.bytes().all(|b| b.is_ascii_graphic() && b != b','));
}

#[test]
fn within_a_replay_sixteen_partitions_take_at_most_256_printable_bytes() {
    for (sequence, head) in [(0, u64::MAX >> 10), (1 << 48, (1 << 54) - 1), (5, 1 << 30)] {
        let mark = |partition| ReplayMark { partition, kind: ReplayKind::Snapshot, head };
        let cursor = Cursor {
            epoch: Epoch::new(u64::MAX),
            unix_ms: Some(MAX_TIME),
            positions: (0..16).map(|partition| (partition, sequence)).collect(),
            marks: (0..16).map(mark).collect(),
        };
        let text = cursor.to_string();
        assert!(text.len() <= 256, "{}", text.len());
        assert!(text.bytes().all(|b| b.is_ascii_graphic() && b != b','));
        let read: Cursor = text.parse().unwrap();
        assert!(read.marks.get(7).is_some_and(|mark| mark.head > sequence && mark.head <= head));
        // A distance up to a thousand million events is exact.
        assert!(sequence > 1 << 36 || head > 1 << 30 || read == cursor);
    }
}

#[test]
fn a_position_at_the_head_of_its_replay_has_no_mark() {
    let marks = [ReplayMark { partition: 1, kind: ReplayKind::History, head: 10 }];
    let marks: ReplayMarks = marks.into_iter().collect();
    let positions = [(1, 9), (2, 3)].into_iter().collect();
    let mut text = CursorText::new(Epoch::new(0), Some(0), &positions, &marks);
    assert_eq!(text.as_bytes(), b"00000000~0000000.1:9!1.2:3");
    text.set(1, 10);
    assert_eq!(text.as_bytes(), b"00000000~0000000.1:a.2:3");
}

#[test]
fn garbage_is_refused() {
    for text in [
        "",
        "42",
        "0000000",
        "00000000",
        "00000000.",
        "00000000.1",
        "00000000.1:",
        "00000000.1:01",
        "00000000.2:1.1:1",
        "00000000.1:1.1:2",
        "00000000.Aaa:1",
        "00000000.1:1 ",
        "é0000000",
        "00000000~.1:1",
        "00000000~000000.1:1",
        "00000000~00000000.1:1",
        "00000000~0000000",
        "~0000000.1:1",
        "00000000.1:1*",
        "00000000.1:1*0",
        "00000000.1:*1",
        "00000000.1:1*1!1",
        "00000000.1:111111111!111",
        "00000000.1:_________!1",
    ] {
        assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text:?}");
    }
}
