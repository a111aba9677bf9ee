//! `POST /streams/{clientId}/token`: a new token for an open stream.

use actix_web::{
    HttpRequest,
    web::{Data, Json, Path, Payload},
};
use serde::{Deserialize, Serialize};

use super::{
    body::{self, object},
    media_type::media_type,
    origin::refuse_other_sites,
    refusal::{Refusal, bad_json},
};
use crate::{access::Action, hub::Hub};

/// Longest body: a token, quoted.
const MAX_BODY_BYTES: usize = 64 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBody {
    token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenAnswer {
    success: bool,
    /// The remaining time of the new token.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    /// The topics not granted any more.
    removed: Vec<String>,
}

/// Takes the token from the body, else from the header or the cookie.
pub(crate) async fn post(
    hub: Data<Hub>,
    request: HttpRequest,
    client: Path<String>,
    payload: Payload,
) -> Result<Json<TokenAnswer>, Refusal> {
    refuse_other_sites(&hub, &request)?;
    let body = body::read(&hub, &request, payload, MAX_BODY_BYTES).await?;
    let token = match body.is_empty() {
        true => None,
        false => {
            media_type(&request)?;
            object::<TokenBody>(&body).map_err(bad_json)?.token
        }
    };
    // The old token in the header may have ended: the one in the body counts.
    let caller = match &token {
        Some(token) => hub.caller_with_token(token).await?,
        None => hub.caller(request.head(), Action::Subscribe(&[])).await?,
    };
    let removed = caller.renew(&client).await?;
    Ok(Json(TokenAnswer { success: true, expires_ms: caller.expires_ms(), removed }))
}
