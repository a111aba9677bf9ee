//! The hub's methods for actix-web applications: routes, streams as responses, and the hook for new
//! connections.

use std::any::Any;

use actix_web::{HttpRequest, HttpResponse, ResponseError, dev::Extensions};
use fanfare_core::subscription::Subscription;

use super::{Routes, feed, poll, refusal::Refusal, routes, stream};
use crate::{hub::Hub, transport};

impl Hub {
    /// The endpoints under a prefix, for [`actix_web::App::configure`]. Only the named groups are
    /// mounted: `hub.routes("/events")` mounts none, `hub.routes("/events").streams()` those of
    /// subscribers; see [`Routes`]. It also registers the hub: handlers of the application take
    /// it as [`web::Data<Hub>`](actix_web::web::Data).
    pub fn routes(&self, prefix: &str) -> Routes {
        routes::of(self.clone(), prefix)
    }

    /// Opens a stream as the response to a request. The subscription names the topics. Options not
    /// set there come from the request: `Last-Event-ID`, and `types`, `batch` and `snapshot` of the
    /// query.
    ///
    /// Call it on an actix-web worker: the stream stays on this thread. The response is the stream,
    /// or a refusal with a stable code. To a browser's `EventSource` a temporary refusal is a short
    /// stream with a retry time, since `EventSource` gives up on an error status.
    pub fn stream(&self, request: &HttpRequest, subscription: Subscription) -> HttpResponse {
        let answer = self.try_stream(request, subscription);
        answer.unwrap_or_else(|refusal| refusal.error_response())
    }

    /// [`Self::stream`], with a refusal as an error. The refusal is a response too.
    ///
    /// # Errors
    /// An invalid subscription or query, a limit reached, a hub draining or without its Redis.
    pub fn try_stream(
        &self,
        request: &HttpRequest,
        subscription: Subscription,
    ) -> Result<HttpResponse, Refusal> {
        stream::answer(self, request, subscription)
    }

    /// Answers a poll (`GET /poll`): waits for an event of the subscription, at most for the `wait`
    /// of the query. Options and rules are those of [`Self::stream`]; a refusal has its status for
    /// every client.
    pub async fn poll(&self, request: &HttpRequest, subscription: Subscription) -> HttpResponse {
        let answer = poll::answer(self, request, subscription).await;
        answer.unwrap_or_else(|refusal| refusal.error_response())
    }

    /// Opens a user's feed as the response to a request: the user's own notifications, and the
    /// posts of all followed authors, without the user's muted kinds. The open feed follows every
    /// change of the follow graph and of the preferences. Options come from the request; rules for
    /// the worker and for refusals are those of [`Self::stream`].
    pub async fn feed(&self, request: &HttpRequest, user: &str) -> HttpResponse {
        let answer = self.try_feed(request, user).await;
        answer.unwrap_or_else(|refusal| refusal.error_response())
    }

    /// [`Self::feed`], with a refusal as an error. The refusal is a response too.
    ///
    /// # Errors
    /// As [`Self::try_stream`]; also an invalid user, or a follow graph unavailable.
    pub async fn try_feed(
        &self,
        request: &HttpRequest,
        user: &str,
    ) -> Result<HttpResponse, Refusal> {
        feed::of(self, request, user).await
    }

    /// Answers a poll of a user's feed: [`Self::poll`] with the events of [`Self::feed`].
    pub async fn poll_feed(&self, request: &HttpRequest, user: &str) -> HttpResponse {
        let answer = feed::poll_of(self, request, user).await;
        answer.unwrap_or_else(|refusal| refusal.error_response())
    }

    /// A hook for [`actix_web::HttpServer::on_connect`]. The kernel then ends a connection after
    /// `stream.write_timeout` without progress: its client acknowledges nothing, or has no room.
    /// Without the hook, a vanished client holds its socket for a quarter of an hour, and a client
    /// not reading holds it forever. [`Server`](crate::Server) sets it by itself.
    pub fn on_connect(&self) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static + use<> {
        let timeout = self.parts().config.stream.write_timeout;
        move |connection, _| transport::limit_unsent(connection, timeout)
    }
}
