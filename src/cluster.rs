//! The cluster of a hub on its own: one instance.

use std::{sync::OnceLock, time::Duration};

use fanfare_core::{
    cluster::{Cluster, ClusterStatus, HandleCall, InstanceAnswers, InstanceCall, SettingConflict},
    error::ChangeError,
    future::BoxFuture,
};
use futures_util::{FutureExt, future::ready};

/// A cluster of one: it executes every call itself.
#[derive(Default)]
pub(crate) struct LocalCluster {
    handler: OnceLock<Box<dyn HandleCall>>,
}

impl Cluster for LocalCluster {
    fn status(&self) -> ClusterStatus {
        ClusterStatus {
            kind: "local",
            is_up: true,
            instance: None,
            reconnects: 0,
            rejected: 0,
            history_bytes: 0,
            lag_ms: 0.0,
            conflict: None,
        }
    }

    fn first_contact(&self) -> BoxFuture<'static, Result<(), SettingConflict>> {
        ready(Ok(())).boxed()
    }

    fn call_all(
        &self,
        _: u16,
        call: InstanceCall,
        _: Option<Duration>,
    ) -> BoxFuture<'static, Result<InstanceAnswers, ChangeError>> {
        let Some(handler) = self.handler.get() else {
            return ready(Err(ChangeError::BridgeDown)).boxed();
        };
        let answer = handler.handle(call);
        answer.map(|answer| Ok(InstanceAnswers { answers: vec![answer], are_all: true })).boxed()
    }

    fn partitions_of_links(&self) -> BoxFuture<'static, Vec<u16>> {
        ready(vec![0]).boxed()
    }

    fn serve(&self, handler: Box<dyn HandleCall>) {
        // The hub's start calls this once.
        let _ = self.handler.set(handler);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Hub, log::contract};

    #[actix_web::test]
    async fn the_log_in_memory_keeps_every_promise() {
        contract::all(&[Hub::start(contract::config()).unwrap()]).await;
    }
}
