//! `GET /feed?user=…`: the stream of a user's own notifications and of the posts of followed
//! authors.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, dev::RequestHead, web::Data};
use fanfare_core::{access::Grant, error::ErrorCode, user::User};

use super::{
    refusal::{Refusal, stream_refusal},
    stream::{StreamQuery, query, stream_response},
    upgrade::refuse_websocket,
};
use crate::{access::Action, hub::Hub, transport::NewStream};

/// `GET`: the query names the user. A feed is for its user only.
pub(crate) async fn get(hub: Data<Hub>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let query = query(request.head())?;
    let [name] = &query.user[..] else {
        return Err(Refusal::new(ErrorCode::BadUser, "a feed has one `user`"));
    };
    let topics = [format!("notifications:{name}")];
    let caller = hub.caller(request.head(), Action::Subscribe(&topics)).await;
    let grant = match caller {
        Ok(caller) => caller.grant().clone(),
        Err(error) => return Err(stream_refusal(request.head(), error.into())),
    };
    answer(&hub, &request, name, &query, &grant).await
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
    let user = User::parse(name).ok()?;
    let grant = if by_application {
        hub.parts().access.grant_of_handler(Some(user.clone()))
    } else {
        let topics = [user.notifications().as_str().to_owned()];
        hub.caller(head, Action::Subscribe(&topics)).await.ok()?.grant().clone()
    };
    let share = hub.parts().stream_share(head).ok()?;
    hub.create_feed(user, query.options(head).ok()?, share, &grant).await.ok()
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
