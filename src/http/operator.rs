//! The callers of operators' endpoints.

use actix_web::HttpRequest;
use fanfare_core::access::MayOperate;

use super::{origin::refuse_other_sites, refusal::Refusal};
use crate::{
    access::Action,
    hub::{Hub, Operator},
};

/// Marks an application reached by operators only, as its `app_data`: its operators' endpoints ask
/// for no token.
#[derive(Debug, Clone, Copy)]
pub struct OperatorsListener;

/// Admits an operator: `manage` of all topics, or the operators' listener. A change must not come
/// from a page of another site.
pub(crate) async fn admit_operator(hub: &Hub, request: &HttpRequest) -> Result<Operator, Refusal> {
    let is_change = !request.method().is_safe();
    if is_change {
        refuse_other_sites(hub, request)?;
    }
    if request.app_data::<OperatorsListener>().is_some() {
        return Ok(Operator::new(hub.clone(), MayOperate::of_application()));
    }
    let action = if is_change { Action::Publish(&[]) } else { Action::Subscribe(&[]) };
    let caller = hub.caller(request.head(), action).await?;
    Ok(caller.operator()?)
}
