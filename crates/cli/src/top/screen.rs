//! The terminal of `fanfare top`: raw mode, keys and signals, and the way back.

use std::{future::pending, io, thread, time::Duration};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::{figures::Figures, view::View};

/// Longest wait for a key before the thread looks for the end of the command.
const KEY_POLL: Duration = Duration::from_millis(200);

/// Keys waiting for the view.
const MAX_WAITING_KEYS: usize = 16;

/// A user's input.
pub(super) enum Input {
    Key(KeyCode),
    Resized,
    /// `q`, Escape, Ctrl-C, or a signal.
    End,
}

/// The terminal in raw mode. Dropping it gives the terminal back; a panic does so too.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    events: mpsc::Receiver<Event>,
    signals: Vec<Signal>,
}

impl Screen {
    pub fn open() -> io::Result<Self> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let signals = kinds.into_iter().map(signal).collect::<Result<_, _>>()?;
        let events = events()?;
        Ok(Self { terminal: ratatui::try_init()?, events, signals })
    }

    pub fn draw(&mut self, view: &mut View, figures: &Figures) -> io::Result<()> {
        self.terminal.draw(|frame| view.draw(frame, figures)).map(|_| ())
    }

    /// The next input. Cancel safe.
    pub async fn next_input(&mut self) -> Input {
        let [terminate, interrupt, hangup] = &mut self.signals[..] else { return pending().await };
        loop {
            let event = tokio::select! {
                event = self.events.recv() => event,
                _ = terminate.recv() => None,
                _ = interrupt.recv() => None,
                _ = hangup.recv() => None,
            };
            match event {
                None => return Input::End,
                Some(Event::Key(key)) if key.kind == KeyEventKind::Release => {}
                Some(Event::Key(key)) if is_end(key) => return Input::End,
                Some(Event::Key(key)) => return Input::Key(key.code),
                Some(Event::Resize(..)) => return Input::Resized,
                Some(_) => {}
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// The terminal's events, read by a thread. The thread ends with the receiver, or with the
/// terminal.
fn events() -> io::Result<mpsc::Receiver<Event>> {
    let (sender, receiver) = mpsc::channel(MAX_WAITING_KEYS);
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while !sender.is_closed() {
            match next_event() {
                Ok(None) => {}
                Ok(Some(event)) => _ = sender.blocking_send(event),
                Err(_) => return,
            }
        }
    })?;
    Ok(receiver)
}

/// The next event, or none after a while.
fn next_event() -> io::Result<Option<Event>> {
    event::poll(KEY_POLL)?.then(event::read).transpose()
}

fn is_end(key: KeyEvent) -> bool {
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_escape_and_control_c_end_it() {
        let ends = |code, modifiers| is_end(KeyEvent::new(code, modifiers));
        assert!(ends(KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(ends(KeyCode::Esc, KeyModifiers::NONE));
        assert!(ends(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!ends(KeyCode::Char('c'), KeyModifiers::NONE));
    }
}
