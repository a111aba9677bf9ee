//! `/health/live` and `/health/ready`. The status code is the answer.

use actix_web::{HttpResponse, http::StatusCode, web::Data};
use serde_json::json;

use crate::hub::Hub;

/// Always 200: the process runs.
pub(crate) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "live" }))
}

/// 200 if the hub takes streams and publishes, else 503 with a reason.
pub(crate) async fn ready(hub: Data<Hub>) -> HttpResponse {
    let status = hub.parts().instances.cluster.status();
    if let Some(conflict) = status.conflict {
        let text = json!({ "status": "settings_differ", "message": conflict.to_string() });
        return HttpResponse::ServiceUnavailable().json(text);
    }
    if let Some(reason) = hub.parts().log.failure() {
        let text = json!({ "status": "log_failed", "message": &*reason });
        return HttpResponse::ServiceUnavailable().json(text);
    }
    let (status, text) = match hub.is_ready() {
        true => (StatusCode::OK, "ready"),
        false if hub.parts().lifecycle.is_draining() => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining")
        }
        false => (StatusCode::SERVICE_UNAVAILABLE, "bridge_down"),
    };
    HttpResponse::build(status).json(json!({ "status": text }))
}
