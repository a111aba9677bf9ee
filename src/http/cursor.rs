//! `GET /cursor`: the position now, for a page to open its stream with.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use serde::Serialize;

use super::{refusal::Refusal, stream::query};
use crate::{access::Action, hub::Hub};

#[derive(Serialize)]
pub(crate) struct CursorAnswer {
    cursor: String,
    /// Milliseconds since 1970.
    timestamp: u64,
}

/// Takes the query of a stream.
pub(crate) async fn get(
    hub: Data<Hub>,
    request: HttpRequest,
) -> Result<Json<CursorAnswer>, Refusal> {
    let query = query(request.head())?;
    let subscription = query.subscription().or_options(query.options(request.head())?);
    let caller = hub.caller(request.head(), Action::Subscribe(subscription.names())).await?;
    let cursor = caller.cursor(subscription).await?;
    let timestamp = cursor.unix_ms.unwrap_or_default();
    Ok(Json(CursorAnswer { cursor: cursor.to_string(), timestamp }))
}
