//! The configuration: one struct per section of `config/fanfare.toml`, the single source of the
//! defaults. Every value has one public field, with its unit and range.
//!
//! `load` reads the layers, `validate` checks the values.

mod access;
mod admin;
mod building;
mod cors;
mod delivery;
mod effective;
mod fanout;
mod history;
mod hub;
mod keys;
mod layers;
mod limits;
mod load;
mod log;
mod network;
mod outbox;
mod poll;
mod problems;
mod publish;
mod rate;
mod redis;
mod server;
mod specs;
mod stream;
mod tls;
mod topics;
mod tree;
mod units;
mod validate;

pub use access::{Access, AccessKey, AccessRule, Jwks, Secret, Webhook};
pub use admin::Admin;
pub use cors::Cors;
pub use delivery::Delivery;
pub use effective::EffectiveValue;
pub use fanfare_core::algorithm::Algorithm;
pub use fanfare_core::policy::{Conflate, Flush, Rate, SlowConsumer};
pub use fanout::FanOut;
pub use history::History;
pub use hub::HubLimits;
pub use layers::{Sources, process_environment};
pub use limits::Limits;
pub use log::{Log, LogSync};
pub(crate) use network::Network;
pub use outbox::Outbox;
pub use poll::Poll;
pub use problems::{ConfigProblems, Problem};
pub use publish::Publish;
pub use redis::Redis;
use serde::Deserialize;
pub use server::{Server, Transport};
pub use stream::Stream;
pub use tls::Tls;
pub use topics::{TopicHistory, TopicPolicy};

/// The whole configuration of a hub and of the process around it.
///
/// To change a few keys in code, start from [`Config::default`]; to read a file, the environment
/// and flags, use [`Config::load`]. [`Hub::start`](crate::Hub::start) validates it. Deserializing
/// requires every key except `topics`, and refuses unknown keys.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of sections")]
#[non_exhaustive]
pub struct Config {
    /// The process around the hub. Only `fanfare serve` reads it; [`Hub`](crate::Hub) ignores it.
    pub server: Server,
    /// The certificate. Only `fanfare serve` reads it.
    pub tls: Tls,
    /// The operators' listener. Only `fanfare serve` reads it.
    pub admin: Admin,
    /// Pages of other origins.
    pub cors: Cors,
    /// Who may subscribe, publish and manage.
    pub access: Access,
    /// The limits of one client address.
    pub limits: Limits,
    /// The bounds of the hub as a whole.
    pub hub: HubLimits,
    /// Times and limits of every stream: heartbeat, retry, lifetime, rate.
    pub stream: Stream,
    /// The bound on a stream's unread bytes.
    pub outbox: Outbox,
    /// The bound on the answer to one poll.
    pub poll: Poll,
    /// The history for replay.
    pub history: History,
    /// The limits of publishers.
    pub publish: Publish,
    /// The delivery of events to an author's followers.
    pub fanout: FanOut,
    /// The log on disk; unused with an empty `directory`.
    pub log: Log,
    /// The Redis linking this instance to others; unused with an empty `url`.
    pub redis: Redis,
    /// Flush and conflation of topics without their own policy.
    pub delivery: Delivery,
    /// Policies by pattern; the first matching pattern wins.
    #[serde(default)]
    pub topics: Vec<TopicPolicy>,
}

#[cfg(test)]
mod tests;
