//! Shared by the tests: real servers, a strict client, waiting.
//!
//! Nothing here uses fanfare's own code: a mistake there could hide itself.

pub mod chaos;
pub mod crowd;
pub mod directory;
pub mod disk_faults;
pub mod example;
pub mod fleet;
pub mod heavy;
pub mod http;
pub mod instances;
pub mod keyed_writer;
pub mod message;
pub mod ports;
pub mod process;
pub mod redis;
pub mod relay;
pub mod repository;
pub mod server;
pub mod social;
pub mod sse;
pub mod synced_map;
pub mod tokens;
pub mod wait;
pub mod web;

pub use self::redis::RedisServer;
pub use example::Example;
pub use heavy::{browser_turn, heavy};
pub use http::publish;
pub use instances::Instances;
pub use repository::repository;
pub use server::{Launch, Server};
pub use sse::{Event, Stream};
pub use wait::until;
