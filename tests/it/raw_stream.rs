//! Requests for raw streams. Clients see no difference to the framework's answers.

mod answer;
mod manners;
mod odd_heads;

use super::Server;
use crate::support::{Stream, server};

/// The number of raw streams so far.
async fn raw_streams(server: &Server) -> f64 {
    server.metric("fanfare_raw_streams_opened_total").await
}

/// The same server with streams over the framework's body.
async fn framework() -> server::ServerOver<server::Body> {
    server::ServerOver::start(&["--no-demo"]).await
}

#[tokio::test]
async fn a_stream_is_answered_on_the_bare_socket_unless_that_is_turned_off() {
    let (raw, framework) = (Server::start(&["--no-demo"]).await, framework().await);
    for addr in [raw.addr, framework.addr] {
        Stream::subscribe(addr, "topic=a").await;
    }
    assert_eq!(raw_streams(&raw).await, 1.0);
    assert_eq!(framework.metric("fanfare_raw_streams_opened_total").await, 0.0);
}
