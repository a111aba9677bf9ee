//! `POST /revocations` and `DELETE /streams/{clientId}`: ending streams before their time.

use actix_web::{
    HttpRequest,
    web::{Data, Json, Path, Payload},
};
use fanfare_core::{
    access::{Revoked, parse_user},
    cluster::StreamFilter,
    error::{ChangeError, ErrorCode},
    sse::ShutdownReason,
};
use serde::{Deserialize, Serialize};

use super::{
    body::{self, object},
    media_type::media_type,
    operator::admit_operator,
    refusal::{Refusal, bad_json},
};
use crate::hub::Hub;

/// Longest body.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// Longest `jti`.
const MAX_TOKEN_ID_BYTES: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RevocationBody {
    user: Option<String>,
    token_id: Option<String>,
    issued_before: Option<u64>,
}

impl RevocationBody {
    fn revoked(self) -> Result<Revoked, Refusal> {
        let bad = |message| Refusal::new(ErrorCode::BadJson, message);
        match (self.user, self.token_id, self.issued_before) {
            (Some(user), None, issued_before_s) => {
                let user = parse_user(&user)?.as_str().to_owned();
                Ok(Revoked::User { user, issued_before_s })
            }
            (None, Some(id), None) if id.len() <= MAX_TOKEN_ID_BYTES => Ok(Revoked::TokenId(id)),
            (None, Some(_), None) => Err(bad("a `tokenId` has at most 1,024 bytes")),
            _ => Err(bad("a revocation has `user`, `tokenId`, or `user` and `issuedBefore`")),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct EndedAnswer {
    success: bool,
    /// The number of ended streams.
    streams: usize,
}

/// Answers once no stream of the revoked tokens gets anything more, on any instance.
pub(crate) async fn post(
    hub: Data<Hub>,
    request: HttpRequest,
    payload: Payload,
) -> Result<Json<EndedAnswer>, Refusal> {
    let operator = admit_operator(&hub, &request).await?;
    media_type(&request)?;
    let body = body::read(&hub, &request, payload, MAX_BODY_BYTES).await?;
    let revoked = object::<RevocationBody>(&body).map_err(bad_json)?.revoked()?;
    Ok(Json(EndedAnswer { success: true, streams: operator.revoke(revoked).await? }))
}

/// Kicks one stream.
pub(crate) async fn kick(
    hub: Data<Hub>,
    request: HttpRequest,
    client: Path<String>,
) -> Result<Json<EndedAnswer>, Refusal> {
    let operator = admit_operator(&hub, &request).await?;
    let filter = StreamFilter::all().client(client.into_inner());
    let streams = operator.end_streams(filter, ShutdownReason::Kicked).await?;
    if streams == 0 {
        return Err(ChangeError::UnknownStream.into());
    }
    Ok(Json(EndedAnswer { success: true, streams }))
}
