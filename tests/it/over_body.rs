//! The stream tests again, over the framework's body: both transports keep the same contract.

#[path = "access.rs"]
mod access;
#[path = "access_tokens.rs"]
mod access_tokens;
#[path = "bad_input.rs"]
mod bad_input;
#[path = "cross_origin.rs"]
mod cross_origin;
#[path = "cut_replays.rs"]
mod cut_replays;
#[path = "delivery.rs"]
mod delivery;
#[path = "granted_events.rs"]
mod granted_events;
#[path = "keyed.rs"]
mod keyed;
#[path = "poll.rs"]
mod poll;
#[path = "refusals.rs"]
mod refusals;
#[path = "renewal_load.rs"]
mod renewal_load;
#[path = "resume.rs"]
mod resume;
#[path = "shutdown.rs"]
mod shutdown;
#[path = "slow_reader.rs"]
mod slow_reader;
#[path = "stalled_reader.rs"]
mod stalled_reader;
#[path = "subscribe.rs"]
mod subscribe;
#[path = "webhook_streams.rs"]
mod webhook_streams;

type Server = crate::support::server::ServerOver<crate::support::server::Body>;
