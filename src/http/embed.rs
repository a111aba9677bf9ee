//! The hub's methods for actix-web applications: routes, streams as responses, and the hook
//! for new connections.

use std::any::Any;

use actix_web::{HttpRequest, HttpResponse, ResponseError, dev::Extensions, web::ServiceConfig};
use fanfare_core::subscription::Subscription;

use super::{feed, operations, routes, stream, streams};
use crate::{hub::Hub, transport};

impl Hub {
    /// All endpoints under a prefix, for [`actix_web::App::configure`]: `/stream`, `/publish`,
    /// `/streams/{clientId}/topics`, `/topics/{topic}`, `/fanout`, `/feed`, followers and
    /// preferences, `/health/live`, `/health/ready`, `/stats` and `/metrics`. Anybody with access
    /// to the paths may use them: put the application's own login in front of private ones.
    pub fn routes(&self, prefix: &str) -> impl FnOnce(&mut ServiceConfig) + use<> {
        routes(self.clone(), prefix.to_owned())
    }

    /// The endpoints of streams, publishing and followers under a prefix, without those for
    /// operators.
    pub fn stream_routes(&self, prefix: &str) -> impl FnOnce(&mut ServiceConfig) + use<> {
        let (hub, prefix) = (self.clone(), prefix.to_owned());
        move |config| streams(config, &hub, &prefix)
    }

    /// The endpoints for operators under a prefix: `/health/live`, `/health/ready`, `/stats`
    /// and `/metrics`.
    pub fn operation_routes(&self, prefix: &str) -> impl FnOnce(&mut ServiceConfig) + use<> {
        let (hub, prefix) = (self.clone(), prefix.to_owned());
        move |config| operations(config, &hub, &prefix)
    }

    /// Opens a stream as the answer to a request. Its topics are the subscription's. From the
    /// request come `Last-Event-ID` and, if the subscription leaves them open, the query's `types`,
    /// `batch` and `snapshot`.
    ///
    /// Call it on an actix-web worker. The response is the stream, or a refusal with a stable code.
    pub fn stream(&self, request: &HttpRequest, subscription: Subscription) -> HttpResponse {
        let answer = stream::answer(self, request, subscription);
        answer.unwrap_or_else(|refusal| refusal.error_response())
    }

    /// Opens a user's feed as the answer to a request: the user's own notifications, and the
    /// posts of the authors followed by the user. The feed changes with the follow graph.
    /// Options come from the request, as with [`Self::stream`].
    pub async fn feed(&self, request: &HttpRequest, user: &str) -> HttpResponse {
        let answer = feed::of(self, request, user).await;
        answer.unwrap_or_else(|refusal| refusal.error_response())
    }

    /// For [`actix_web::HttpServer::on_connect`]: the kernel then ends a connection whose client
    /// acknowledges nothing, or has no room, for `stream.write_timeout`. Without it, a vanished
    /// client holds its socket for a quarter of an hour, and a client not reading holds it forever.
    pub fn on_connect(&self) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static + use<> {
        let timeout = self.parts().config.stream.write_timeout;
        move |connection, _| transport::limit_unsent(connection, timeout)
    }
}
