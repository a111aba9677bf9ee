//! `Hub` as an argument of handlers. Unlike `web::Data<Hub>`, a missing registration gets an error
//! with its reason.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Data};
use fanfare_core::error::ErrorCode;

use super::refusal::Refusal;
use crate::hub::Hub;

const MESSAGE: &str = "no hub is registered with this application: \
                       add `.app_data(web::Data::new(hub.clone()))` to its `App`";

/// The hub of a server's connections, see [`Hub::attach`]: for applications without a registered one.
#[derive(Clone)]
pub(crate) struct ServerHub(pub Hub);

/// The hub registered with the application, by [`Hub::routes`] or as
/// [`web::Data<Hub>`](actix_web::web::Data); else the hub of the server, by [`Hub::attach`]. Without
/// any, the request gets a 500 with the code `hub_not_registered` and this advice, and the log has it
/// as an error.
impl FromRequest for Hub {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let registered = request.app_data::<Data<Self>>().map(|hub| Self::clone(hub));
        let of_server = || request.conn_data::<ServerHub>().map(|hub| hub.0.clone());
        ready(registered.or_else(of_server).ok_or_else(|| {
            tracing::error!(path = request.path(), MESSAGE);
            Refusal::new(ErrorCode::HubNotRegistered, MESSAGE).into()
        }))
    }
}
