//! One question to the application, signed, and its answer.

use std::{net::IpAddr, sync::Arc, time::Duration};

use actix_web::http::Method;
use bytes::Bytes;
use fanfare_core::access::{AskedCaller, Rights, RightsText};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{
    access::{Action, Refused},
    web_client::{WebAnswer, WebRequest},
};

/// Longest answer: a grant has at most 64 KiB of patterns, and JSON can escape them.
const MAX_ANSWER_BYTES: usize = 512 * 1024;

/// Topics in a question. The hub checks all topics of a request against the answered grant.
const MAX_LISTED_TOPICS: usize = 1000;

/// The life of an answer without `expiresMs`.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// Longest life of an answer counted: a longer one is cut.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize)]
struct Question<'a> {
    action: &'static str,
    topics: &'a [String],
    address: Option<IpAddr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerJson {
    user: Option<String>,
    #[serde(flatten)]
    rights: RightsText,
    expires_ms: Option<u64>,
}

/// A grant by the application.
#[derive(Debug)]
pub(super) struct Answer {
    pub user: Option<String>,
    pub rights: Arc<Rights>,
    pub life: Duration,
    /// An estimate of the bytes held for it.
    pub bytes: usize,
}

/// The JSON of a question.
pub(super) fn question(action: Action<'_>, address: Option<IpAddr>) -> Bytes {
    let (action, topics) = match action {
        Action::Subscribe(topics) => ("subscribe", topics),
        Action::Publish(topics) => ("publish", topics),
    };
    let topics = &topics[..topics.len().min(MAX_LISTED_TOPICS)];
    let json = serde_json::to_vec(&Question { action, topics, address });
    json.expect("texts and addresses are JSON").into()
}

/// The request with a question, signed at this time.
pub(super) fn request(
    webhook: &crate::config::Webhook,
    caller: &AskedCaller,
    body: Bytes,
    unix_s: u64,
) -> WebRequest {
    let mut headers = vec![("content-type".to_owned(), b"application/json".to_vec())];
    headers.extend(caller.headers().map(|(name, value)| (name.to_owned(), value)));
    headers.push(("x-fanfare-timestamp".to_owned(), unix_s.to_string().into_bytes()));
    if !webhook.secret.0.is_empty() {
        let signature = signature(webhook.secret.0.as_bytes(), unix_s, &body);
        headers.push(("x-fanfare-signature".to_owned(), signature.into_bytes()));
    }
    WebRequest {
        method: Method::POST,
        url: webhook.url.clone(),
        headers,
        body,
        timeout: webhook.timeout,
        max_answer_bytes: MAX_ANSWER_BYTES,
    }
}

/// `v1=` and the HMAC-SHA256 of `timestamp.body`, in hexadecimal.
fn signature(secret: &[u8], unix_s: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a secret has any length");
    mac.update(format!("{unix_s}.").as_bytes());
    mac.update(body);
    let digits = mac.finalize().into_bytes();
    digits.iter().fold("v1=".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Reads an answer. An unexpected one counts as none, and is logged.
pub(super) fn read(answer: &WebAnswer) -> Result<Answer, Refused> {
    match answer.status {
        200 => {}
        401 => return Err(Refused::Unauthenticated),
        403 => return Err(Refused::Forbidden),
        status => {
            tracing::warn!(status, "unexpected status of the application's decision");
            return Err(Refused::Unavailable);
        }
    }
    parse(&answer.body).map_err(|error| {
        tracing::warn!(error, "invalid decision of the application");
        Refused::Unavailable
    })
}

fn parse(body: &[u8]) -> Result<Answer, String> {
    let json: AnswerJson = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let AnswerJson { user, rights, expires_ms } = json;
    if let Some(user) = &user {
        fanfare_core::access::parse_user(user).map_err(|error| error.to_string())?;
    }
    let rights = Arc::new(Rights::try_from(rights).map_err(|error| error.to_string())?);
    let life = expires_ms.map_or(DEFAULT_LIFE, Duration::from_millis).min(MAX_LIFE);
    // Patterns are stored with some bytes of their own.
    Ok(Answer { user, rights, life, bytes: 256 + 4 * body.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_lists_the_request_s_topics() {
        let topics = ["a".to_owned(), "b:*".to_owned()];
        let text = question(Action::Subscribe(&topics), Some([192, 0, 2, 1].into()));
        assert_eq!(text, r#"{"action":"subscribe","topics":["a","b:*"],"address":"192.0.2.1"}"#);
    }

    #[test]
    fn the_signature_covers_time_and_body() {
        // openssl dgst -sha256 -hmac secret, of `1700000000.{}`.
        let expected = "v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163";
        assert_eq!(signature(b"secret", 1_700_000_000, b"{}"), expected);
        assert_ne!(signature(b"secret", 1_700_000_001, b"{}"), expected);
    }

    #[test]
    fn an_answer_is_a_grant_or_a_refusal() {
        let answer = |status, body: &'static str| read(&WebAnswer { status, body: body.into() });
        let granted = answer(200, r#"{"user":"7","subscribe":["a:*"],"expiresMs":5,"more":1}"#);
        let granted = granted.expect("a grant");
        assert_eq!((granted.user.as_deref(), granted.life.as_millis()), (Some("7"), 5));
        assert!(granted.rights.subscribe.contains("a:b"));
        let anonymous = answer(200, "{}").expect("a grant of nothing");
        assert!(anonymous.user.is_none() && anonymous.rights.is_empty());
        assert_eq!(answer(401, "").err(), Some(Refused::Unauthenticated));
        assert_eq!(answer(403, "").err(), Some(Refused::Forbidden));
        for (status, body) in [
            (500, "{}"),
            (204, ""),
            (302, "{}"),
            (404, "{}"),
            (200, ""),
            (200, "<html>"),
            (200, r#"{"user":"*"}"#),
            (200, r#"{"user":5}"#),
            (200, r#"{"subscribe":"a"}"#),
            (200, r#"{"publish":["a b"]}"#),
            (200, r#"{"expiresMs":"5"}"#),
            (200, r#"{"expiresMs":-5}"#),
        ] {
            assert_eq!(answer(status, body).err(), Some(Refused::Unavailable), "{status} {body}");
        }
    }
}
