//! NDJSON answers. They may begin while the request is still arriving.

use actix_web::{HttpResponse, web::Bytes};
use futures_util::{Stream, StreamExt, stream::poll_fn};
use serde::Serialize;
use tokio::sync::mpsc;

/// Unread answers of one request: some 20 MB.
const MAX_UNREAD_ANSWERS: usize = 100_000;

/// Ready answers written in one piece.
const MAX_LINES_AT_ONCE: usize = 64;

const NDJSON: &str = "application/x-ndjson";

/// The usual length of a line, for the first allocation.
const LINE_BYTES: usize = 128;

/// Answers with one line each. Many clients read the answer only after sending the whole request.
/// So answers gather here, at most [`MAX_UNREAD_ANSWERS`]; then the hub stops reading the request.
pub(crate) fn answer_lines<T>(answers: impl Stream<Item = T> + 'static) -> HttpResponse
where
    T: Serialize + 'static,
{
    let mut answers = answers.boxed_local();
    let (sender, mut receiver) = mpsc::channel(MAX_UNREAD_ANSWERS);
    actix_web::rt::spawn(async move {
        while let Some(answer) = answers.next().await {
            if sender.send(answer).await.is_err() {
                // The client is gone: the rest of its request is not accepted.
                return;
            }
        }
    });
    let answers = poll_fn(move |task| receiver.poll_recv(task)).ready_chunks(MAX_LINES_AT_ONCE);
    let body = answers.map(|answers| to_lines(&answers));
    HttpResponse::Ok().content_type(NDJSON).streaming(body)
}

/// Answers with one line each, all ready.
pub(crate) fn answer_all_lines(answers: &[impl Serialize]) -> HttpResponse {
    match to_lines(answers) {
        Ok(lines) => HttpResponse::Ok().content_type(NDJSON).body(lines),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

fn to_lines(answers: &[impl Serialize]) -> serde_json::Result<Bytes> {
    let mut lines = Vec::with_capacity(answers.len() * LINE_BYTES);
    for answer in answers {
        serde_json::to_writer(&mut lines, answer)?;
        lines.push(b'\n');
    }
    Ok(lines.into())
}
