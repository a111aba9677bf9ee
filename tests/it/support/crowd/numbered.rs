//! Numbered events with their send time: `lane number micros length text`.

use std::{sync::LazyLock, time::Instant};

/// Sender and receivers share the clock of this process.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

#[derive(Debug, Clone, Copy)]
pub struct Numbered<'a> {
    /// Index of the topic within the test.
    pub lane: usize,
    /// From 1, without holes.
    pub number: u32,
    sent_micros: u64,
    text_bytes: usize,
    pub text: &'a str,
}

impl<'a> Numbered<'a> {
    /// Event data with the current time as send time.
    pub fn write(lane: usize, number: u32, text: &str) -> String {
        format!("{lane} {number} {} {} {text}", now_micros(), text.len())
    }

    pub fn parse(data: &'a str) -> Option<Self> {
        let mut parts = data.splitn(5, ' ');
        Some(Self {
            lane: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
            sent_micros: parts.next()?.parse().ok()?,
            text_bytes: parts.next()?.parse().ok()?,
            text: parts.next()?,
        })
    }

    /// Whether the text has its announced length.
    pub fn is_sound(&self) -> bool {
        self.text.len() == self.text_bytes
    }

    pub fn age_micros(&self) -> u32 {
        u32::try_from(now_micros().saturating_sub(self.sent_micros)).unwrap_or(u32::MAX)
    }
}

fn now_micros() -> u64 {
    START.elapsed().as_micros() as u64
}
