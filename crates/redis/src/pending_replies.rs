//! Calls to other instances in flight, with the answers received so far.

use std::collections::HashMap;

use fanfare_core::cluster::{HandleCall, InstanceAnswer};
use tokio::sync::oneshot;

/// Calls in flight at once.
pub(crate) const MAX_CALLS: usize = 1024;

/// Calls in flight, and the handler of other instances' calls.
#[derive(Default)]
pub(crate) struct PendingReplies {
    pub handler: Option<Box<dyn HandleCall>>,
    pub waiting: HashMap<u64, PendingReply>,
}

#[derive(Default)]
pub(crate) struct PendingReply {
    pub answers: Vec<InstanceAnswer>,
    /// How many instances were asked, once that is known.
    pub asked: Option<usize>,
    pub done: Option<oneshot::Sender<()>>,
}

impl PendingReply {
    pub fn finish_if_all_answered(&mut self) {
        if self.asked.is_some_and(|asked| self.answers.len() >= asked)
            && let Some(done) = self.done.take()
        {
            // The caller may be gone.
            let _ = done.send(());
        }
    }
}
