//! `POST /streams/{clientId}/topics`: changes the topics of an open stream.

use actix_web::{
    HttpRequest,
    web::{Data, Json, Path, Payload},
};
use serde::{Deserialize, Serialize};

use super::{
    body::{self, object},
    media_type::media_type,
    origin::caller_of_change,
    refusal::{Refusal, bad_json},
};
use crate::hub::Hub;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicsBody {
    #[serde(default)]
    add: Vec<String>,
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Serialize)]
pub(crate) struct TopicsAnswer {
    success: bool,
    /// All topics of the stream.
    topics: Vec<String>,
}

/// Adds and removes topics. A name in both lists is added.
pub(crate) async fn post(
    hub: Data<Hub>,
    request: HttpRequest,
    client: Path<String>,
    payload: Payload,
) -> Result<Json<TopicsAnswer>, Refusal> {
    let caller = caller_of_change(&hub, &request).await?;
    media_type(&request)?;
    let body = body::read_subscription(&hub, &request, payload).await?;
    let read = |json: &[u8]| object::<TopicsBody>(json).map_err(bad_json);
    let (_held, body) = body.decode(read).await?;
    let topics = caller.change_topics(&client, &body.add, &body.remove).await?;
    Ok(Json(TopicsAnswer { success: true, topics }))
}
