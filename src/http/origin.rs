//! The site of a request, from the browser's `Sec-Fetch-Site`.

use actix_web::HttpRequest;
use fanfare_core::error::ErrorCode;

use super::refusal::Refusal;

/// Refuses a change from a page of another site. Browsers send a body of a simple type without a
/// CORS preflight, so CORS does not stop such a page; but they report its site.
pub(crate) fn refuse_other_sites(request: &HttpRequest) -> Result<(), Refusal> {
    let site = request.headers().get("sec-fetch-site");
    if site.is_some_and(|site| site == "cross-site") {
        let message = "pages of other sites may not publish or change anything";
        return Err(Refusal::new(ErrorCode::CrossSite, message));
    }
    Ok(())
}
