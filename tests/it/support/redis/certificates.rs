//! A test's own certificate authority, and a server certificate signed by it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::directory::Directory;

/// PEM files, valid for a day.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority's certificate, to be trusted by clients.
    pub authority: PathBuf,
    /// The server's certificate, for 127.0.0.1 and localhost.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    /// Creates the files in `directory`; it must outlive them.
    pub fn make(directory: &Directory) -> Self {
        let file = |name: &str| directory.path().join(name);
        let authority_key = file("authority.key");
        let files = Self {
            authority: file("authority.crt"),
            certificate: file("server.crt"),
            key: file("server.key"),
        };
        let subject = ["-subj", "/CN=fanfare's tests"];
        openssl(&authority_key, &files.authority, &subject);
        let (issuer, issuer_key) = (text(&files.authority), text(&authority_key));
        let server = [
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-CA",
            &issuer,
            "-CAkey",
            &issuer_key,
        ];
        openssl(&files.key, &files.certificate, &server);
        files
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn openssl(key: &Path, certificate: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "1", "-keyout", &text(key), "-out", &text(certificate)])
        .args(arguments)
        .output()
        .expect("openssl is there: scripts/test installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
