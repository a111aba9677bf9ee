//! `GET` and `PUT /preferences/{user}`: a user's muted kinds.

use actix_web::{
    HttpRequest,
    web::{Data, Json, Payload},
};
use serde::{Deserialize, Serialize};

use super::{
    body::{self, object},
    media_type::media_type,
    names::last_segments,
    origin::{caller_of_change, caller_of_read},
    refusal::{Refusal, bad_json},
};
use crate::hub::Hub;

/// Longest body: 64 kinds of 256 bytes with every byte escaped.
const MAX_BODY_BYTES: usize = 128 * 1024;

/// The body of a `PUT`.
#[derive(Deserialize)]
struct PreferencesBody {
    muted: Vec<String>,
}

#[derive(Serialize)]
pub(crate) struct PreferencesAnswer {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    success: bool,
    user: String,
    muted: Vec<String>,
}

/// `GET`: the muted kinds, sorted.
pub(crate) async fn get(
    hub: Data<Hub>,
    request: HttpRequest,
) -> Result<Json<PreferencesAnswer>, Refusal> {
    let [user] = last_segments(&request)?;
    let caller = caller_of_read(&hub, &request).await?;
    let muted = caller.acting_as(&user)?.muted(&user).await?;
    Ok(Json(PreferencesAnswer { success: false, user, muted }))
}

/// `PUT`: replaces the muted kinds.
pub(crate) async fn put(
    hub: Data<Hub>,
    request: HttpRequest,
    payload: Payload,
) -> Result<Json<PreferencesAnswer>, Refusal> {
    let caller = caller_of_change(&hub, &request).await?;
    media_type(&request)?;
    let [user] = last_segments(&request)?;
    let own = caller.acting_as(&user)?;
    let body = body::read(&hub, &request, payload, MAX_BODY_BYTES).await?;
    let PreferencesBody { mut muted } = object(&body).map_err(bad_json)?;
    muted.sort_unstable();
    muted.dedup();
    own.set_muted(&user, muted.clone()).await?;
    Ok(Json(PreferencesAnswer { success: true, user, muted }))
}
