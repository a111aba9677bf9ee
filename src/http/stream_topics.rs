//! `POST /streams/{clientId}/topics`: changes the topics of an open stream.

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Path, Payload},
};
use serde::{Deserialize, Serialize};

use super::{
    body::{self, MAX_SUBSCRIPTION_BYTES, object},
    origin::refuse_other_sites,
    refusal::Refusal,
};
use crate::hub::Hub;

/// What a body says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    add: Vec<String>,
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Serialize)]
struct Answer {
    success: bool,
    /// All that the stream has now.
    topics: Vec<String>,
}

/// Adds and removes; what is in both is there afterwards.
pub(crate) async fn post(
    hub: Data<Hub>,
    request: HttpRequest,
    client: Path<String>,
    payload: Payload,
) -> HttpResponse {
    change(&hub, &request, &client, payload).await.unwrap_or_else(|refusal| refusal.response())
}

async fn change(
    hub: &Hub,
    request: &HttpRequest,
    client: &str,
    payload: Payload,
) -> Result<HttpResponse, Refusal> {
    refuse_other_sites(request)?;
    let body = body::read(payload, MAX_SUBSCRIPTION_BYTES).await?;
    let body: Body = object(&body)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "bad_json", error.to_string()))?;
    let topics = hub.change_topics(client, &body.add, &body.remove).await;
    let topics = topics.map_err(|error| Refusal::from(&error))?;
    Ok(HttpResponse::Ok().json(Answer { success: true, topics }))
}
