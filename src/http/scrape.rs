//! `/metrics`: the table of counters for Prometheus.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{Accept, Quality},
    web::{Data, Header},
};

use super::{operator::admit_operator, refusal::Refusal};
use crate::{hub::Hub, metrics::render};

/// `/metrics`: every metric, for Prometheus.
///
/// The older text format differs from OpenMetrics only in its end: there `# EOF` is a comment.
pub(crate) async fn get(
    hub: Data<Hub>,
    request: HttpRequest,
    accept: Header<Accept>,
) -> Result<HttpResponse, Refusal> {
    let operator = admit_operator(&hub, &request).await?;
    let takes = |essence: &str| {
        accept
            .0
            .iter()
            .any(|range| range.item.essence_str() == essence && range.quality > Quality::MIN)
    };
    let content_type = match takes("application/openmetrics-text") || !takes("text/plain") {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    Ok(HttpResponse::Ok().content_type(content_type).body(render(operator.rows())))
}
