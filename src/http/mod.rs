//! The HTTP surface: all routes in one list, grouped for applications, and one file per endpoint. It uses the hub's methods
//! only, and no actor.

mod array_answer;
mod body;
pub(crate) mod cors;
mod cursor;
mod embed;
mod errors;
mod fan_out;
pub(crate) mod feed;
mod follow_import;
mod followers;
mod follows;
mod health;
mod incoming;
mod lines;
mod media_type;
mod names;
pub(crate) mod operator;
mod origin;
pub(crate) mod plain_publish;
pub(crate) mod poll;
mod preferences;
mod publish;
pub(crate) mod refusal;
mod refused;
pub(crate) mod registered;
mod revocations;
mod routes;
#[cfg(feature = "metrics")]
mod scrape;
mod stats;
pub(crate) mod stream;
mod stream_token;
mod stream_topics;
mod tickets;
mod topics;
mod upgrade;

use actix_web::{
    Error, Resource, Route,
    body::BoxBody,
    dev::{HttpServiceFactory, ServiceRequest, ServiceResponse},
    guard,
    middleware::{Condition, Next, from_fn},
    web::{self, Data, ServiceConfig},
};
use fanfare_core::error::ErrorCode;

pub use self::{
    refusal::Refusal,
    routes::{Mount, Routes},
};

use crate::{addresses::ShareInUse, hub::Hub};

/// The endpoints of subscribers.
fn streams(config: &mut ServiceConfig, hub: &Hub, prefix: &str) {
    let topic = web::route().guard(guard::Any(guard::Get()).or(guard::Head())).to(topics::get);
    let stream =
        [web::get().to(stream::get), web::head().to(stream::head), web::post().to(stream::post)];
    let poll = [web::get().to(poll::get), web::head().to(poll::head), web::post().to(poll::post)];
    config
        .service(resource(hub, prefix, "/stream", &["GET", "HEAD", "POST"], stream))
        .service(resource(hub, prefix, "/poll", &["GET", "HEAD", "POST"], poll))
        .service(resource(
            hub,
            prefix,
            "/streams/{client}/topics",
            &["POST"],
            [web::post().to(stream_topics::post)],
        ))
        .service(resource(
            hub,
            prefix,
            "/streams/{client}/token",
            &["POST"],
            [web::post().to(stream_token::post)],
        ))
        .service(resource(hub, prefix, "/cursor", &["GET"], [web::get().to(cursor::get)]))
        .service(resource(hub, prefix, "/tickets", &["POST"], [web::post().to(tickets::post)]))
        .service(resource(hub, prefix, "/topics/{topic}", &["GET", "HEAD"], [topic]));
}

/// The endpoints of publishers.
fn publishing(config: &mut ServiceConfig, hub: &Hub, prefix: &str) {
    config.service(resource(hub, prefix, "/publish", &["POST"], [web::post().to(publish::post)]));
}

/// The endpoints ending streams before their time.
fn revocations(config: &mut ServiceConfig, hub: &Hub, prefix: &str) {
    let (revoke, kick) =
        ([web::post().to(revocations::post)], [web::delete().to(revocations::kick)]);
    config.service(resource(hub, prefix, "/revocations", &["POST"], revoke)).service(resource(
        hub,
        prefix,
        "/streams/{client}",
        &["DELETE"],
        kick,
    ));
}

/// The endpoints of followers, preferences, feeds and fan-outs.
fn follows(config: &mut ServiceConfig, hub: &Hub, prefix: &str) {
    let get = || web::route().guard(guard::Any(guard::Get()).or(guard::Head()));
    let edge = [web::put().to(follows::put), web::delete().to(follows::delete)];
    let import = web::post().to(follow_import::post);
    let followers = get().to(followers::followers);
    let following = get().to(followers::following);
    let preferences = [get().to(preferences::get), web::put().to(preferences::put)];
    let (reads, changes): (&[_], &[_]) = (&["GET", "HEAD"], &["GET", "HEAD", "PUT"]);
    config
        .service(resource(hub, prefix, "/follows", &["POST"], [import]))
        .service(resource(hub, prefix, "/follows/{follower}/{author}", &["PUT", "DELETE"], edge))
        .service(resource(hub, prefix, "/followers/{author}", reads, [followers]))
        .service(resource(hub, prefix, "/following/{user}", reads, [following]))
        .service(resource(hub, prefix, "/preferences/{user}", changes, preferences))
        .service(resource(hub, prefix, "/fanout", &["POST"], [web::post().to(fan_out::post)]))
        .service(resource(hub, prefix, "/feed", &["GET"], [web::get().to(feed::get)]))
        .service(resource(hub, prefix, "/feed/poll", &["GET"], [web::get().to(feed::poll)]));
}

/// The endpoints of health.
fn health(config: &mut ServiceConfig, hub: &Hub, prefix: &str) {
    config
        .service(read_only(hub, prefix, "/health/live", web::to(health::live)))
        .service(read_only(hub, prefix, "/health/ready", web::to(health::ready)));
}

/// The endpoints of statistics and metrics.
fn statistics(config: &mut ServiceConfig, hub: &Hub, prefix: &str) {
    config.service(read_only(hub, prefix, "/stats", web::to(stats::stats)));
    #[cfg(feature = "metrics")]
    config.service(read_only(hub, prefix, "/metrics", web::to(scrape::get)));
}

/// A resource with `GET` and `HEAD`.
fn read_only(hub: &Hub, prefix: &str, path: &str, route: Route) -> impl HttpServiceFactory + use<> {
    let route = route.guard(guard::Any(guard::Get()).or(guard::Head()));
    resource(hub, prefix, path, &["GET", "HEAD"], [route])
}

/// A resource with this hub as its own data: the application may have other hubs. Other methods get
/// a 405 with the allowed ones.
fn resource<const N: usize>(
    hub: &Hub,
    prefix: &str,
    path: &str,
    methods: &'static [&'static str],
    routes: [Route; N],
) -> impl HttpServiceFactory + use<N> {
    let resource = web::resource(format!("{prefix}{path}")).app_data(Data::new(hub.clone()));
    let watching = hub.clone();
    let resource = routes.into_iter().fold(resource, Resource::route);
    let cors = &hub.parts().config.cors;
    resource
        .default_service(web::to(move || async { refusal::method_not_allowed(methods) }))
        .wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
            watch(watching.clone(), request, next)
        }))
        .wrap(Condition::new(!cors.origins.is_empty(), cors::middleware(cors)))
}

/// Counts a request for its client's address, and its refusal by access control.
async fn watch(
    hub: Hub,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let counted = hub.parts().addresses.request(request.peer_addr(), request.headers());
    if counted == Err(ShareInUse) {
        let message = "too many requests of this address";
        return Err(Refusal::new(ErrorCode::RateLimited, message).into());
    }
    let answer = next.call(request).await?;
    refused::count(&hub, &answer);
    Ok(answer)
}
