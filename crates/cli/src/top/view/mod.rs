//! The drawing of `fanfare top`. Colours only repeat a text's meaning.

mod numbers;

use std::time::Duration;

use ratatui::{
    Frame,
    crossterm::event::KeyCode,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Cell, Paragraph, Row, Sparkline, Table, TableState},
};

use super::figures::Figures;
use crate::terminal::escaped;

const QUIET: Style = Style::new().add_modifier(Modifier::DIM);
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
const ALARM: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

const KEYS: &str = "q: quit   r: by rate   n: by name   ↑↓ PgUp PgDn: scroll";

/// Lines of a page of topics.
const PAGE: u16 = 10;

/// The order of the topics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Order {
    #[default]
    Rate,
    Name,
}

/// The user's choices.
#[derive(Debug, Default)]
pub(super) struct View {
    order: Order,
    table: TableState,
}

impl View {
    pub fn on_key(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char('r') => self.order = Order::Rate,
            KeyCode::Char('n') => self.order = Order::Name,
            KeyCode::Left | KeyCode::Right => {
                self.order = if self.order == Order::Rate { Order::Name } else { Order::Rate };
            }
            KeyCode::Down | KeyCode::Char('j') => self.table.scroll_down_by(1),
            KeyCode::Up | KeyCode::Char('k') => self.table.scroll_up_by(1),
            KeyCode::PageDown => self.table.scroll_down_by(PAGE),
            KeyCode::PageUp => self.table.scroll_up_by(PAGE),
            KeyCode::Home => self.table.select_first(),
            KeyCode::End => self.table.select_last(),
            _ => {}
        }
    }

    pub fn draw(&mut self, frame: &mut Frame<'_>, figures: &Figures) {
        let [head, numbers, chart, topics, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(numbers::HEIGHT),
            Constraint::Length(5),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        draw_head(frame, head, figures);
        if let Some(stats) = &figures.stats {
            numbers::draw(frame, numbers, figures, stats);
        }
        draw_chart(frame, chart, figures);
        self.draw_topics(frame, topics, figures);
        frame.render_widget(Paragraph::new(KEYS).style(QUIET), foot);
    }

    fn draw_topics(&mut self, frame: &mut Frame<'_>, area: Rect, figures: &Figures) {
        let mut topics = figures.topics();
        let title = match (&figures.topics_problem, self.order) {
            (Some(problem), _) => format!(" topics: {} ", escaped(problem)),
            (None, Order::Rate) => " topics by rate ".to_owned(),
            (None, Order::Name) => " busiest topics by name ".to_owned(),
        };
        if self.order == Order::Name {
            topics.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        let rows = topics.into_iter().map(|(topic, rate)| {
            Row::new([Cell::new(format!("{rate:>10.1}")), Cell::new(escaped(&topic).into_owned())])
        });
        let table = Table::new(rows, [Constraint::Length(10), Constraint::Fill(1)])
            .header(Row::new(["  events/s", "topic"]).style(QUIET))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .block(Block::bordered().title(title));
        frame.render_stateful_widget(table, area, &mut self.table);
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, figures: &Figures) {
    let mut spans = vec![Span::styled("fanfare top  ", STRONG), Span::raw(figures.url.as_str())];
    if let Some(stats) = &figures.stats {
        let uptime = humantime::format_duration(Duration::from_secs(stats.uptime_seconds));
        let version = escaped(&stats.version).into_owned();
        spans.push(Span::styled(format!("  version {version}, up {uptime}"), QUIET));
    }
    if let Some(problem) = &figures.problem {
        spans.push(Span::styled(format!("  OLD FIGURES: {}", escaped(problem)), ALARM));
    }
    frame.render_widget(Line::from(spans), area);
}

fn draw_chart(frame: &mut Frame<'_>, area: Rect, figures: &Figures) {
    let width = usize::from(area.width.saturating_sub(2));
    let newest: Vec<u64> = figures.chart.iter().take(width).copied().collect();
    let max = newest.iter().max().copied().unwrap_or_default();
    // The newest is at the right end.
    let empty = std::iter::repeat_n(0, width - newest.len());
    let data: Vec<u64> = empty.chain(newest.into_iter().rev()).collect();
    let block = Block::bordered().title(format!(" deliveries a second, at most {max} "));
    frame.render_widget(Sparkline::default().data(&data).block(block), area);
}

#[cfg(test)]
mod tests;
