//! The drawn screen, as text.

use std::time::Duration;

use ratatui::{Terminal, backend::TestBackend};
use serde_json::{from_value, json};
use tokio::time::Instant;

use super::*;
use crate::{
    top::{feeds::Update, figures::tests::stats},
    watch::WatchedEvent,
};

/// The screen of this size.
fn drawn(view: &mut View, figures: &Figures, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view.draw(frame, figures)).unwrap();
    terminal.backend().to_string()
}

/// Figures after one second with these events.
fn figures(topics: &[&str]) -> Figures {
    let mut figures = Figures::new("http://hub".to_owned());
    let start = Instant::now();
    figures.take(stats(100), start);
    figures.take(stats(150), start + Duration::from_secs(1));
    let event = |topic: &&str| from_value::<WatchedEvent>(json!({"topic": topic, "data": 1}));
    let events = topics.iter().map(event).collect::<Result<_, _>>().unwrap();
    figures.on_update(Update::Events(events), start);
    figures.end_second();
    figures
}

#[test]
fn it_shows_streams_rates_latency_memory_redis_and_topics() {
    let figures = figures(&["a:b", "a:b", "c\u{1b}[2J"]);
    let text = drawn(&mut View::default(), &figures, (120, 30));
    for part in [
        "http://hub",
        "version 1.2.3",
        "up 1day 1h 1m 1s",
        "streams       1234",
        "2345",
        "50.0/s",
        "500.0/s",
        "p50           1.50 ms",
        "64.0 MiB",
        "redis UNAVAILABLE",
        "link lost     3",
        "slow 7",
        "2.0 a:b",
        "1.0 c\\u{1b}[2J",
        "at most 500",
        "q: quit",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn keys_sort_and_scroll_the_topics() {
    let names: Vec<String> = (0..40).map(|n| format!("topic:{n:02}")).collect();
    let mut topics: Vec<&str> = names.iter().map(String::as_str).collect();
    topics.push("topic:39");
    let figures = figures(&topics);
    let mut view = View::default();
    let mut shown = |key| {
        view.on_key(key);
        let text = drawn(&mut view, &figures, (80, 24));
        let rows = text.lines().filter_map(|line| line.split_once("topic:"));
        rows.map(|(_, number)| number[..2].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown(KeyCode::Char('r'))[..2], ["39", "00"]);
    assert_eq!(shown(KeyCode::Char('n'))[..2], ["00", "01"]);
    assert_eq!(shown(KeyCode::Left)[0], "39");
    assert_eq!(shown(KeyCode::Left)[0], "00");
    let end = shown(KeyCode::End);
    assert_eq!(end.last().map(String::as_str), Some("39"), "{end:?}");
    assert!(!end.contains(&"00".to_owned()), "{end:?}");
    assert_eq!(shown(KeyCode::Home)[0], "00");
    (0..3).for_each(|_| _ = shown(KeyCode::PageDown));
    assert!(!shown(KeyCode::Down).contains(&"00".to_owned()));
}

#[test]
fn problems_are_told_in_words_and_no_size_is_too_small() {
    let mut figures = figures(&[]);
    let now = Instant::now();
    figures.on_update(Update::NoStats("connection lost".to_owned()), now);
    figures.on_update(Update::NoEvents("403 forbidden".to_owned()), now);
    let text = drawn(&mut View::default(), &figures, (120, 30));
    assert!(text.contains("OLD FIGURES: connection lost"), "{text}");
    assert!(text.contains("topics: 403 forbidden"), "{text}");
    for size in [(1, 1), (3, 3), (20, 5), (300, 2)] {
        drawn(&mut View::default(), &figures, size);
    }
}
