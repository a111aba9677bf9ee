//! A Server-Sent Events hub for very many connections, inside any actix-web application.
//!
//! [`Hub`] is the runtime: publish events with it, and open streams in handlers with
//! [`Hub::stream`] and [`Hub::feed`], or mount the hub's own endpoints with [`Hub::routes`].
//!
//! ```text
//! publisher ─ Hub::publish ─▶ Partition (1 of 16)        sequence, history, idempotency
//!                                │ one message per worker with listeners
//!                                ▼
//!                           TopicManager (1 per worker)  subscriber sets, patterns, the tick
//!                                │ on the tick: one message per connection
//!                                ▼
//!                           Connection (1 per stream)    cursor, rate limiter, outbox
//! ```
//!
//! With `redis.url` set, sequences and history are in Redis, and all hubs with the same Redis and
//! the same prefix act as one hub.
//!
//! ```no_run
//! use actix_web::{App, HttpRequest, HttpServer, Responder, web};
//! use fanfare::{Config, Event, Hub, Subscription};
//!
//! async fn my_stream(hub: Hub, request: HttpRequest) -> impl Responder {
//!     hub.stream(&request, Subscription::new().topic("notifications:42"))
//! }
//!
//! #[actix_web::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let hub = Hub::start(Config::default())?;
//!     let data = web::Data::new(hub.clone());
//!     let server = HttpServer::new(move || {
//!         App::new().app_data(data.clone()).route("/me", web::get().to(my_stream))
//!     });
//!     let server = hub.attach(server).bind("127.0.0.1:8080")?.run();
//!     hub.publish("notifications:42", Event::text("hello")).await?;
//!     Ok(server.await?)
//! }
//! ```
//!
//! With [`Hub::attach`], the server drains the hub when it stops, and notices clients that are gone.
//!
//! [`Server`] runs such an application in the same way, and answers its streams on the bare socket,
//! at a fraction of the memory.

#![forbid(unsafe_code)]

mod access;
mod actors;
mod addresses;
mod clock;
mod cluster;
pub mod config;
mod error;
mod fan_out;
pub mod follow;
mod hops;
mod http;
mod hub;
mod ids;
mod instances;
mod lifecycle;
mod log;
mod metrics;
mod process;
mod publisher;
#[cfg(feature = "redis")]
mod redis;
mod request_budget;
mod revocations;
mod server;
mod stream_reports;
#[cfg(feature = "log")]
mod tables;
pub mod testing;
mod threads;
#[cfg(feature = "tokens")]
mod tokens;
mod topics;
mod transport;
mod users;
#[cfg(feature = "tokens")]
mod web_client;
#[cfg(feature = "tokens")]
mod webhook;

pub use access::{Authorization, Authorizer, Denied};
pub use config::Config;
pub use error::{ChangeError, FanOutError, FollowError, PublishError, StartError, SubscribeError};
pub use fan_out::{FanOutMode, FanOutReport};
pub use fanfare_core::{
    access::Revoked,
    cluster::{StreamFilter, StreamInfo},
    event::{Event, EventError},
    publish::Published,
    sse::ShutdownReason,
    subscription::Subscription,
    topic::{Topic as TopicName, TopicError},
};
pub use http::{Mount, Refusal, Routes, operator::OperatorsListener};
pub use hub::{Hub, HubBuilder, RevokeError};
pub use server::{Hosts, Server};
#[cfg(feature = "tls")]
pub use server::{Tls, TlsError};
pub use stream_reports::{StreamChange, StreamReport};
pub use topics::{Topic, Topics};
