//! `[access]`: who may subscribe, publish and manage.

use std::{fmt, path::PathBuf, time::Duration};

use fanfare_core::{access::RightsText, algorithm::Algorithm};
use serde::Deserialize;

use super::units;

/// Access control: the keys of tokens, the rules, and the application's own decision.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an [access] section")]
#[non_exhaustive]
pub struct Access {
    /// Whether the hub refuses everything not granted. Off: everybody may do everything.
    #[serde(deserialize_with = "units::switch")]
    pub enabled: bool,
    /// The `iss` required of every token; empty for none.
    pub issuer: String,
    /// The `aud` required of every token; empty for none.
    pub audience: String,
    /// How far `exp` and `nbf` may be off at the admission of a request, at most 5 m.
    #[serde(deserialize_with = "units::duration")]
    pub leeway: Duration,
    /// The name of the cookie with a browser's token.
    pub cookie: String,
    /// Time for the first use of a ticket, 1 s to 1 h.
    #[serde(deserialize_with = "units::duration")]
    pub ticket_window: Duration,
    /// Time before the end of a token for the event `renew`, at most 1 h.
    #[serde(deserialize_with = "units::duration")]
    pub renew_before: Duration,
    /// How long a revocation is kept: at least the longest life of a token, 1 m to 10 years.
    #[serde(deserialize_with = "units::duration")]
    pub revocations_kept: Duration,
    /// Revocations kept at once.
    #[serde(deserialize_with = "units::count")]
    pub max_revocations: usize,
    /// Keys fetched from a file or URL.
    pub jwks: Jwks,
    /// The application's own decision.
    pub webhook: Webhook,
    /// Rights of groups of callers; all matching rules add up.
    #[serde(default)]
    pub rules: Vec<AccessRule>,
    /// Keys of tokens.
    #[serde(default)]
    pub keys: Vec<AccessKey>,
}

/// The rights of a group of callers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an [[access.rules]] entry")]
#[non_exhaustive]
pub struct AccessRule {
    /// `anyone`, `user` (every caller with a user), or `user:NAME`.
    pub who: String,
    /// Patterns; `{user}` stands for the caller's user.
    #[serde(default)]
    pub subscribe: Vec<String>,
    #[serde(default)]
    pub publish: Vec<String>,
    #[serde(default)]
    pub manage: Vec<String>,
}

impl AccessRule {
    /// A rule without rights for `anyone`, `user` or `user:NAME`. Add the rights:
    ///
    /// ```
    /// use fanfare::{Config, config::AccessRule};
    ///
    /// let own = AccessRule::new("user").subscribe(["notifications:{user}"]).publish(["chat:*"]);
    /// let config = Config::default().with(|config| {
    ///     config.access.enabled = true;
    ///     config.access.rules.push(own);
    /// });
    /// ```
    pub fn new(who: impl Into<String>) -> Self {
        Self { who: who.into(), ..Self::default() }
    }

    /// Adds patterns to subscribe to.
    #[must_use]
    pub fn subscribe<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.subscribe.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Adds patterns to publish to.
    #[must_use]
    pub fn publish<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.publish.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Adds patterns to manage.
    #[must_use]
    pub fn manage<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.manage.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// The rights of the rule.
    pub fn rights(&self) -> RightsText {
        let Self { subscribe, publish, manage, .. } = self.clone();
        RightsText { subscribe, publish, manage }
    }
}

/// A key of tokens: one of `key`, `file` and `env` has its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an [[access.keys]] entry")]
#[non_exhaustive]
pub struct AccessKey {
    /// The name of the key in the head of its tokens.
    pub kid: Option<String>,
    /// The only algorithm of its tokens, like `ES256`.
    #[serde(deserialize_with = "units::word")]
    pub algorithm: Algorithm,
    /// The secret's bytes as written, or a PEM.
    pub key: Option<Secret>,
    /// A file with them.
    pub file: Option<PathBuf>,
    /// An environment variable with them.
    pub env: Option<String>,
}

impl AccessKey {
    /// A key with the secret's bytes as written, or a PEM.
    pub fn new(algorithm: Algorithm, key: impl Into<String>) -> Self {
        Self { key: Some(Secret(key.into())), ..Self::of(algorithm) }
    }

    /// A key in a file.
    pub fn in_file(algorithm: Algorithm, file: impl Into<PathBuf>) -> Self {
        Self { file: Some(file.into()), ..Self::of(algorithm) }
    }

    /// A key in an environment variable.
    pub fn in_environment(algorithm: Algorithm, name: impl Into<String>) -> Self {
        Self { env: Some(name.into()), ..Self::of(algorithm) }
    }

    /// The name of the key in the head of its tokens.
    #[must_use]
    pub fn kid(self, name: impl Into<String>) -> Self {
        Self { kid: Some(name.into()), ..self }
    }

    fn of(algorithm: Algorithm) -> Self {
        Self { kid: None, algorithm, key: None, file: None, env: None }
    }
}

/// A set of keys (RFC 7517), from a URL or a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an [access.jwks] section")]
#[non_exhaustive]
pub struct Jwks {
    /// An `https://` or `http://` URL; empty for none.
    pub url: String,
    /// A file; empty for none.
    pub file: String,
    /// Time between two reads, 1 s to 1 day.
    #[serde(deserialize_with = "units::duration")]
    pub refresh: Duration,
}

/// The application's endpoint asked about callers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an [access.webhook] section")]
#[non_exhaustive]
pub struct Webhook {
    /// The endpoint's URL; empty for none.
    pub url: String,
    /// The secret of the requests' signatures.
    pub secret: Secret,
    /// Time limit of an answer, 100 ms to 1 m.
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// Headers of the caller's request sent along, besides `Cookie` and `Authorization`.
    #[serde(deserialize_with = "units::list")]
    pub headers: Vec<String>,
    /// How long open streams stay while the application is unavailable, at most 1 day.
    #[serde(deserialize_with = "units::duration")]
    pub grace: Duration,
}

/// A text never shown in logs and errors.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "a hidden value" })
    }
}
