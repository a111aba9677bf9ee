//! The keys of tokens: their bytes, and the problems of keys, key sets and the webhook.

use super::{Access, AccessKey};

/// The reasons to refuse the sources of decisions, each with its key.
pub(super) fn source_problems(access: &Access) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    for (number, key) in (1..).zip(&access.keys) {
        if let Err(problem) = key.check() {
            problems.push(("access.keys", format!("key {number}: {problem}")));
        }
    }
    if access.keys.len() > MAX_KEYS {
        let message = format!("must have at most {MAX_KEYS} keys, got {}", access.keys.len());
        problems.push(("access.keys", message));
    }
    if !access.jwks.url.is_empty() && !access.jwks.file.is_empty() {
        let message = "access.jwks has either `url` or `file`".to_owned();
        problems.push(("access.jwks.file", message));
    }
    let urls = [("access.jwks.url", &access.jwks.url), ("access.webhook.url", &access.webhook.url)];
    for (key, url) in urls.into_iter().filter(|(_, url)| !url.is_empty()) {
        problems.extend(url_problem(url).map(|problem| (key, problem)));
    }
    problems.extend(missing_features(access));
    for name in &access.webhook.headers {
        if name.parse::<actix_web::http::header::HeaderName>().is_err() {
            let message = format!("must list names of headers, got {name:?}");
            problems.push(("access.webhook.headers", message));
        }
    }
    problems
}

/// Configured keys: a token without `kid` tries each key of its algorithm.
const MAX_KEYS: usize = 32;

fn url_problem(url: &str) -> Option<String> {
    let uri = url.parse::<actix_web::http::Uri>().ok();
    let is_http = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    // The URL may have a password.
    (!is_http).then(|| "must be a URL like \"https://app.example/path\"".to_owned())
}

impl AccessKey {
    /// The bytes of the key: as written, from its file, or from its environment variable.
    ///
    /// # Errors
    /// The file or variable is unreadable, or several are given.
    #[cfg(feature = "tokens")]
    pub fn read(&self) -> Result<Vec<u8>, String> {
        let bytes = match (&self.key, &self.file, &self.env) {
            (Some(secret), None, None) => Ok(secret.0.clone().into_bytes()),
            (None, Some(file), None) => fanfare_tokens::key_of_file(file),
            (None, None, Some(name)) => fanfare_tokens::key_of_environment(name),
            _ => return Err("needs one of `key`, `file` and `env`".to_owned()),
        };
        bytes.map_err(|error| error.to_string())
    }

    #[cfg(feature = "tokens")]
    fn check(&self) -> Result<(), String> {
        self.verifying().map(|_| ())
    }

    /// The key, to check signatures with.
    #[cfg(feature = "tokens")]
    pub(crate) fn verifying(&self) -> Result<fanfare_tokens::VerifyingKey, String> {
        let (bytes, kid) = (self.read()?, self.kid.clone());
        let key = fanfare_tokens::VerifyingKey::new(self.algorithm, &bytes, kid);
        key.map_err(|error| error.to_string())
    }

    #[cfg(not(feature = "tokens"))]
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(feature = "tokens")]
fn missing_features(_: &Access) -> Option<(&'static str, String)> {
    None
}

#[cfg(not(feature = "tokens"))]
fn missing_features(access: &Access) -> Option<(&'static str, String)> {
    let keys = [
        ("access.keys", access.keys.is_empty()),
        ("access.jwks.url", access.jwks.url.is_empty()),
        ("access.jwks.file", access.jwks.file.is_empty()),
        ("access.webhook.url", access.webhook.url.is_empty()),
    ];
    let problem = "needs the feature `tokens` of the crate `fanfare`, missing in this build";
    let used = keys.into_iter().find(|(_, is_unused)| !is_unused);
    used.map(|(key, _)| (key, problem.to_owned()))
}
