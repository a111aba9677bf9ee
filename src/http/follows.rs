//! `PUT` and `DELETE /follows/{follower}/{author}`: one user follows another, or no longer.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde::Serialize;

use super::{names::last_segments, origin::refuse_other_sites, refusal::Refusal};
use crate::hub::Hub;

/// The answer.
#[derive(Serialize)]
struct EdgeAnswer {
    success: bool,
    follower: String,
    author: String,
    /// Whether it was otherwise before.
    changed: bool,
}

/// Follows.
pub(crate) async fn put(hub: Data<Hub>, request: HttpRequest) -> HttpResponse {
    answer(&request, async |[follower, author]| hub.follow(follower, author).await).await
}

/// Unfollows.
pub(crate) async fn delete(hub: Data<Hub>, request: HttpRequest) -> HttpResponse {
    answer(&request, async |[follower, author]| hub.unfollow(follower, author).await).await
}

async fn answer(
    request: &HttpRequest,
    change: impl AsyncFn([&str; 2]) -> Result<bool, crate::error::FollowError>,
) -> HttpResponse {
    let changed = async {
        refuse_other_sites(request)?;
        let [follower, author] = last_segments(request)?;
        let changed = change([&follower, &author]).await.map_err(|error| Refusal::from(&error))?;
        Ok(EdgeAnswer { success: true, follower, author, changed })
    };
    match changed.await {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(refusal) => Refusal::response(&refusal),
    }
}
