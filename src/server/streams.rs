//! Which requests are streams for the bare socket, and how they are opened.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::dev::RequestHead;

use crate::{Hub, Subscription, http, transport::NewStream};

/// What a request's head says; none where that is the application's to say.
type HeadFn<T> = Arc<dyn Fn(&RequestHead) -> Option<T> + Send + Sync>;

/// What kind of stream a path has.
pub(super) enum RouteKind {
    /// Of the topics that the query names, or of those of the subscription.
    Topics(Option<HeadFn<Subscription>>),
    /// Of the user that the query names, or that is logged in.
    Feed(Option<HeadFn<String>>),
}

/// A path whose streams may be answered on the bare socket.
pub(super) struct Route {
    pub path: String,
    pub kind: RouteKind,
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
        self.hub.parts().config.stream.write_timeout
    }

    /// Opens the stream that a request asks for. None if the application is to answer: also
    /// with a refusal, which it will find for itself.
    pub async fn open(&self, head: &RequestHead) -> Option<NewStream> {
        let route = self.routes.iter().find(|route| route.path == head.uri.path())?;
        let stream = match &route.kind {
            RouteKind::Topics(None) => http::stream::create(&self.hub, head, None)?,
            RouteKind::Topics(Some(told)) => {
                http::stream::create(&self.hub, head, Some(told(head)?))?
            }
            RouteKind::Feed(None) => http::feed::create(&self.hub, head, None).await?,
            RouteKind::Feed(Some(told)) => {
                let user = told(head)?;
                http::feed::create(&self.hub, head, Some(&user)).await?
            }
        };
        self.hub.parts().metrics.opened_raw.fetch_add(1, Ordering::Relaxed);
        Some(stream)
    }
}
