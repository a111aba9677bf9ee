//! Sends to many sockets by one system call: io_uring as a batch of `send` calls, nothing more. All
//! sends end inside the call, so no buffer outlives it and nothing becomes asynchronous.
//!
//! The only crate with unsafe code: the kernel reads the buffers of a call by their addresses.

#![cfg(target_os = "linux")]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

use std::{
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    process,
};

use io_uring::{IoUring, opcode, types::Fd};

/// Sends of one system call.
pub const MAX_SENDS: usize = 256;

/// Never wait for room, never raise `SIGPIPE`.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Bytes for a socket.
#[derive(Debug, Clone, Copy)]
pub struct Send<'a> {
    pub socket: RawFd,
    pub bytes: &'a [u8],
}

/// The queues shared with the kernel, for one thread.
pub struct Ring {
    ring: IoUring,
}

impl Ring {
    /// Makes the queues, and tries a send.
    ///
    /// # Errors
    /// The kernel is too old, or its administrator or the container's seccomp profile forbids
    /// io_uring.
    pub fn new() -> io::Result<Self> {
        // A ring of one thread saves the kernel's locks and interrupts (Linux 6.0).
        let simple = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(QUEUE);
        let mut ring = Self { ring: simple.or_else(|_| IoUring::new(QUEUE))? };
        let (socket, _peer) = UnixStream::pair()?;
        let mut result = Ok(0);
        let try_out = [Send { socket: socket.as_raw_fd(), bytes: b"?" }];
        ring.send_all(&try_out, |_, sent| result = sent);
        result.map(|_| ring)
    }

    /// Sends to all sockets without waiting for room. `done` gets the place and the result of each:
    /// the number of bytes taken, possibly fewer than all, or the error of its `send`. The order of
    /// the results is not defined.
    pub fn send_all(&mut self, sends: &[Send<'_>], mut done: impl FnMut(usize, io::Result<usize>)) {
        for (number, batch) in sends.chunks(MAX_SENDS).enumerate() {
            self.send_batch(batch, |place, result| done(number * MAX_SENDS + place, result));
        }
    }

    fn send_batch(&mut self, sends: &[Send<'_>], mut done: impl FnMut(usize, io::Result<usize>)) {
        let mut queue = self.ring.submission();
        for (place, send) in sends.iter().enumerate() {
            let length = u32::try_from(send.bytes.len()).unwrap_or(u32::MAX);
            let entry = opcode::Send::new(Fd(send.socket), send.bytes.as_ptr(), length)
                .flags(FLAGS)
                .build()
                .user_data(place as u64);
            // SAFETY: the kernel reads `bytes` until it reports the send's result. This function
            // returns only after all results, and `sends` borrows the bytes for as long.
            let pushed = unsafe { queue.push(&entry) };
            pushed.expect("the queue is empty before, and holds MAX_SENDS");
        }
        drop(queue);
        let mut left = sends.len();
        while left > 0 {
            self.submit(left);
            for result in self.ring.completion() {
                left -= 1;
                let sent = usize::try_from(result.result());
                let sent = sent.map_err(|_| io::Error::from_raw_os_error(-result.result()));
                done(result.user_data() as usize, sent);
            }
        }
    }

    /// Hands the queue to the kernel, and waits for `count` results.
    fn submit(&self, count: usize) {
        let Err(error) = self.ring.submit_and_wait(count) else { return };
        match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
            // The kernel may still read the buffers, so nothing is safe any more. Only a broken
            // descriptor or a broken queue leads here.
            _ => {
                eprintln!("fanfare-uring: io_uring_enter: {error}");
                process::abort();
            }
        }
    }
}

const QUEUE: u32 = MAX_SENDS as u32;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// None where the kernel forbids rings, as in most containers.
    fn ring() -> Option<Ring> {
        let ring = Ring::new();
        if let Err(error) = &ring {
            let code = error.raw_os_error();
            assert!(matches!(code, Some(libc::EPERM | libc::ENOSYS | libc::EACCES)), "{error}");
        }
        ring.ok()
    }

    #[test]
    fn each_socket_gets_its_bytes_and_each_send_its_result() {
        let Some(mut ring) = ring() else { return };
        let pairs: Vec<_> = (0..MAX_SENDS + 3).map(|_| UnixStream::pair().unwrap()).collect();
        let texts: Vec<String> = (0..pairs.len()).map(|number| format!("to {number}")).collect();
        let ends = pairs.iter().zip(&texts);
        let sends: Vec<Send<'_>> = ends
            .map(|((socket, _), text)| Send { socket: socket.as_raw_fd(), bytes: text.as_bytes() })
            .collect();
        let mut results = vec![None; sends.len()];
        ring.send_all(&sends, |place, result| results[place] = Some(result.unwrap()));
        for (((_, peer), text), result) in pairs.iter().zip(&texts).zip(results) {
            assert_eq!(result, Some(text.len()));
            let mut read = [0; 100];
            let count = (&mut &*peer).read(&mut read).unwrap();
            assert_eq!(&read[..count], text.as_bytes());
        }
    }

    #[test]
    fn full_and_closed_sockets_are_told_and_nobody_waits() {
        let Some(mut ring) = ring() else { return };
        let (full, _peer) = UnixStream::pair().unwrap();
        let (closed, peer) = UnixStream::pair().unwrap();
        drop(peer);
        let large = vec![b'x'; 16 << 20];
        let sends = [
            Send { socket: full.as_raw_fd(), bytes: &large },
            Send { socket: full.as_raw_fd(), bytes: b"more" },
            Send { socket: closed.as_raw_fd(), bytes: b"x" },
        ];
        let mut results = [None, None, None];
        ring.send_all(&sends, |place, result| {
            results[place] = Some(result.map_err(|error| error.kind()));
        });
        let taken = results[0].unwrap().unwrap();
        assert!(taken > 0 && taken < large.len());
        assert_eq!(results[1], Some(Err(io::ErrorKind::WouldBlock)));
        assert_eq!(results[2], Some(Err(io::ErrorKind::BrokenPipe)));
    }
}
