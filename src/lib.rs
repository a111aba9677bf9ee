//! Server-Sent Events for very many connections, inside any actix-web application.
//!
//! ```text
//! publisher ─ Hub::publish ─▶ Partition (1 of 16)        sequence, history, idempotency
//!                                │ one message per worker that has listeners
//!                                ▼
//!                           TopicManager (1 per worker)  subscriber sets, patterns, the tick
//!                                │ on the tick: one message per connection
//!                                ▼
//!                           Connection (1 per stream)    cursor, rate limiter, outbox
//! ```
//!
//! With `redis.url` set, sequences and history are in Redis, and all hubs on it act as one.
//!
//! ```no_run
//! use actix_web::{App, HttpRequest, HttpServer, Responder, web};
//! use fanfare::{Config, Event, Hub, Subscription};
//!
//! async fn my_stream(hub: web::Data<Hub>, request: HttpRequest) -> impl Responder {
//!     hub.stream(&request, Subscription::new().topic("notifications:42"))
//! }
//!
//! #[actix_web::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let hub = Hub::start(Config::default())?;
//!     let app_hub = hub.clone();
//!     let server = HttpServer::new(move || {
//!         App::new()
//!             .configure(app_hub.routes("/events"))
//!             .route("/me", web::get().to(my_stream))
//!     });
//!     let server = server.on_connect(hub.on_connect()).h1_allow_half_closed(false);
//!     let server = server.bind("127.0.0.1:8080")?.run();
//!     hub.publish("notifications:42", Event::text("hello")).await?;
//!     Ok(server.await?)
//! }
//! ```
//!
//! `h1_allow_half_closed(false)` lets the server see at once that a client is gone, and
//! `on_connect` has the kernel end connections whose clients vanished without a word.
//!
//! [`Server`] runs such an application and answers its streams on the bare socket, at a
//! fraction of the memory.
//!
//! # Layout
//! Dependencies run downwards only; `ARCHITECTURE.md` tells the rest.
//! - `cli`: the `fanfare` command; `server`: [`Server`]
//! - `http`: the endpoints, a file each
//! - [`Hub`]: starts the actors, the handle that applications hold
//! - `transport`: what carries a stream's bytes; `bridge`: the seam to other instances
//! - [`follow`]: who follows whom, and what users have muted
//! - `actors`: `partition`, `topic_manager`, `connection`
//! - `wire`: the bytes of an event stream
//! - `domain`: what decides, as plain code
//! - [`config`]: every key, its default and its bounds

#![forbid(unsafe_code)]

mod actors;
mod bridge;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
mod domain;
mod error;
pub mod follow;
mod http;
mod hub;
mod metrics;
mod process;
mod server;
mod subscription;
#[cfg(test)]
mod testing;
mod transport;
mod wire;

pub use config::Config;
pub use domain::{
    event::{Event, EventError},
    topic::{Topic, TopicError},
};
pub use error::{ChangeError, FanOutError, FollowError, PublishError, StartError, SubscribeError};
pub use hub::{FanOutMode, FanOutReport, Hub, HubBuilder, Published};
pub use server::Server;
pub use subscription::Subscription;
