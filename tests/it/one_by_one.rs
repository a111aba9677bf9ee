//! The tests of delivery again, with streams sending for themselves: io_uring is off, as in most containers.

#[path = "delivery.rs"]
mod delivery;
#[path = "resume.rs"]
mod resume;
#[path = "stalled_reader.rs"]
mod stalled_reader;

type Server = crate::support::server::ServerOver<crate::support::server::RawAlone>;
