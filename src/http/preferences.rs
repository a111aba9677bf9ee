//! `GET` and `PUT /preferences/{user}`: the kinds of events that a user has muted.

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Payload},
};
use serde::{Deserialize, Serialize};

use super::{
    body::{self, object},
    names::last_segments,
    origin::refuse_other_sites,
    refusal::Refusal,
};
use crate::hub::Hub;

/// Longest body: 64 kinds of 256 bytes, every byte escaped.
const MAX_BODY_BYTES: usize = 128 * 1024;

/// What a body says.
#[derive(Deserialize)]
struct Body {
    muted: Vec<String>,
}

/// The answer.
#[derive(Serialize)]
struct Preferences {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    success: bool,
    user: String,
    muted: Vec<String>,
}

/// What is muted.
pub(crate) async fn get(hub: Data<Hub>, request: HttpRequest) -> HttpResponse {
    answer(read(&hub, &request).await)
}

/// Mutes these kinds and no others.
pub(crate) async fn put(hub: Data<Hub>, request: HttpRequest, payload: Payload) -> HttpResponse {
    answer(replace(&hub, &request, payload).await)
}

async fn read(hub: &Hub, request: &HttpRequest) -> Result<Preferences, Refusal> {
    let [user] = last_segments(request)?;
    let muted = hub.muted(&user).await.map_err(|error| Refusal::from(&error))?;
    Ok(Preferences { success: false, user, muted })
}

async fn replace(
    hub: &Hub,
    request: &HttpRequest,
    payload: Payload,
) -> Result<Preferences, Refusal> {
    refuse_other_sites(request)?;
    let [user] = last_segments(request)?;
    let body = body::read(payload, MAX_BODY_BYTES).await?;
    let bad_json = |error: serde_json::Error| {
        Refusal::new(StatusCode::BAD_REQUEST, "bad_json", error.to_string())
    };
    let Body { mut muted } = object(&body).map_err(bad_json)?;
    muted.sort_unstable();
    muted.dedup();
    let set = hub.set_muted(&user, muted.clone()).await;
    set.map_err(|error| Refusal::from(&error))?;
    Ok(Preferences { success: true, user, muted })
}

fn answer(preferences: Result<Preferences, Refusal>) -> HttpResponse {
    match preferences {
        Ok(preferences) => HttpResponse::Ok().json(preferences),
        Err(refusal) => refusal.response(),
    }
}
