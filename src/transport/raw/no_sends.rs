//! No batched sends: the feature `io-uring` is off. Every stream sends for itself.

use std::{io, os::fd::RawFd, task::Context};

#[derive(Debug, Clone, Copy)]
pub(super) enum Ticket {}

#[derive(Debug)]
#[expect(dead_code, reason = "no send is ever left")]
pub(super) enum Sent {
    Waiting,
    All,
    Rest(Box<[u8]>),
    Failed(io::ErrorKind),
}

pub(crate) fn try_out() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn prepare() {}

pub(super) fn leave(_: RawFd, _: &Context<'_>, _: impl FnOnce(&mut Vec<u8>)) -> Option<Ticket> {
    None
}

pub(super) fn ask(ticket: Ticket, _: &Context<'_>) -> Sent {
    match ticket {}
}

pub(super) fn forget(ticket: Ticket) {
    match ticket {}
}
