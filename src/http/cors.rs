//! The headers of answers to pages of other origins (`[cors]`). `actix-cors` adds them to the
//! framework's answers, [`raw_lines`] to the heads of raw streams.

use std::fmt::Write;

use actix_cors::Cors as Middleware;
use actix_web::{
    dev::RequestHead,
    http::{
        Method,
        header::{ALLOW, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE},
    },
};

use crate::config::Cors;

/// Answer headers readable by a page.
const EXPOSED: [HeaderName; 3] = [RETRY_AFTER, WWW_AUTHENTICATE, ALLOW];

/// The methods of all endpoints.
const METHODS: [Method; 5] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE];

/// The header `Vary` of `actix-cors`: a cache must not give an answer to a page of another origin.
const VARY: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// The middleware of one endpoint. It answers preflight requests.
pub(super) fn middleware(settings: &Cors) -> Middleware {
    let middleware = Middleware::default()
        .allowed_methods(METHODS)
        .allow_any_header()
        .expose_headers(EXPOSED)
        .max_age(usize::try_from(settings.max_age.as_secs()).ok())
        // An answer without the header is unreadable for the page. A refusal would also hit
        // requests of the hub's own pages, with their `Origin`.
        .block_on_origin_mismatch(false);
    if settings.is_any() {
        return middleware.allow_any_origin().send_wildcard();
    }
    let origins = settings.origins.iter();
    let middleware = origins.fold(middleware, |cors, origin| cors.allowed_origin(origin));
    if settings.credentials { middleware.supports_credentials() } else { middleware }
}

/// The header lines of a raw stream: the same as the framework's.
pub(crate) fn raw_lines(settings: &Cors, head: &RequestHead) -> String {
    let mut lines = String::new();
    if settings.origins.is_empty() {
        return lines;
    }
    let admitted = head.headers.get(ORIGIN).and_then(|origin| allow_origin(settings, origin));
    if let Some(origin) = admitted {
        let _ = write!(lines, "access-control-allow-origin: {origin}\r\n");
    }
    let exposed = EXPOSED.map(|name| name.to_string()).join(", ");
    let _ = write!(lines, "access-control-expose-headers: {exposed}\r\n");
    if settings.credentials {
        lines += "access-control-allow-credentials: true\r\n";
    }
    let _ = write!(lines, "vary: {VARY}\r\n");
    lines
}

/// The value of `Access-Control-Allow-Origin` for an admitted origin.
fn allow_origin<'a>(settings: &Cors, origin: &'a HeaderValue) -> Option<&'a str> {
    if settings.is_any() {
        return Some("*");
    }
    origin.to_str().ok().filter(|origin| settings.names(origin))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix_web::{
        App, HttpResponse,
        dev::ServiceResponse,
        http::StatusCode,
        test::{TestRequest, call_service, init_service},
        web,
    };

    use super::*;

    fn settings(origins: &[&str], credentials: bool) -> Cors {
        let origins = origins.iter().map(ToString::to_string).collect();
        Cors { origins, credentials, max_age: Duration::from_secs(600) }
    }

    async fn answer(settings: &Cors, request: TestRequest) -> ServiceResponse {
        let refusal = web::get().to(|| async { HttpResponse::TooManyRequests().finish() });
        let resource = web::resource("/").route(refusal).wrap(middleware(settings));
        let service = init_service(App::new().service(resource)).await;
        call_service(&service, request.to_request()).await.map_into_boxed_body()
    }

    fn sorted_lines(answer: &ServiceResponse) -> Vec<String> {
        let headers = answer.headers().iter();
        let mut lines: Vec<String> = headers
            .filter(|(name, _)| name.as_str() != "content-length")
            .flat_map(|(name, value)| {
                // The order of a list has no meaning, and `actix-cors` chooses it at random.
                let mut items: Vec<_> = value.to_str().unwrap().split(", ").collect();
                items.sort_unstable();
                items.into_iter().map(move |item| format!("{name}: {item}")).collect::<Vec<_>>()
            })
            .collect();
        lines.sort_unstable();
        lines
    }

    #[actix_web::test]
    async fn both_transports_send_the_same_headers() {
        let app = "https://app.example";
        for (origins, credentials, origin, is_admitted) in [
            (vec![app], false, app, true),
            (vec![app], true, app, true),
            (vec![app], true, "https://app.example.evil", false),
            (vec![app], true, "null", false),
            (vec!["*"], false, "https://any.example", true),
            (vec![], false, app, false),
        ] {
            let settings = settings(&origins, credentials);
            let request = TestRequest::get().insert_header((ORIGIN, origin));
            let raw = raw_lines(&settings, request.to_http_request().head());
            assert_eq!(raw.contains("allow-origin"), is_admitted, "{origin}: {raw}");
            if origins.is_empty() {
                assert_eq!(raw, "");
                continue;
            }
            let request = TestRequest::get().insert_header((ORIGIN, origin));
            let framework = answer(&settings, request).await;
            let mut lines: Vec<String> = raw
                .lines()
                .filter_map(|line| line.split_once(": "))
                .flat_map(|(name, list)| {
                    list.split(", ").map(move |item| format!("{name}: {item}"))
                })
                .collect();
            lines.sort_unstable();
            assert_eq!(lines, sorted_lines(&framework), "{origins:?} {origin}");
        }
    }

    #[actix_web::test]
    async fn preflight_requests_are_answered_for_admitted_origins_only() {
        let settings = settings(&["https://app.example"], true);
        for (origin, status) in [
            ("https://app.example", StatusCode::OK),
            ("https://other.example", StatusCode::BAD_REQUEST),
        ] {
            let request = TestRequest::default()
                .method(Method::OPTIONS)
                .insert_header((ORIGIN, origin))
                .insert_header(("Access-Control-Request-Method", "POST"))
                .insert_header(("Access-Control-Request-Headers", "authorization,content-type"));
            let answer = answer(&settings, request).await;
            assert_eq!(answer.status(), status, "{origin}");
            let allowed = answer.headers().get("access-control-allow-headers");
            assert_eq!(allowed.is_some(), status == StatusCode::OK);
        }
    }
}
