//! The operators' listener: no streams, no TLS, no host names.

use std::net::SocketAddr;

use actix_web::{App, HttpServer, web};
use actix_web_lab::middleware::CatchPanic;
use fanfare::{Hub, OperatorsListener};

use super::{CliError, not_found};

/// Starts the listener. It answers during the drain too, and ends with the process. Returns its
/// address.
pub(super) fn start(hub: &Hub, listen: SocketAddr) -> Result<SocketAddr, CliError> {
    let failed = |error: std::io::Error| {
        CliError::Failed(format!("cannot listen on {listen} (admin.listen): {error}"))
    };
    let routes = hub.clone();
    let application = move || {
        App::new()
            .wrap(CatchPanic::default())
            .app_data(OperatorsListener)
            .configure(routes.routes("").operations())
            .configure(routes.routes("/events").revocations())
            .default_service(web::to(not_found))
    };
    let server = HttpServer::new(application).workers(1).disable_signals();
    let server = server.bind(listen).map_err(failed)?;
    let address = server.addrs().first().copied().unwrap_or(listen);
    actix_web::rt::spawn(server.run());
    Ok(address)
}
