//! Everything that can be seen from outside, against real servers, sockets and browsers.

mod support;

mod bad_input;
mod bench;
mod browsers;
mod command_line;
mod delivery;
mod embedding;
mod feeds;
mod follows;
mod live_topics;
mod operations;
mod proxies;
mod publish;
mod redis;
mod resume;
mod shutdown;
mod stalled_reader;
mod storm;
mod streams_at_load;
mod subscribe;
mod tidy;
