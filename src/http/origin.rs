//! The origin of a request, as reported by browsers.

use actix_web::HttpRequest;
use fanfare_core::error::ErrorCode;

use super::refusal::Refusal;

/// Refuses a change requested by another site's page. A page can send a body of a simple type
/// without its browser asking the hub first, but its browser reports the site.
pub(crate) fn refuse_other_sites(request: &HttpRequest) -> Result<(), Refusal> {
    let site = request.headers().get("sec-fetch-site");
    if site.is_some_and(|site| site == "cross-site") {
        let message = "pages of other sites may not publish or change anything";
        return Err(Refusal::new(ErrorCode::CrossSite, message));
    }
    Ok(())
}
