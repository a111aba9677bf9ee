//! `GET /feed?user=…`: the stream of a user's own notifications and of the posts of followed
//! authors. `GET /feed/poll?user=…` answers a poll of the same events.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, dev::RequestHead, web::Data};
use fanfare_core::{
    access::Grant,
    error::{ErrorCode, SubscribeError},
    subscription::{Format, StreamOptions, Subscription},
    user::User,
};

use super::{
    poll::{wait_for, wait_of},
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
    let user = one_user(&query)?;
    refuse_websocket(request.head())?;
    let options = query.options(request.head())?;
    match open(&hub, request.head(), &query, user, options, UseKind::Feed).await {
        Ok(stream) => Ok(stream_response(&request, stream.start())),
        Err(error) => Err(stream_refusal(request.head(), error)),
    }
}

/// `GET /feed/poll`: the query names the user.
pub(crate) async fn poll(hub: Data<Hub>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let head = request.head();
    let query = query(head)?;
    let (user, options, wait) = (one_user(&query)?, poll_options(&query, head)?, wait_of(&query)?);
    let stream = open(&hub, head, &query, user, options, UseKind::FeedPoll).await?;
    wait_for(&hub, stream, wait).await
}

/// An embedder's poll of a feed: the application's login names the user.
pub(crate) async fn poll_of(
    hub: &Hub,
    request: &HttpRequest,
    user: &str,
) -> Result<HttpResponse, Refusal> {
    let head = request.head();
    let (query, user) = (query(head)?, User::parse(user)?);
    let (options, wait) = (poll_options(&query, head)?, wait_of(&query)?);
    let grant = hub.parts().access.grant_of_handler(Some(user.clone()));
    let share = hub.parts().stream_share(head)?;
    let stream = hub.create_feed(user, options, share, &grant).await?;
    wait_for(hub, stream, wait).await
}

fn one_user(query: &StreamQuery) -> Result<User, Refusal> {
    match &query.user[..] {
        [name] => Ok(User::parse(name)?),
        _ => Err(Refusal::new(ErrorCode::BadUser, "a feed has one `user`")),
    }
}

fn poll_options(query: &StreamQuery, head: &RequestHead) -> Result<StreamOptions, Refusal> {
    refuse_websocket(head)?;
    Ok(StreamOptions { format: Some(Format::Poll), ..query.options(head)? })
}

/// Opens the feed of a caller.
async fn open(
    hub: &Hub,
    head: &RequestHead,
    query: &StreamQuery,
    user: User,
    options: StreamOptions,
    kind: UseKind,
) -> Result<NewStream, SubscribeError> {
    // A ticket's first id is one of the user's own notifications.
    let own = Subscription::new().topic(user.notifications().as_str());
    let own = own.or_options(options.clone());
    let admission = hub.admit(head, query.ticket(), &own, kind).await?;
    let share = hub.parts().stream_share(head)?;
    let stream = hub.create_feed(user, options, share, &admission.grant).await?;
    hub.begin(admission, stream, kind).await
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
        return open(hub, head, &query, user, options, UseKind::Feed).await.ok();
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
