//! Counts and logs the refusals of access control. A line has no token, ticket, cookie or query.

use std::fmt::Display;

use actix_web::dev::ServiceResponse;

use super::refusal::{Refusal, RefusedAccess};
use crate::hub::Hub;

/// Counts an answer, if it is a refusal of access control.
pub(super) fn count(hub: &Hub, answer: &ServiceResponse) {
    let refused = answer.response().extensions().get::<RefusedAccess>().copied();
    if let Some(RefusedAccess(reason)) = refused {
        let request = answer.request();
        let address = hub.parts().addresses.client(request.peer_addr(), request.headers());
        let address = address.map_or_else(|| "none".to_owned(), |address| address.to_string());
        // The pattern of the path: a client id in the path opens the stream's topics.
        let path = request.match_pattern().unwrap_or_default();
        note(hub, reason, &format_args!("{} {path} from {address}", request.method()));
    }
}

/// Counts the refusal of one line of NDJSON.
pub(super) fn count_line(hub: &Hub, refusal: &Refusal) {
    if let Some(reason) = refusal.access_reason() {
        note(hub, reason, &"a line of NDJSON");
    }
}

fn note(hub: &Hub, reason: &'static str, request: &dyn Display) {
    if let Some(count) = hub.parts().metrics.refusals.count(reason) {
        tracing::info!(reason, count, %request, "refused by access control");
    }
}
