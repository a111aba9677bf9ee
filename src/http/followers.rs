//! `GET /followers/{author}` and `GET /following/{user}`: page by page.

use actix_web::{
    HttpRequest,
    web::{Data, Json, Query},
};
use fanfare_core::{error::ErrorCode, follow::Page, user::User};
use serde::{Deserialize, Serialize};

use super::{names::last_segments, origin::caller_of_read, refusal::Refusal};
use crate::{error::FollowError, hub::Hub};

/// Users in a page, unless the query says otherwise.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

#[derive(Deserialize)]
struct PageQuery {
    after: Option<String>,
    limit: Option<String>,
}

impl PageQuery {
    fn limit(&self) -> Result<usize, Refusal> {
        let Some(text) = &self.limit else { return Ok(DEFAULT_LIMIT) };
        let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
        limit.ok_or_else(|| bad_query(format!("`limit` is from 1 to {MAX_LIMIT}")))
    }
}

#[derive(Serialize)]
pub(crate) struct PageAnswer {
    user: String,
    count: u64,
    users: Vec<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A page of an author's followers, and their count.
pub(crate) async fn followers(
    hub: Data<Hub>,
    request: HttpRequest,
) -> Result<Json<PageAnswer>, Refusal> {
    let caller = caller_of_read(&hub, &request).await?;
    let operator = caller.operator()?;
    answer(&request, async |author, after, limit| operator.followers(author, after, limit).await)
        .await
}

/// A page of the authors followed by a user, and their count.
pub(crate) async fn following(
    hub: Data<Hub>,
    request: HttpRequest,
) -> Result<Json<PageAnswer>, Refusal> {
    let [user] = last_segments(&request)?;
    let caller = caller_of_read(&hub, &request).await?;
    let own = caller.acting_as(&user)?;
    answer(&request, async |user, after, limit| {
        let count = own.follow_counts(user).await?.following;
        Ok((count, own.following(user, after, limit).await?))
    })
    .await
}

async fn answer(
    request: &HttpRequest,
    read: impl AsyncFn(&str, Option<String>, usize) -> Result<(u64, Page), FollowError>,
) -> Result<Json<PageAnswer>, Refusal> {
    let [user] = last_segments(request)?;
    let query = Query::<PageQuery>::from_query(request.query_string());
    let query = query.map_err(|error| bad_query(error.to_string()))?.into_inner();
    let limit = query.limit()?;
    let (count, Page { users, next }) = read(&user, query.after, limit).await?;
    Ok(Json(PageAnswer { user, count, users, next }))
}

fn bad_query(message: String) -> Refusal {
    Refusal::new(ErrorCode::BadQuery, message)
}
