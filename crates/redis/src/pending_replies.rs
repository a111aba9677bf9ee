//! Pending replies: the instance RPCs in flight, with the answers received so far.

use std::collections::HashMap;

use fanfare_core::cluster::{HandleCall, InstanceAnswer};
use tokio::sync::oneshot;

/// Calls in flight at once. Further calls are refused.
pub(crate) const MAX_CALLS: usize = 1024;

/// Calls in flight by their number, and the handler of received calls.
#[derive(Default)]
pub(crate) struct PendingReplies {
    pub handler: Option<Box<dyn HandleCall>>,
    pub waiting: HashMap<u64, PendingReply>,
}

#[derive(Default)]
pub(crate) struct PendingReply {
    pub answers: Vec<InstanceAnswer>,
    /// The number of receivers, after Redis' reply to the publish.
    pub asked: Option<usize>,
    pub done: Option<oneshot::Sender<()>>,
}

impl PendingReply {
    pub fn finish_if_all_answered(&mut self) {
        if self.asked.is_some_and(|asked| self.answers.len() >= asked)
            && let Some(done) = self.done.take()
        {
            // The caller may have given up.
            let _ = done.send(());
        }
    }
}
