//! `fanfare token`: signs a token for tests and demos.

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fanfare::{Config, config::Sources};
use fanfare_core::{
    access::{Rights, RightsText, parse_user},
    algorithm::Algorithm,
};
use fanfare_tokens::{SigningKey, key_of_environment, key_of_file};
use serde::Serialize;

use super::CliError;

/// The environment variable with the key.
const KEY_VARIABLE: &str = "FANFARE_TOKEN_KEY";

#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    /// The user (`sub`): one segment of a topic. Without it, the token has no user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Patterns to subscribe to; {user} stands for the user.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    subscribe: Vec<String>,
    /// Patterns to publish to.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    publish: Vec<String>,
    /// Patterns to manage.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    manage: Vec<String>,
    /// Life of the token.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    expires: Duration,
    /// File with the secret, or with the private key in PEM [default: the key in the variable
    /// FANFARE_TOKEN_KEY, else the first key of --config].
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Algorithm, like ES256 [default: HS256 for a secret; RS256, ES256, ES384 or EdDSA by the kind
    /// of a private key].
    #[arg(long, value_name = "NAME")]
    algorithm: Option<Algorithm>,
    /// Name of the key in the token's head.
    #[arg(long, value_name = "NAME")]
    kid: Option<String>,
    /// Issuer (`iss`).
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Audience (`aud`).
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// Token id (`jti`), for a later revocation.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Configuration of a hub with a shared secret in `access.keys`: the token is for this hub.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The claims of a token.
#[derive(Serialize)]
struct Claims {
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    fanfare: RightsText,
}

/// Prints the token on a line.
///
/// # Errors
/// Invalid options, or an unreadable key.
pub(crate) fn run(mut arguments: TokenArgs) -> Result<(), CliError> {
    let secret = arguments.take_key()?;
    let claims = arguments.claims()?;
    let token = sign(&arguments, &secret, &claims)?;
    let written = writeln!(std::io::stdout(), "{token}");
    written.map_err(|error| CliError::Failed(error.to_string()))
}

impl TokenArgs {
    /// The bytes of the key. Options not given come from the configuration.
    fn take_key(&mut self) -> Result<Vec<u8>, CliError> {
        let config = self.config.as_deref().map(|file| {
            let sources = Sources::default().file(file);
            Config::load(&sources).map_err(|problems| CliError::Usage(problems.to_string()))
        });
        let access = config.transpose()?.map(|config| config.access);
        if let Some(access) = &access {
            let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
            self.issuer = self.issuer.take().or_else(|| given(&access.issuer));
            self.audience = self.audience.take().or_else(|| given(&access.audience));
        }
        let usage =
            |name: &str, error: &dyn std::fmt::Display| CliError::Usage(format!("{name}: {error}"));
        if let Some(file) = &self.key_file {
            let name = format!("--key-file {}", file.display());
            return key_of_file(file).map_err(|error| usage(&name, &error));
        }
        if std::env::var_os(KEY_VARIABLE).is_some() {
            return key_of_environment(KEY_VARIABLE).map_err(|error| usage(KEY_VARIABLE, &error));
        }
        let Some(key) = access.and_then(|access| access.keys.into_iter().next()) else {
            let message = "the key is missing: give --key-file, or the variable FANFARE_TOKEN_KEY, \
                           or --config with a key in access.keys";
            return Err(CliError::Usage(message.to_owned()));
        };
        self.algorithm.get_or_insert(key.algorithm);
        self.kid = self.kid.take().or(key.kid.clone());
        key.read().map_err(|error| usage("access.keys", &error))
    }

    fn claims(&self) -> Result<Claims, CliError> {
        let usage = |message: String| Err(CliError::Usage(message));
        if let Some(user) = &self.user
            && let Err(error) = parse_user(user)
        {
            return usage(format!("--user: {error}"));
        }
        let (subscribe, publish) = (self.subscribe.clone(), self.publish.clone());
        let fanfare = RightsText { subscribe, publish, manage: self.manage.clone() };
        if let Err(error) = Rights::try_from(fanfare.clone()) {
            return usage(error.to_string());
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let iat = since_1970.as_secs();
        Ok(Claims {
            sub: self.user.clone(),
            iat,
            exp: iat.saturating_add(self.expires.as_secs()),
            jti: self.id.clone(),
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            fanfare,
        })
    }
}

fn sign(arguments: &TokenArgs, key: &[u8], claims: &Claims) -> Result<String, CliError> {
    let kid = arguments.kid.as_deref();
    let sign_by = |algorithm| SigningKey::new(algorithm, key)?.sign(claims, kid);
    if let Some(algorithm) = arguments.algorithm {
        return sign_by(algorithm).map_err(|error| CliError::Usage(error.to_string()));
    }
    // The kind of the key decides: all others fail.
    let kinds =
        [Algorithm::Hs256, Algorithm::EdDsa, Algorithm::Es256, Algorithm::Es384, Algorithm::Rs256];
    kinds.into_iter().find_map(|algorithm| sign_by(algorithm).ok()).ok_or_else(|| {
        let message = "neither a secret nor a private key in PEM (`-----BEGIN PRIVATE KEY-----`)";
        CliError::Usage(message.to_owned())
    })
}
