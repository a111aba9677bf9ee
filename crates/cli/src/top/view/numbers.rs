//! The three blocks of numbers: streams and events, latency, memory and Redis.

use bytesize::ByteSize;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{Block, Paragraph},
};

use super::{ALARM, QUIET};
use crate::{
    terminal::escaped,
    top::figures::{Bridge, Figures, Stats},
};

/// Lines of a block, with its border.
pub(super) const HEIGHT: u16 = 7;

/// A line: its name and its value.
type Number = (&'static str, String);

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, figures: &Figures, stats: &Stats) {
    let [left, middle, right] = Layout::horizontal([Constraint::Fill(1); 3]).areas(area);
    draw_block(frame, left, " streams and events ", &events(figures, stats), Style::new());
    draw_block(frame, middle, " latency since the start ", &latency(stats), Style::new());
    let style = if stats.bridge.up { Style::new() } else { ALARM };
    draw_block(frame, right, " memory and Redis ", &memory(stats), style);
}

fn events(figures: &Figures, stats: &Stats) -> [Number; 5] {
    [
        ("streams", stats.connections.to_string()),
        ("subscriptions", stats.subscriptions.to_string()),
        ("topics", stats.topics.to_string()),
        ("published", format!("{:.1}/s", figures.published_rate)),
        ("delivered", format!("{:.1}/s", figures.delivered_rate)),
    ]
}

fn latency(stats: &Stats) -> [Number; 5] {
    let millis = |quantile| match stats.latency_ms.get(quantile) {
        Some(millis) => format!("{millis:.2} ms"),
        None => "unknown".to_owned(),
    };
    let dropped = stats.dropped.iter().filter(|(_, count)| **count > 0);
    let dropped: Vec<String> = dropped.map(|(reason, count)| format!("{reason} {count}")).collect();
    let dropped = if dropped.is_empty() { "none".to_owned() } else { dropped.join(", ") };
    [
        ("p50", millis("p50")),
        ("p95", millis("p95")),
        ("p99", millis("p99")),
        ("p99.9", millis("p99.9")),
        ("dropped", dropped),
    ]
}

fn memory(stats: &Stats) -> [Number; 5] {
    let bytes = |bytes: u64| ByteSize(bytes).display().iec().to_string();
    let (link, lost) = link(&stats.bridge);
    [
        ("resident", bytes(stats.resident_bytes)),
        ("history", bytes(stats.history_bytes)),
        ("unsent", bytes(stats.outbox_bytes)),
        ("link", link),
        ("link lost", lost),
    ]
}

/// The state of the link to other instances, and the number of times it was lost.
fn link(bridge: &Bridge) -> (String, String) {
    match (bridge.kind.as_str(), bridge.up) {
        ("local", _) => ("none: one instance".to_owned(), "-".to_owned()),
        (kind, true) => {
            (format!("{kind}, lag {:.1} ms", bridge.lag_ms), bridge.reconnects.to_string())
        }
        (kind, false) => (format!("{kind} UNAVAILABLE"), bridge.reconnects.to_string()),
    }
}

fn draw_block(frame: &mut Frame<'_>, area: Rect, title: &str, rows: &[Number], style: Style) {
    let line = |(name, value): &Number| {
        let value = escaped(value).into_owned();
        Line::from(vec![Span::styled(format!("{name:<14}"), QUIET), Span::styled(value, style)])
    };
    let lines: Vec<Line<'_>> = rows.iter().map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}
