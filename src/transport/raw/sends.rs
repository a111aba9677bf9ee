//! The sends of a turn go together: a raw stream leaves its bytes here, and one system call sends
//! the bytes of many streams. One set per thread: the streams of a worker share it.
//!
//! A stream with a full, broken or partly written socket is woken and gets the rest back.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::poll_fn,
    io,
    os::fd::RawFd,
    task::{Context, Poll, Waker},
};

use fanfare_uring::{MAX_SENDS, Ring, Send};

/// A batch of fewer sends costs more than it saves. After one, some streams send for themselves: a
/// worker with a listener or two per topic pays for no batches, and the next fan-out begins them again.
const MIN_BATCH: usize = 4;
const ALONE_AFTER_SMALL: usize = 64;

thread_local! {
    static SENDS: RefCell<Sends> = const { RefCell::new(Sends::Untried) };
}

/// The sends of this thread.
enum Sends {
    Untried,
    /// The kernel or the container forbids io_uring.
    Forbidden,
    Ready(Box<Batch>),
}

/// A send left here. Names its batch and its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ticket(u64);

/// The result of a send.
#[derive(Debug)]
pub(super) enum Sent {
    /// Not yet sent. The stream will be woken.
    Waiting,
    All,
    /// The socket has taken only a part: these bytes are left.
    Rest(Box<[u8]>),
    Failed(io::ErrorKind),
}

struct Waiting {
    /// None if the stream has ended.
    socket: Option<RawFd>,
    start: usize,
    end: usize,
    waker: Waker,
    /// Whether the stream wants to know of a success too.
    is_awaited: bool,
}

struct Batch {
    ring: Ring,
    /// Batches before this one.
    number: u64,
    waiting: Vec<Waiting>,
    /// Streams still sending for themselves.
    alone: usize,
    bytes: Vec<u8>,
    /// Results other than a complete send, until their streams ask.
    results: HashMap<Ticket, Sent>,
    /// Wakes the task sending the batch at the end of the turn.
    flusher: Option<Waker>,
}

/// Whether this thread can send batches.
pub(crate) fn try_out() -> io::Result<()> {
    Ring::new().map(drop)
}

/// Opens the queues of this thread.
pub(crate) fn prepare() {
    SENDS.with_borrow_mut(|sends| {
        if matches!(sends, Sends::Untried) {
            *sends = start();
        }
    });
}

/// Takes the bytes written by `copy` for a socket. None if they must be sent by the stream itself.
/// The stream calls [`forget`] before it closes the socket.
pub(super) fn leave(
    socket: RawFd,
    task: &Context<'_>,
    copy: impl FnOnce(&mut Vec<u8>),
) -> Option<Ticket> {
    SENDS.with_borrow_mut(|sends| match sends {
        Sends::Ready(batch) => batch.leave(socket, task, copy),
        Sends::Untried | Sends::Forbidden => None,
    })
}

/// The result of a send, told once.
pub(super) fn ask(ticket: Ticket, task: &Context<'_>) -> Sent {
    with_batch(|batch| batch.ask(ticket, task)).unwrap_or(Sent::All)
}

/// Drops a send, or its result: the stream has ended.
pub(super) fn forget(ticket: Ticket) {
    with_batch(|batch| batch.forget(ticket));
}

fn with_batch<R>(work: impl FnOnce(&mut Batch) -> R) -> Option<R> {
    // At the end of a thread, the streams end after the set.
    let worked = SENDS.try_with(|sends| match &mut *sends.borrow_mut() {
        Sends::Ready(batch) => Some(work(batch)),
        Sends::Untried | Sends::Forbidden => None,
    });
    worked.ok().flatten()
}

fn start() -> Sends {
    let Ok(ring) = Ring::new() else { return Sends::Forbidden };
    actix_rt::spawn(async {
        let _end = End;
        poll_fn(|task| {
            with_batch(|batch| {
                batch.flusher = Some(task.waker().clone());
                batch.send();
            });
            Poll::<()>::Pending
        })
        .await;
    });
    Sends::Ready(Box::new(Batch {
        ring,
        number: 0,
        waiting: Vec::new(),
        alone: 0,
        bytes: Vec::new(),
        results: HashMap::new(),
        flusher: None,
    }))
}

/// The end of the sending task, with its runtime.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        let _ = SENDS.try_with(|sends| sends.replace(Sends::Untried));
    }
}

impl Batch {
    fn ticket(&self, place: usize) -> Ticket {
        Ticket(self.number * MAX_SENDS as u64 + place as u64)
    }

    /// The place of a send in the present batch. None if its batch is sent.
    fn place(&self, ticket: Ticket) -> Option<usize> {
        let is_present = ticket.0 / MAX_SENDS as u64 == self.number;
        is_present.then_some((ticket.0 % MAX_SENDS as u64) as usize)
    }

    fn leave(
        &mut self,
        socket: RawFd,
        task: &Context<'_>,
        copy: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Ticket> {
        if self.alone > 0 {
            self.alone -= 1;
            return None;
        }
        let ticket = self.ticket(self.waiting.len());
        let start = self.bytes.len();
        copy(&mut self.bytes);
        let end = self.bytes.len();
        let waker = task.waker().clone();
        self.waiting.push(Waiting { socket: Some(socket), start, end, waker, is_awaited: false });
        if self.waiting.len() == MAX_SENDS {
            // The first bytes leave early, and requests are answered in between.
            self.send();
        } else if self.waiting.len() == 1
            && let Some(flusher) = &self.flusher
        {
            // Behind the streams already woken in this turn.
            flusher.wake_by_ref();
        }
        Some(ticket)
    }

    fn ask(&mut self, ticket: Ticket, task: &Context<'_>) -> Sent {
        match self.place(ticket) {
            Some(place) => {
                let waiting = &mut self.waiting[place];
                waiting.is_awaited = true;
                waiting.waker.clone_from(task.waker());
                Sent::Waiting
            }
            None => self.results.remove(&ticket).unwrap_or(Sent::All),
        }
    }

    fn forget(&mut self, ticket: Ticket) {
        match self.place(ticket) {
            Some(place) => self.waiting[place].socket = None,
            None => drop(self.results.remove(&ticket)),
        }
    }

    /// Sends the whole batch.
    fn send(&mut self) {
        // Woken behind a batch already sent.
        if self.waiting.is_empty() {
            return;
        }
        if self.waiting.len() < MIN_BATCH {
            self.alone = ALONE_AFTER_SMALL;
        }
        let mut results = Vec::with_capacity(self.waiting.len());
        results.resize_with(self.waiting.len(), || Ok(0));
        let open = self.waiting.iter().enumerate();
        let (places, sends): (Vec<usize>, Vec<Send<'_>>) = open
            .filter_map(|(place, waiting)| {
                let bytes = &self.bytes[waiting.start..waiting.end];
                waiting.socket.map(|socket| (place, Send { socket, bytes }))
            })
            .unzip();
        self.ring.send_all(&sends, |index, result| results[places[index]] = result);
        for (place, result) in results.into_iter().enumerate() {
            self.tell(place, result);
        }
        self.number += 1;
        self.waiting.clear();
        self.bytes.clear();
    }

    fn tell(&mut self, place: usize, result: io::Result<usize>) {
        let waiting = &self.waiting[place];
        if waiting.socket.is_none() {
            return;
        }
        let bytes = &self.bytes[waiting.start..waiting.end];
        let sent = match result {
            Ok(count) if count == bytes.len() => Sent::All,
            Ok(count) => Sent::Rest(bytes[count..].into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Rest(bytes.into()),
            Err(error) => Sent::Failed(error.kind()),
        };
        let is_all = matches!(sent, Sent::All);
        if !is_all || waiting.is_awaited {
            waiting.waker.wake_by_ref();
        }
        if !is_all {
            let ticket = self.ticket(place);
            self.results.insert(ticket, sent);
        }
    }
}
