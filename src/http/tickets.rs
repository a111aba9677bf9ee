//! `POST /tickets`: a ticket for clients unable to send headers, such as `EventSource`.

use actix_web::{
    HttpRequest,
    web::{Data, Json, Payload},
};
use serde::{Deserialize, Serialize};

use super::{
    body::{self, object},
    media_type::media_type,
    origin::caller_of_change,
    refusal::{Refusal, bad_json},
};
use crate::hub::Hub;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TicketBody {
    /// Narrows the ticket to these topics and patterns.
    topics: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TicketAnswer {
    ticket: String,
    /// Time for its first use.
    expires_ms: u64,
}

/// Issues a ticket with the caller's grant, or a part of it.
pub(crate) async fn post(
    hub: Data<Hub>,
    request: HttpRequest,
    payload: Payload,
) -> Result<Json<TicketAnswer>, Refusal> {
    let caller = caller_of_change(&hub, &request).await?;
    let body = body::read_subscription(&hub, &request, payload).await?;
    let body: TicketBody = match body.trim_ascii().is_empty() {
        true => TicketBody::default(),
        false => {
            media_type(&request)?;
            body.decode(|json| object(json).map_err(bad_json)).await?.1
        }
    };
    let issued = caller.ticket(body.topics).await?;
    Ok(Json(TicketAnswer { ticket: issued.name, expires_ms: issued.window_ms }))
}
