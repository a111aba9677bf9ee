//! `GET /topics/{topic}`: how a topic stands over all instances.

use actix_web::{
    HttpResponse,
    web::{Data, Path},
};
use serde::Serialize;

use super::refusal::Refusal;
use crate::{
    bridge::TopicStatus,
    domain::topic::Topic,
    error::{PublishError, SubscribeError},
    hub::Hub,
};

/// The answer.
#[derive(Serialize)]
struct TopicAnswer<'a> {
    topic: &'a str,
    #[serde(flatten)]
    status: TopicStatus,
}

/// Counts the topic's subscribers, everywhere and now.
pub(crate) async fn get(hub: Data<Hub>, name: Path<String>) -> HttpResponse {
    let topic = match Topic::parse(&name) {
        Ok(topic) => topic,
        Err(error) => return Refusal::from(&PublishError::from(error)).response(),
    };
    match hub.topic_status(topic.clone()).await {
        Some(status) => HttpResponse::Ok().json(TopicAnswer { topic: topic.as_str(), status }),
        None => Refusal::from(&SubscribeError::BridgeDown).response(),
    }
}
