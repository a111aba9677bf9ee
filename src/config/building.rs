//! Building a configuration in code. A new key of a later version breaks no application: every
//! struct starts from its defaults.

use std::{path::Path, time::Duration};

use super::{
    Access, Admin, Config, ConfigProblems, Conflate, Cors, Delivery, FanOut, Flush, History,
    HubLimits, Jwks, Limits, Log, Outbox, Poll, Publish, Rate, Redis, Server, Sources, Stream, Tls,
    TopicPolicy, Webhook,
};

/// Gives sections their defaults, the values of `config/fanfare.toml`, and the builder `with`.
macro_rules! sections {
    ($($section:ident: $($name:ident).+),* $(,)?) => {$(
        impl Default for $section {
            fn default() -> Self {
                Config::default().$($name).+
            }
        }

        impl $section {
            /// Changes some values: `.with(|it| it.key = value)`.
            #[must_use]
            pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
                change(&mut self);
                self
            }
        }
    )*};
}

sections! {
    Access: access,
    Admin: admin,
    Cors: cors,
    Delivery: delivery,
    FanOut: fanout,
    History: history,
    HubLimits: hub,
    Jwks: access.jwks,
    Limits: limits,
    Log: log,
    Outbox: outbox,
    Poll: poll,
    Publish: publish,
    Redis: redis,
    Server: server,
    Stream: stream,
    Tls: tls,
    Webhook: access.webhook,
}

impl Config {
    /// The defaults, overridden by this TOML text, as in a file for [`Config::load`].
    ///
    /// ```
    /// let config = fanfare::Config::from_toml("stream.heartbeat = '20s'")?;
    /// # Ok::<(), fanfare::config::ConfigProblems>(())
    /// ```
    ///
    /// # Errors
    /// All problems at once.
    pub fn from_toml(text: &str) -> Result<Self, ConfigProblems> {
        Self::load(&Sources::default().toml(text))
    }

    /// Changes some values: `.with(|config| config.stream.heartbeat = heartbeat)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Adds a policy. Earlier ones win.
    #[must_use]
    pub fn topic(mut self, policy: TopicPolicy) -> Self {
        self.topics.push(policy);
        self
    }
}

impl TopicPolicy {
    /// The policy of all topics matching `pattern`, as long as nothing is set that of `[delivery]`
    /// and `[history]`.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self { pattern: pattern.into(), ..Self::default() }
    }

    /// The moment of a flush.
    #[must_use]
    pub fn flush(self, flush: Flush) -> Self {
        Self { flush: Some(flush), ..self }
    }

    /// The time between two ticks, 1 ms to 1 h.
    #[must_use]
    pub fn tick(self, tick: Duration) -> Self {
        Self { tick: Some(tick), ..self }
    }

    /// The events of one tick to send.
    #[must_use]
    pub fn conflate(self, conflate: Conflate) -> Self {
        Self { conflate: Some(conflate), ..self }
    }

    /// Events stored per topic; 0 stores none.
    #[must_use]
    pub fn history_events(mut self, events: usize) -> Self {
        self.history.events = Some(events);
        self
    }

    /// The age of an event at its expiry; zero stores none.
    #[must_use]
    pub fn history_ttl(mut self, ttl: Duration) -> Self {
        self.history.ttl = Some(ttl);
        self
    }

    /// The rate limit of one stream over all topics of this policy.
    #[must_use]
    pub fn rate(self, rate: Rate) -> Self {
        Self { rate: Some(rate), ..self }
    }
}

impl<'a> Sources<'a> {
    /// Adds a TOML file.
    #[must_use]
    pub fn file(self, file: &'a Path) -> Self {
        Self { file: Some(file), ..self }
    }

    /// Adds TOML text. It overrides the file.
    #[must_use]
    pub fn toml(self, text: &'a str) -> Self {
        Self { toml: Some(text), ..self }
    }

    /// Adds environment variables, for example [`process_environment`](super::process_environment).
    #[must_use]
    pub fn environment(self, environment: Vec<(String, String)>) -> Self {
        Self { environment, ..self }
    }

    /// Adds a flag: a key like `server.listen`, the value, and a name for problems.
    #[must_use]
    pub fn flag(mut self, key: &'static str, value: impl Into<String>, name: &'static str) -> Self {
        self.flags.push((key, value.into(), name));
        self
    }
}
