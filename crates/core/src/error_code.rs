//! The stable codes of refusals. A code never changes its meaning.

use std::fmt;

/// Defines the codes, their text and their HTTP status in one table.
macro_rules! error_codes {
    ($($name:ident $text:literal $status:literal,)*) => {
        /// Names a refusal for programs, in answers over HTTP and in logs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($name,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code's text in an answer.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The status of an HTTP answer with this code.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

error_codes! {
    AccessDown "access_down" 503,
    AtCapacity "at_capacity" 503,
    BadBody "bad_body" 400,
    BadCursor "bad_cursor" 400,
    BadEvent "bad_event" 400,
    BadJson "bad_json" 400,
    BadPage "bad_page" 400,
    BadPreferences "bad_preferences" 400,
    BadQuery "bad_query" 400,
    BadTopic "bad_topic" 400,
    BadTypes "bad_types" 400,
    BadUser "bad_user" 400,
    BodyTimeout "body_timeout" 408,
    BridgeDown "bridge_down" 503,
    CrossSite "cross_site" 403,
    Draining "draining" 503,
    Forbidden "forbidden" 403,
    GraphDown "graph_down" 503,
    HubNotRegistered "hub_not_registered" 500,
    Internal "internal" 500,
    LogFailed "log_failed" 503,
    LogFull "log_full" 503,
    MethodNotAllowed "method_not_allowed" 405,
    NotFound "not_found" 404,
    NotKeyed "not_keyed" 400,
    PayloadTooLarge "payload_too_large" 413,
    TooManyIds "too_many_ids" 429,
    RateLimited "rate_limited" 429,
    TooManyConnections "too_many_connections" 429,
    TooManyPatterns "too_many_patterns" 400,
    TooManyStreams "too_many_streams" 429,
    TooManyTopics "too_many_topics" 400,
    TooManyTypes "too_many_types" 400,
    Unauthenticated "unauthenticated" 401,
    Unconfirmed "unconfirmed" 503,
    UnknownStream "unknown_stream" 404,
    UnsupportedMediaType "unsupported_media_type" 415,
    UpgradeUnsupported "upgrade_unsupported" 400,
    WrongHost "wrong_host" 421,
}

impl ErrorCode {
    /// Whether the same request may succeed a little later.
    pub const fn is_temporary(self) -> bool {
        matches!(self.status(), 429 | 503)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
