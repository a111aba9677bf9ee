//! The certificate of a server. It is exchanged while the server runs: new connections get the new
//! one, open ones stay.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use parking_lot::{Mutex, RwLock};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// How often [`Tls::watch`] compares the files' times of change.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// The certificate and key of a [`Server`](crate::Server), read from files. Clones are one
/// certificate.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Files>);

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    changed: Mutex<Option<Changed>>,
}

/// The times of change of both files.
type Changed = [SystemTime; 2];

/// A certificate or key is unreadable or unusable.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is unreadable, or has no PEM section of the needed kind.
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    /// Certificate and key do not belong together, or have an unknown algorithm.
    #[error("unusable certificate or key: {0}")]
    Pair(rustls::Error),
}

impl Tls {
    /// Reads a certificate chain (PEM, the server's own first) and its private key (PEM: PKCS #8,
    /// PKCS #1 or SEC 1).
    ///
    /// # Errors
    /// A file is unreadable or has no such section, or both do not belong together.
    pub fn from_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        let (certificate, key) = (certificate.into(), key.into());
        let provider = Arc::new(ring::default_provider());
        let changed = changed(&certificate, &key).ok();
        let current = RwLock::new(Arc::new(read(&certificate, &key, &provider)?));
        let changed = Mutex::new(changed);
        Ok(Self(Arc::new(Files { certificate, key, provider, current, changed })))
    }

    /// Reads both files again, for example on SIGHUP. Open connections stay.
    ///
    /// # Errors
    /// As for [`Self::from_files`]. The present certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.0.reload()
    }

    /// Reloads after the files have changed, within seconds, until the last clone of this value is
    /// dropped. Call it inside a runtime.
    pub fn watch(&self) {
        let files = Arc::downgrade(&self.0);
        actix_web::rt::spawn(watch(files));
    }

    /// The settings of rustls: TLS 1.2 and 1.3. The framework adds the protocols (ALPN).
    pub(super) fn settings(&self) -> io::Result<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(self.0.provider.clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        Ok(builder.with_no_client_auth().with_cert_resolver(self.0.clone()))
    }
}

impl Files {
    fn reload(&self) -> Result<(), TlsError> {
        // The times come first: a file written in between is read once more.
        let changed = changed(&self.certificate, &self.key).ok();
        let pair = read(&self.certificate, &self.key, &self.provider)?;
        *self.current.write() = Arc::new(pair);
        *self.changed.lock() = changed;
        tracing::info!(certificate = %self.certificate.display(), "certificate reloaded");
        Ok(())
    }

    /// Reloads changed files. A failure is repeated only after the next change: a certificate is
    /// often written before its key.
    fn reload_if_changed(&self) {
        let Ok(now) = changed(&self.certificate, &self.key) else { return };
        if self.changed.lock().replace(now) == Some(now) {
            return;
        }
        if let Err(error) = self.reload() {
            tracing::warn!(%error, "certificate not reloaded, the present one stays");
        }
    }
}

impl ResolvesServerCert for Files {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().clone())
    }
}

async fn watch(files: Weak<Files>) {
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let Some(files) = files.upgrade() else { return };
        // A file system can be slow, and this thread serves streams.
        let _ = actix_web::rt::task::spawn_blocking(move || files.reload_if_changed()).await;
    }
}

fn changed(certificate: &Path, key: &Path) -> io::Result<Changed> {
    let of = |path: &Path| fs::metadata(path)?.modified();
    Ok([of(certificate)?, of(key)?])
}

fn read(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let failed = |path: &Path, reason: String| TlsError::File { path: path.to_owned(), reason };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(failed(certificate, "no certificate in this file".to_owned()));
    }
    let key_error = |error: rustls::pki_types::pem::Error| failed(key, error.to_string());
    let private = PrivateKeyDer::from_pem_file(key).map_err(key_error)?;
    CertifiedKey::from_der(chain, private, provider).map_err(TlsError::Pair)
}
