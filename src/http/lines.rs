//! NDJSON answers. They may begin while the request is still arriving.

use std::sync::Arc;

use actix_web::{HttpResponse, web::Bytes};
use futures_util::{Stream, StreamExt, stream::poll_fn};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::request_budget::RequestBytes;

/// Unread answers of one request, in bytes. Many clients read the answer only after sending the
/// whole request: room for the answers to some 130,000 lines.
const MAX_UNREAD_BYTES: usize = 16 * 1024 * 1024;

/// Ready answers written in one piece.
const MAX_LINES_AT_ONCE: usize = 64;

const NDJSON: &str = "application/x-ndjson";

/// The usual length of a line, for the first allocation.
const LINE_BYTES: usize = 128;

/// Answers with one line each, counted in the request's `held` bytes until the client reads them.
/// At [`MAX_UNREAD_BYTES`], the hub stops reading the request.
pub(crate) fn answer_lines<T>(
    held: Arc<RequestBytes>,
    answers: impl Stream<Item = T> + 'static,
) -> HttpResponse
where
    T: Serialize + 'static,
{
    let mut answers = answers.ready_chunks(MAX_LINES_AT_ONCE).boxed_local();
    let unread = Arc::new(Semaphore::new(MAX_UNREAD_BYTES));
    let (sender, mut receiver) = mpsc::unbounded_channel();
    actix_web::rt::spawn(async move {
        while let Some(answers) = answers.next().await {
            let Ok(lines) = to_lines(&answers) else { return };
            let bytes = lines.len().min(MAX_UNREAD_BYTES) as u32;
            let Ok(room) = unread.clone().acquire_many_owned(bytes).await else { return };
            held.add(lines.len());
            let piece = UnreadLines { lines, held: held.clone(), _room: room };
            if sender.send(piece).is_err() {
                // The client is gone: the rest of its request is not accepted.
                return;
            }
        }
    });
    let body = poll_fn(move |task| receiver.poll_recv(task));
    let body = body.map(|piece| Ok::<_, actix_web::Error>(piece.lines.clone()));
    HttpResponse::Ok().content_type(NDJSON).streaming(body)
}

/// A piece of an answer, until the connection takes it.
struct UnreadLines {
    lines: Bytes,
    held: Arc<RequestBytes>,
    _room: OwnedSemaphorePermit,
}

impl Drop for UnreadLines {
    fn drop(&mut self) {
        self.held.subtract(self.lines.len());
    }
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
