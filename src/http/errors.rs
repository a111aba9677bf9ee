//! The library's errors as responses: JSON with a stable code, as from the hub's own endpoints.

use std::error::Error;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use fanfare_core::error::{AccessError, ErrorCode, GraphError};

use super::refusal::Refusal;
use crate::error::{ChangeError, FanOutError, FollowError, PublishError, SubscribeError};

/// Makes errors of the library responses.
macro_rules! responses {
    ($($error:ty),*) => {$(
        impl $error {
            /// The code in an HTTP answer. Its meaning never changes.
            pub fn code(&self) -> &'static str {
                self.error_code().as_str()
            }

            /// The status of an HTTP answer.
            pub fn status(&self) -> StatusCode {
                status_of(self.error_code())
            }
        }

        impl ResponseError for $error {
            fn status_code(&self) -> StatusCode {
                self.status()
            }

            fn error_response(&self) -> HttpResponse {
                Refusal::from(self).error_response()
            }
        }

        impl From<&$error> for Refusal {
            fn from(error: &$error) -> Self {
                log_cause(error);
                let topics = error.topics_not_granted();
                Self::new(error.error_code(), error.to_string()).with_topics(topics)
            }
        }

        impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                Self::from(&error)
            }
        }
    )*};
}

responses!(PublishError, SubscribeError, FanOutError, ChangeError, FollowError);

/// The topics of a request refused by access control.
trait NotGranted {
    fn topics_not_granted(&self) -> Vec<String> {
        Vec::new()
    }
}

impl NotGranted for FanOutError {}

impl NotGranted for FollowError {}

macro_rules! not_granted {
    ($($error:ident),*) => {$(
        impl NotGranted for $error {
            fn topics_not_granted(&self) -> Vec<String> {
                match self {
                    Self::Access(AccessError::Forbidden { names }) => names.clone(),
                    _ => Vec::new(),
                }
            }
        }
    )*};
}

not_granted!(PublishError, SubscribeError, ChangeError);

/// The status of an answer with this code.
pub(super) fn status_of(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.status()).expect("the table holds valid statuses")
}

/// Logs a failure of the application's follow store: clients must not see its text.
fn log_cause(error: &(dyn Error + 'static)) {
    let cause = error.source().and_then(|source| source.downcast_ref::<GraphError>());
    if let Some(GraphError::Unavailable(source)) = cause {
        tracing::warn!(error = %source, "follow graph unavailable");
    }
}
