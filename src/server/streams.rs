//! Which requests are streams for the bare socket, and how they are opened.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::dev::RequestHead;

use crate::{Hub, Subscription, http, transport::NewStream};

/// Says what a request is subscribed to; none if that is the application's to say.
type SubscriptionOf = Arc<dyn Fn(&RequestHead) -> Option<Subscription> + Send + Sync>;

/// A path whose streams may be answered on the bare socket.
pub(super) struct Route {
    pub path: String,
    /// The topics are the query's if there is none.
    pub subscription: Option<SubscriptionOf>,
}

/// All of them, and the hub that they are of.
pub(super) struct Routes {
    pub hub: Hub,
    pub routes: Vec<Route>,
}

impl Routes {
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    pub fn has(&self, path: &str) -> bool {
        self.routes.iter().any(|route| route.path == path)
    }

    /// How long a client may take nothing.
    pub fn write_timeout(&self) -> Duration {
        self.hub.shared().config.stream.write_timeout
    }

    /// Opens the stream that a request asks for. None if the application is to answer: also
    /// with a refusal, which it will find for itself.
    pub fn open(&self, head: &RequestHead) -> Option<NewStream> {
        let route = self.routes.iter().find(|route| route.path == head.uri.path())?;
        let subscription = match &route.subscription {
            Some(subscription) => Some(subscription(head)?),
            None => None,
        };
        let stream = http::stream::open(&self.hub, head, subscription)?;
        self.hub.shared().metrics.opened_raw.fetch_add(1, Ordering::Relaxed);
        Some(stream)
    }
}
