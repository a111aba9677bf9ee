//! The paths answered on the bare socket, and the opening of their streams.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::{dev::RequestHead, http::header::ORIGIN};

use super::Hosts;
use crate::{
    Hub, Subscription, http,
    transport::{NewStream, PollSpec},
};

/// Reads a request's head; `None` leaves the request to the application.
type HeadFn<T> = Arc<dyn Fn(&RequestHead) -> Option<T> + Send + Sync>;

/// The kind of a path's streams.
pub(super) enum RouteKind {
    /// Topics from the query, or from the application's function.
    Topics(Option<HeadFn<Subscription>>),
    /// The user from the query, or from the application's function.
    Feed(Option<HeadFn<String>>),
    /// Polls with the topics of the query.
    Poll,
}

/// An opened stream, and how it is answered.
pub(super) enum Opened {
    Stream(NewStream),
    Poll(NewStream, PollSpec),
}

/// A path with raw streams.
pub(super) struct Route {
    pub path: String,
    pub kind: RouteKind,
}

/// All paths with raw streams, and their hub.
pub(super) struct Routes {
    pub hub: Hub,
    pub hosts: Option<Hosts>,
    pub routes: Vec<Route>,
    /// The path of publishes answered without the framework.
    pub publish_path: Option<String>,
}

impl Routes {
    pub fn has(&self, path: &str) -> bool {
        self.routes.iter().any(|route| route.path == path)
    }

    /// The CORS lines for a stream's head.
    pub fn cors_lines(&self, head: &RequestHead) -> String {
        http::cors::raw_lines(&self.hub.parts().config.cors, head)
    }

    /// The time limit for a client without progress.
    pub fn write_timeout(&self) -> Duration {
        self.hub.parts().config.stream.write_timeout
    }

    /// Opens the requested stream. `None` leaves the request to the application, also for a
    /// refusal: its endpoint writes the same error.
    pub async fn open(&self, head: &RequestHead) -> Option<Opened> {
        if self.hosts.as_ref().is_some_and(|hosts| !hosts.answers(head)) {
            return None;
        }
        // Without `[cors]`, the application's own CORS rules decide.
        let is_cross_origin = head.headers.contains_key(ORIGIN);
        if is_cross_origin && self.hub.parts().config.cors.origins.is_empty() {
            return None;
        }
        // Over the rate of its address, the application refuses the request.
        self.hub.parts().addresses.request(head.peer_addr, &head.headers).ok()?;
        let route = self.routes.iter().find(|route| route.path == head.uri.path())?;
        let stream = match &route.kind {
            RouteKind::Topics(None) => http::stream::create(&self.hub, head, None).await?,
            RouteKind::Topics(Some(chooser)) => {
                http::stream::create(&self.hub, head, Some(chooser(head)?)).await?
            }
            RouteKind::Feed(None) => http::feed::create(&self.hub, head, None).await?,
            RouteKind::Feed(Some(chooser)) => {
                let user = chooser(head)?;
                http::feed::create(&self.hub, head, Some(&user)).await?
            }
            RouteKind::Poll => {
                let (stream, spec) = http::poll::create(&self.hub, head).await?;
                self.hub.parts().metrics.opened_raw.fetch_add(1, Ordering::Relaxed);
                return Some(Opened::Poll(stream, spec));
            }
        };
        self.hub.parts().metrics.opened_raw.fetch_add(1, Ordering::Relaxed);
        Some(Opened::Stream(stream))
    }
}
