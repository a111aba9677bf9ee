//! `POST /fanout`: delivers an event to an author's followers.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use serde::Serialize;

use super::{
    body,
    incoming::parse_fan_out,
    media_type::media_type,
    origin::{caller_of_change, publisher_of},
    refusal::Refusal,
};
use crate::{fan_out::FanOutReport, hub::Hub};

#[derive(Serialize)]
struct FanOutAnswer {
    success: bool,
    #[serde(flatten)]
    report: FanOutReport,
}

/// Answers once every follower's event is in history.
pub(crate) async fn post(
    hub: Data<Hub>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Refusal> {
    let caller = caller_of_change(&hub, &request).await?;
    media_type(&request)?;
    let max_bytes = body::max_line_bytes(hub.parts().config.publish.max_payload);
    let body = body::read(&hub, &request, payload, max_bytes).await?;
    let (_held, incoming) = body.decode(parse_fan_out).await?;
    let event = incoming.event.publisher(publisher_of(&hub, &request));
    let report =
        caller.acting_as(&incoming.author)?.fan_out(incoming.author, event, incoming.mode).await?;
    Ok(HttpResponse::Ok().json(FanOutAnswer { success: true, report }))
}
