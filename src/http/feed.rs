//! `GET /feed?user=…`: the stream of a user's own notifications and of the posts of followed
//! authors.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, dev::RequestHead, web::Data};
use fanfare_core::{
    access::Grant,
    error::{ErrorCode, SubscribeError},
    subscription::{StreamOptions, Subscription},
    user::User,
};

use super::{
    refusal::{Refusal, stream_refusal},
    stream::{StreamQuery, query, stream_response},
    upgrade::refuse_websocket,
};
use crate::{
    hub::{Hub, UseKind},
    transport::NewStream,
};

/// `GET`: the query names the user. A feed is for its user only.
pub(crate) async fn get(hub: Data<Hub>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let query = query(request.head())?;
    let [name] = &query.user[..] else {
        return Err(Refusal::new(ErrorCode::BadUser, "a feed has one `user`"));
    };
    refuse_websocket(request.head())?;
    let (user, options) = (User::parse(name)?, query.options(request.head())?);
    match open(&hub, request.head(), &query, user, options).await {
        Ok(stream) => Ok(stream_response(&request, stream.spawn())),
        Err(error) => Err(stream_refusal(request.head(), error)),
    }
}

/// Opens the feed of a caller.
async fn open(
    hub: &Hub,
    head: &RequestHead,
    query: &StreamQuery,
    user: User,
    options: StreamOptions,
) -> Result<NewStream, SubscribeError> {
    // A ticket's first id is one of the user's own notifications.
    let own = Subscription::new().topic(user.notifications().as_str());
    let own = own.or_options(options.clone());
    let admission = hub.admit(head, query.ticket(), &own, UseKind::Feed).await?;
    let share = hub.parts().stream_share(head)?;
    let stream = hub.create_feed(user, options, share, &admission.grant).await?;
    hub.begin(admission, stream, UseKind::Feed).await
}

/// An embedder's feed: the application's login names the user.
pub(crate) async fn of(
    hub: &Hub,
    request: &HttpRequest,
    user: &str,
) -> Result<HttpResponse, Refusal> {
    let grant = hub.parts().access.grant_of_handler(Some(User::parse(user)?));
    answer(hub, request, user, &query(request.head())?, &grant).await
}

/// Creates a feed for a transport with its own loop: for `user`, else for the query's user. `None`
/// if it is refused: the endpoint then answers.
pub(crate) async fn create(hub: &Hub, head: &RequestHead, user: Option<&str>) -> Option<NewStream> {
    let query = query(head).ok()?;
    let name = match (user, &query.user[..]) {
        (Some(name), _) => name,
        (None, [name]) => name,
        (None, _) => return None,
    };
    let by_application = user.is_some();
    let (user, options) = (User::parse(name).ok()?, query.options(head).ok()?);
    if !by_application {
        return open(hub, head, &query, user, options).await.ok();
    }
    let grant = hub.parts().access.grant_of_handler(Some(user.clone()));
    let share = hub.parts().stream_share(head).ok()?;
    hub.create_feed(user, options, share, &grant).await.ok()
}

async fn answer(
    hub: &Hub,
    request: &HttpRequest,
    name: &str,
    query: &StreamQuery,
    grant: &Arc<Grant>,
) -> Result<HttpResponse, Refusal> {
    refuse_websocket(request.head())?;
    let user = User::parse(name)?;
    let options = query.options(request.head())?;
    let refused = |error| stream_refusal(request.head(), error);
    let share = hub.parts().stream_share(request.head()).map_err(refused)?;
    let reader = hub.spawn_feed(user, options, share, grant).await.map_err(refused)?;
    Ok(stream_response(request, reader))
}
