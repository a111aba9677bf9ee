//! The options for a hub reached by the commands, over `http://` or `https://`.

use std::{path::PathBuf, sync::Arc};

use fanfare_bench::hub_address::HubArgs;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::CliError;

/// Address, token and authorities of a hub.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HubConnection {
    #[command(flatten)]
    pub hub: HubArgs,
    /// Certificate authorities of an https:// hub, in PEM, in place of the system's
    #[arg(long, value_name = "FILE", env = "FANFARE_CA", hide_env_values = true)]
    pub ca: Option<PathBuf>,
}

impl HubConnection {
    /// The settings of TLS 1.2 and up; none for an `http://` address.
    ///
    /// # Errors
    /// The file of authorities is unreadable, or has none.
    pub fn tls(&self) -> Result<Option<ClientConfig>, CliError> {
        if !self.hub.url.starts_with("https:") {
            return Ok(None);
        }
        let authorities = match &self.ca {
            Some(file) => authorities_of(file)?,
            None => authorities_of_system(),
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(authorities)
            .with_no_client_auth();
        Ok(Some(config))
    }
}

fn authorities_of(file: &PathBuf) -> Result<RootCertStore, CliError> {
    let usage = |problem: String| CliError::Usage(format!("--ca {}: {problem}", file.display()));
    let mut authorities = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| usage(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| usage(error.to_string()))?;
        authorities.add(certificate).map_err(|error| usage(error.to_string()))?;
    }
    if authorities.is_empty() {
        Err(usage("has no certificate".to_owned()))
    } else {
        Ok(authorities)
    }
}

/// The authorities of the system; `SSL_CERT_FILE` names others.
fn authorities_of_system() -> RootCertStore {
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    authorities
}
