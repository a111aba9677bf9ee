//! Everything visible from outside, against real servers, sockets and browsers.

#![allow(clippy::duplicate_mod, reason = "`over_body` and `one_by_one` compile modules again")]

mod support;

mod access;
mod access_examples;
mod access_tokens;
mod addresses;
mod bad_input;
mod bench;
mod browsers;
mod command_line;
mod commands;
mod cost;
mod cross_origin;
mod cursor_time;
mod cut_replays;
mod delivery;
mod deploy;
mod documented;
mod documented_rust;
mod durable;
mod durable_cleaning;
mod embedded_access;
mod embedding;
mod feeds;
mod follows;
mod foreign_pages;
mod granted_events;
mod hand_over;
mod https;
mod key_sets;
mod keyed;
mod live_topics;
mod log_faults;
mod log_on_disk;
mod one_by_one;
mod operations;
mod over_body;
mod own_server;
mod plain_publishes;
mod poll;
mod proxies;
mod publish;
mod python_client;
mod raw_stream;
mod redis;
mod refusals;
mod renewal_load;
mod replays;
mod requests;
mod resume;
mod shutdown;
mod slow_reader;
mod slow_requests;
mod snippets;
mod stalled_reader;
mod storm;
mod streams_at_load;
mod subscribe;
mod terminal;
mod testing_clock;
mod tickets;
mod tidy;
mod tls;
mod tokens;
mod webhook;
mod webhook_streams;

/// The server under test in the modules below; `over_body` and `one_by_one` use others.
use support::Server;
