//! `PUT` and `DELETE /follows/{follower}/{author}`: adds or removes an edge.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use serde::Serialize;

use super::{names::last_segments, origin::caller_of_change, refusal::Refusal};
use crate::{error::FollowError, hub::Hub};

#[derive(Serialize)]
pub(crate) struct EdgeAnswer {
    success: bool,
    follower: String,
    author: String,
    /// Whether the request changed the graph.
    changed: bool,
}

/// `PUT`: adds the edge.
pub(crate) async fn put(hub: Data<Hub>, request: HttpRequest) -> Result<Json<EdgeAnswer>, Refusal> {
    answer(&hub, &request, async |own, [follower, author]| own.follow(follower, author).await).await
}

/// `DELETE`: removes the edge.
pub(crate) async fn delete(
    hub: Data<Hub>,
    request: HttpRequest,
) -> Result<Json<EdgeAnswer>, Refusal> {
    answer(&hub, &request, async |own, [follower, author]| own.unfollow(follower, author).await)
        .await
}

async fn answer(
    hub: &Hub,
    request: &HttpRequest,
    change: impl AsyncFn(&Hub, [&str; 2]) -> Result<bool, FollowError>,
) -> Result<Json<EdgeAnswer>, Refusal> {
    let caller = caller_of_change(hub, request).await?;
    let [follower, author] = last_segments(request)?;
    let changed = change(caller.acting_as(&follower)?, [&follower, &author]).await?;
    Ok(Json(EdgeAnswer { success: true, follower, author, changed }))
}
