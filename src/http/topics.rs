//! `GET /topics/{topic}`: the status of a topic over all instances.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};
use fanfare_core::{
    error::{PublishError, SubscribeError},
    topic::Topic,
};
use serde::Serialize;

use super::refusal::Refusal;
use crate::{access::Action, hub::Hub, instances::TopicStatus};

#[derive(Serialize)]
struct TopicAnswer<'a> {
    topic: &'a str,
    #[serde(flatten)]
    status: TopicStatus,
}

/// Counts the topic's subscribers on all instances.
pub(crate) async fn get(
    hub: Data<Hub>,
    request: HttpRequest,
    name: Path<String>,
) -> Result<HttpResponse, Refusal> {
    let topic = Topic::parse(&name).map_err(PublishError::from)?;
    let caller = hub.caller(request.head(), Action::Subscribe(&[name.into_inner()])).await?;
    let status = caller.topic_status(topic.clone()).await?.ok_or(SubscribeError::BridgeDown)?;
    Ok(HttpResponse::Ok().json(TopicAnswer { topic: topic.as_str(), status }))
}
