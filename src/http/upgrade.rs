//! Requests for WebSocket. The framework reads the rest of such a connection as the request's body,
//! and ends an answer without a length by closing; its head says chunked all the same.

use actix_web::{dev::RequestHead, http::header::UPGRADE};
use fanfare_core::error::ErrorCode;

use super::refusal::Refusal;

/// Refuses a request for WebSocket at once.
pub(crate) fn refuse_websocket(head: &RequestHead) -> Result<(), Refusal> {
    let asks = |protocols: &str| {
        protocols.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
    };
    let upgrades = head.headers.get_all(UPGRADE);
    if upgrades.filter_map(|value| value.to_str().ok()).any(asks) {
        let message = "the hub speaks no WebSocket; send the request without `Upgrade`";
        return Err(Refusal::new(ErrorCode::UpgradeUnsupported, message));
    }
    Ok(())
}
