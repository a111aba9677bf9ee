//! The raw streams of a worker: one set of sockets in the kernel (epoll), and one task for all of
//! their streams. A task and a registration in tokio of each stream's own would take 384 bytes.
//!
//! The set is itself a file descriptor, and tokio waits for it. A stream is polled after an event of
//! its socket, after a timer, or if its connection asks for it. Owns no connection and no output.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    io,
    os::fd::AsRawFd,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use mio::{Events, Interest, Registry, Token, unix::SourceFd};
use parking_lot::Mutex;
use slab::Slab;
use tokio::{io::unix::AsyncFd, task::yield_now};

use super::stream::RawStream;
use crate::actors::catch;

/// Streams polled before the worker's other tasks run.
const MAX_POLLED: usize = 64;

/// Events taken by one system call.
const MAX_EVENTS: usize = 256;

thread_local! {
    static STREAMS: RefCell<Weak<RawStreams>> = RefCell::default();
}

/// The raw streams of a thread.
pub(super) struct RawStreams {
    registry: Registry,
    streams: RefCell<Slab<RawStream>>,
    called: Arc<Called>,
}

/// Calls for streams to poll.
#[derive(Default)]
struct Called {
    /// The numbers of the streams, each once for each call.
    numbers: Mutex<VecDeque<u32>>,
    task: AtomicWaker,
}

impl Called {
    fn push(&self, number: u32) {
        self.numbers.lock().push_back(number);
        self.task.wake();
    }

    fn pop(&self) -> Option<u32> {
        self.numbers.lock().pop_front()
    }

    fn is_empty(&self) -> bool {
        self.numbers.lock().is_empty()
    }
}

/// Calls one stream, also from a timer.
struct StreamWaker {
    called: Arc<Called>,
    number: u32,
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.called.push(self.number);
    }
}

/// Opens the socket set of this thread: streams then need no further file.
pub(crate) fn prepare() {
    if let Err(error) = RawStreams::of_thread() {
        tracing::warn!(%error, "no socket set; the first stream tries again");
    }
}

impl RawStreams {
    /// The streams of this thread.
    ///
    /// # Errors
    /// The process has too many open files.
    pub fn of_thread() -> io::Result<Rc<Self>> {
        STREAMS.with_borrow_mut(|known| {
            if let Some(streams) = known.upgrade() {
                return Ok(streams);
            }
            let sockets = wait_for(mio::Poll::new()?)?;
            let registry = sockets.get_ref().registry().try_clone()?;
            let streams = Self { registry, streams: RefCell::default(), called: Arc::default() };
            let streams = Rc::new(streams);
            *known = Rc::downgrade(&streams);
            actix_rt::spawn(serve(Serving(streams.clone()), sockets));
            Ok(streams)
        })
    }

    /// Runs a stream until its end. An error drops it.
    ///
    /// # Errors
    /// The kernel has no memory for the registration.
    pub fn run(&self, stream: RawStream) -> io::Result<()> {
        let mut streams = self.streams.borrow_mut();
        let entry = streams.vacant_entry();
        let socket = stream.number(entry.key() as u32);
        self.registry.register(
            &mut SourceFd(&socket.as_raw_fd()),
            Token(entry.key()),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.called.push(entry.key() as u32);
        entry.insert(stream);
        Ok(())
    }

    /// Polls a stream soon.
    pub fn call(&self, number: u32) {
        self.called.push(number);
    }

    /// Ready with streams to poll.
    fn poll_called(
        &self,
        sockets: &mut AsyncFd<mio::Poll>,
        events: &mut Events,
        task: &mut Context<'_>,
    ) -> Poll<()> {
        self.called.task.register(task.waker());
        self.take_events(sockets, events, task);
        if self.called.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Takes events of sockets, and calls their streams.
    fn take_events(
        &self,
        sockets: &mut AsyncFd<mio::Poll>,
        events: &mut Events,
        task: &mut Context<'_>,
    ) {
        while let Poll::Ready(Ok(mut ready)) = sockets.poll_read_ready_mut(task) {
            match ready.get_inner_mut().poll(events, Some(Duration::ZERO)) {
                Ok(()) => events.iter().for_each(|event| self.on_event(event)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => tracing::error!(%error, "events of sockets are lost"),
            }
            // After so many events there may be more, and tokio tells only new ones.
            if events.iter().count() < MAX_EVENTS {
                ready.clear_ready();
            } else if !self.called.is_empty() {
                return;
            }
        }
    }

    fn on_event(&self, event: &mio::event::Event) {
        let Token(number) = event.token();
        // The event may be of an ended stream's socket.
        if let Some(stream) = self.streams.borrow().get(number) {
            let has_bytes = event.is_readable() || event.is_read_closed() || event.is_error();
            let has_room = event.is_writable() || event.is_write_closed() || event.is_error();
            stream.on_event(has_bytes, has_room);
            self.called.push(number as u32);
        }
    }

    fn poll_some(&self) {
        for _ in 0..MAX_POLLED {
            let Some(number) = self.called.pop() else { return };
            self.poll_stream(number);
        }
    }

    /// Polls a stream, and drops an ended one. A panic ends this stream only.
    fn poll_stream(&self, number: u32) {
        let stream = self.streams.borrow().get(number as usize).map(RawStream::socket);
        let Some(stream) = stream else { return };
        let waker = Waker::from(Arc::new(StreamWaker { called: self.called.clone(), number }));
        let polled = catch("raw stream", || stream.poll(&mut Context::from_waker(&waker)));
        if polled.is_none_or(|polled| polled.is_ready()) {
            // Dropping a stream can call others.
            let ended = self.streams.borrow_mut().try_remove(number as usize);
            drop(ended);
        }
    }
}

/// Tokio then waits for events in the set.
#[expect(
    deprecated,
    reason = "the other way is unsafe; it needs a file descriptor open and the same until the end, and \
              `Poll` owns its one"
)]
fn wait_for(sockets: mio::Poll) -> io::Result<AsyncFd<mio::Poll>> {
    AsyncFd::with_interest(sockets, tokio::io::Interest::READABLE)
}

/// Ends all streams with their task: the worker stops.
struct Serving(Rc<RawStreams>);

impl Drop for Serving {
    fn drop(&mut self) {
        let streams = self.0.streams.take();
        drop(streams);
    }
}

async fn serve(serving: Serving, mut sockets: AsyncFd<mio::Poll>) {
    let streams = &serving.0;
    let mut events = Events::with_capacity(MAX_EVENTS);
    loop {
        poll_fn(|task| streams.poll_called(&mut sockets, &mut events, task)).await;
        streams.poll_some();
        yield_now().await;
    }
}
