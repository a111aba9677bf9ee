//! The configured certificate, and its renewal on SIGHUP.

use actix_web::rt::signal::unix::{SignalKind, signal};
use fanfare::{Config, Tls};

use super::CliError;

/// Reads the configured certificate; `None` for plain HTTP.
pub(super) fn read(config: &Config) -> Result<Option<Tls>, CliError> {
    let files = &config.tls;
    if files.certificate.is_empty() {
        return Ok(None);
    }
    let tls = Tls::from_files(&files.certificate, &files.key);
    tls.map(Some).map_err(|error| CliError::Usage(format!("tls.certificate, tls.key: {error}")))
}

/// Reads the files again when they change, and on each SIGHUP.
pub(super) fn keep_current(tls: Tls) {
    tls.watch();
    actix_web::rt::spawn(async move {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
        while hangup.recv().await.is_some() {
            if let Err(error) = tls.reload() {
                tracing::error!(%error, "certificate not reloaded, the present one stays");
            }
        }
    });
}
