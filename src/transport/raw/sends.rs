//! The sends of a turn go together: raw streams leave their bytes here, and at the end of the turn
//! one system call sends the bytes of many streams (io_uring). One set per thread: the streams of a
//! worker share it. Without io_uring, the same bytes are sent stream by stream.
//!
//! A stream with a full, broken or partly written socket gets the rest back.

use std::{cell::RefCell, io, mem::take, os::fd::RawFd, rc::Rc};

#[cfg(all(feature = "io-uring", target_os = "linux"))]
use fanfare_uring::{Ring, Send};
use nix::sys::socket::{MsgFlags, send};

use super::stream::RawSocket;

/// Fewer sends together cost more than they save.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
const MIN_BATCH: usize = 4;

/// Never wait for room, never raise `SIGPIPE`.
const FLAGS: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

thread_local! {
    static SENDS: RefCell<Sends> = RefCell::default();
}

/// The sends of this turn, bounded by its streams and the size of a small write.
#[derive(Default)]
struct Sends {
    left: Vec<Left>,
    bytes: Vec<u8>,
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    ring: Option<Ring>,
}

/// A stream with bytes to send. It keeps its socket open.
struct Left {
    stream: Rc<RawSocket>,
    socket: RawFd,
    start: usize,
    end: usize,
}

/// Whether this thread can send batches.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub(crate) fn try_out() -> io::Result<()> {
    Ring::new().map(drop)
}

/// Whether this thread can send batches.
#[cfg(not(all(feature = "io-uring", target_os = "linux")))]
pub(crate) fn try_out() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Opens the queues of this thread, if possible: its sends then go together.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub(crate) fn batch() {
    SENDS.with_borrow_mut(|sends| {
        if sends.ring.is_none() {
            sends.ring = Ring::new().ok();
        }
    });
}

/// Opens the queues of this thread, if possible: its sends then go together.
#[cfg(not(all(feature = "io-uring", target_os = "linux")))]
pub(crate) fn batch() {}

/// Takes bytes for a socket, until the end of the turn. `copy` appends them.
#[inline]
pub(super) fn leave(stream: Rc<RawSocket>, socket: RawFd, copy: impl FnOnce(&mut Vec<u8>)) {
    SENDS.with_borrow_mut(|sends| {
        let start = sends.bytes.len();
        copy(&mut sends.bytes);
        sends.left.push(Left { stream, socket, start, end: sends.bytes.len() });
    });
}

/// Sends everything left, and tells the streams the results.
pub(super) fn send_left() {
    let (mut left, mut bytes) =
        SENDS.with_borrow_mut(|sends| (take(&mut sends.left), take(&mut sends.bytes)));
    if left.is_empty() {
        return;
    }
    let tell = |left: &Left, result| left.stream.on_sent(&bytes[left.start..left.end], result);
    if !send_together(&left, &bytes, tell) {
        for left in &left {
            tell(left, send_alone(left, &bytes));
        }
    }
    left.clear();
    bytes.clear();
    // The room is kept for the next turn.
    SENDS.with_borrow_mut(|sends| (sends.left, sends.bytes) = (left, bytes));
}

fn send_alone(left: &Left, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(left.socket, &bytes[left.start..left.end], FLAGS)?)
}

/// Sends by one system call. Returns whether it did.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
fn send_together(left: &[Left], bytes: &[u8], tell: impl Fn(&Left, io::Result<usize>)) -> bool {
    if left.len() < MIN_BATCH {
        return false;
    }
    let Some(mut ring) = SENDS.with_borrow_mut(|sends| sends.ring.take()) else { return false };
    let send = |left: &Left| Send { socket: left.socket, bytes: &bytes[left.start..left.end] };
    let sends: Vec<Send<'_>> = left.iter().map(send).collect();
    ring.send_all(&sends, |place, result| tell(&left[place], result));
    SENDS.with_borrow_mut(|sends| sends.ring = Some(ring));
    true
}

#[cfg(not(all(feature = "io-uring", target_os = "linux")))]
fn send_together(_: &[Left], _: &[u8], _: impl Fn(&Left, io::Result<usize>)) -> bool {
    false
}
