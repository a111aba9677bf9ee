//! `GET /feed?user=…`: the stream of a user's own notifications and of the posts of whom the
//! user follows.

use actix_web::{HttpRequest, HttpResponse, dev::RequestHead, http::StatusCode, web::Data};

use super::{
    refusal::{Refusal, stream_refusal},
    stream::{StreamQuery, complete, query, stream_response},
};
use crate::{
    error::SubscribeError, follow::User, hub::Hub, subscription::Subscription, transport::NewStream,
};

/// The user is the query's: whoever is in front of this hub says who may ask for whom.
pub(crate) async fn get(hub: Data<Hub>, request: HttpRequest) -> HttpResponse {
    let options = match query(request.head()) {
        Ok(options) => options,
        Err(refusal) => return refusal.response(),
    };
    let [name] = &options.user[..] else {
        let message = "a feed is of one `user`";
        return Refusal::new(StatusCode::BAD_REQUEST, "bad_user", message).response();
    };
    answer(&hub, &request, name, &options).await
}

/// An embedder's feed: the user is the one that its own login knows.
pub(crate) async fn of(hub: &Hub, request: &HttpRequest, user: &str) -> HttpResponse {
    match query(request.head()) {
        Ok(options) => answer(hub, request, user, &options).await,
        Err(refusal) => refusal.response(),
    }
}

/// Opens a feed for a transport that runs it: of this user or, if none is given, the query's.
/// None if it is refused; the endpoint then answers with the refusal.
pub(crate) async fn open(hub: &Hub, head: &RequestHead, user: Option<&str>) -> Option<NewStream> {
    let options = query(head).ok()?;
    let name = match (user, &options.user[..]) {
        (Some(name), _) => name,
        (None, [name]) => name,
        (None, _) => return None,
    };
    let user = User::parse(name).ok()?;
    let subscription = complete(Subscription::new(), head, &options).ok()?;
    hub.begin_feed(user, subscription).await.ok()
}

async fn answer(
    hub: &Hub,
    request: &HttpRequest,
    name: &str,
    options: &StreamQuery,
) -> HttpResponse {
    let user = match User::parse(name) {
        Ok(user) => user,
        Err(error) => {
            let message = error.to_string();
            return Refusal::new(StatusCode::BAD_REQUEST, "bad_user", message).response();
        }
    };
    let subscription = match complete(Subscription::new(), request.head(), options) {
        Ok(subscription) => subscription,
        Err(refusal) => return refusal.response(),
    };
    let opened: Result<_, SubscribeError> = hub.open_feed(user, subscription).await;
    match opened {
        Ok(reader) => stream_response(request.head(), reader),
        Err(error) => stream_refusal(request.head(), &error),
    }
}
