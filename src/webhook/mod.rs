//! The application's decision by HTTP: one question for each credential, kept for the life of its
//! answer. At its end the streams of the credential ask together again.
//!
//! Not here: sending (`web_client`), and the check of a request against a grant (`access`).

mod answers;
mod breaker;
mod caller;
mod exchange;

use std::sync::Arc;

use actix_web::{dev::RequestHead, http::header::HeaderName};
use bytes::Bytes;
use fanfare_core::access::{AskedCaller, MAX_ASKED_BYTES};
use futures_util::{
    FutureExt,
    future::{BoxFuture, LocalBoxFuture},
};
use parking_lot::Mutex;

use self::{
    answers::{Answers, Asking, Found, Known, Outcome},
    breaker::Breaker,
    caller::{CallerKey, caller_of, key_of},
};
use crate::{
    access::{self, Action, Decide, Decision, Refused},
    addresses::Addresses,
    clock::{now, unix_ms},
    config::{self, Limits},
    web_client::{WebClient, WebError},
};

/// Asks the application about callers. Clones share all answers.
#[derive(Clone)]
pub(crate) struct Webhook {
    shared: Arc<Shared>,
}

struct Shared {
    config: config::Webhook,
    /// The configured headers.
    headers: Vec<HeaderName>,
    addresses: Addresses,
    web: WebClient,
    answers: Mutex<Answers>,
    breaker: Mutex<Breaker>,
}

impl Webhook {
    /// `config` must be valid, and have a URL.
    pub fn new(config: config::Webhook, limits: Limits, web: WebClient) -> Self {
        let headers = config.headers.iter().filter_map(|name| name.parse().ok()).collect();
        let addresses = Addresses::new(limits);
        let (answers, breaker) = (Mutex::default(), Mutex::default());
        let shared = Shared { config, headers, addresses, web, answers, breaker };
        Self { shared: Arc::new(shared) }
    }

    /// The caller of a request.
    fn caller(&self, head: &RequestHead) -> Arc<AskedCaller> {
        let address = self.shared.addresses.client(head.peer_addr, &head.headers);
        Arc::new(caller_of(head, &self.shared.headers, address))
    }

    /// The known answer for a caller, else a new one.
    async fn outcome(&self, caller: Arc<AskedCaller>, action: Action<'_>) -> Outcome {
        if caller.bytes() > MAX_ASKED_BYTES {
            return Err(Refused::Unauthenticated);
        }
        let key = key_of(&caller);
        let is_first_look = access::is_first_look();
        let asking = {
            let mut answers = self.shared.answers.lock();
            let found = if is_first_look {
                answers.find(&key, now())
            } else {
                answers.find_again(&key, now())
            };
            match found {
                Found::Known(known) => return Ok(known),
                Found::Refused(refused) => return Err(refused),
                Found::Asking(asking) => asking,
                Found::Nothing => {
                    let question = exchange::question(action, caller.address());
                    self.ask(&mut answers, key, caller, question)
                }
            }
        };
        let outcome = asking.await;
        if is_first_look && let Err(refused) = outcome {
            self.shared.answers.lock().refuse(key, refused, now());
        }
        outcome
    }

    fn ask(
        &self,
        answers: &mut Answers,
        key: CallerKey,
        caller: Arc<AskedCaller>,
        question: Bytes,
    ) -> Asking {
        let shared = self.shared.clone();
        let outcome = async move {
            let outcome = shared.exchange(caller, question).await;
            shared.answers.lock().finish(key, &outcome, now());
            outcome
        };
        answers.begin(key, outcome.boxed())
    }
}

impl Shared {
    async fn exchange(&self, caller: Arc<AskedCaller>, question: Bytes) -> Outcome {
        if !self.breaker.lock().may_ask(now()) {
            return Err(Refused::Unavailable);
        }
        let (at, at_ms) = (now(), unix_ms());
        let request = exchange::request(&self.config, &caller, question, at_ms / 1000);
        let answer = match self.web.send(request).await {
            Ok(answer) => exchange::read(&answer),
            Err(error) => {
                tracing::warn!(%error, "application's decision unavailable");
                // Our own limit says nothing about the application.
                if matches!(error, WebError::Busy) {
                    return Err(Refused::Unavailable);
                }
                Err(Refused::Unavailable)
            }
        };
        let mut breaker = self.breaker.lock();
        match answer {
            Err(Refused::Unavailable) => breaker.on_failure(now()),
            _ => breaker.on_answer(),
        }
        answer.map(|answer| Arc::new(Known { ends_at: at + answer.life, answer, caller, at_ms }))
    }
}

impl Decide for Webhook {
    fn decide<'a>(
        &'a self,
        head: &'a RequestHead,
        action: Action<'a>,
    ) -> LocalBoxFuture<'a, Result<Decision, Refused>> {
        let asked = self.outcome(self.caller(head), action);
        asked.map(|outcome| outcome.map(|known| decision(&known))).boxed_local()
    }

    fn decide_again(
        &self,
        caller: Arc<AskedCaller>,
        topics: Vec<String>,
    ) -> BoxFuture<'static, Result<Decision, Refused>> {
        let webhook = self.clone();
        async move {
            let outcome = webhook.outcome(caller, Action::Subscribe(&topics)).await;
            outcome.map(|known| decision(&known))
        }
        .boxed()
    }
}

fn decision(known: &Known) -> Decision {
    let answer = &known.answer;
    Decision {
        user: answer.user.clone(),
        rights: answer.rights.clone(),
        at_ms: known.at_ms,
        expires_at_ms: Some(known.at_ms + answer.life.as_millis() as u64),
        asked: Some(known.caller.clone()),
    }
}
