//! `[tls]`: the certificate of `fanfare serve`.

use serde::Deserialize;

/// The files of the certificate; without them, the server takes plain HTTP.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [tls] section")]
#[non_exhaustive]
pub struct Tls {
    /// Path of the certificate chain (PEM, the server's own certificate first); empty for none.
    pub certificate: String,
    /// Path of its private key (PEM); empty for none.
    pub key: String,
}
