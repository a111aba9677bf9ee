//! `POST /follows`: an import of edges, one per line, without a limit on lines. Lines are stored
//! while the body is read, so at most a few thousand are in memory.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use fanfare_core::follow::Follow;
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{
    body::{BodyLine, BodyLines, object},
    lines::answer_lines,
    media_type::media_type,
    origin::caller_of_change,
    refusal::{Refusal, RefusalBody, bad_json},
};
use crate::hub::{Caller, Hub};

/// Longest line: two names with every byte escaped, and room.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// Lines stored by one call.
const MAX_BATCH_LINES: usize = 1024;

/// Calls in flight: the import reads a batch while earlier ones are stored.
const MAX_BATCHES: usize = 4;

/// Lines between two reports.
const REPORT_LINES: u64 = 10_240;

/// A line of the body.
#[derive(Deserialize)]
struct Edge<'a> {
    #[serde(borrow)]
    follower: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    author: std::borrow::Cow<'a, str>,
}

/// A line of the answer.
#[derive(Serialize)]
#[serde(untagged)]
enum ImportLine {
    Refused {
        error: RefusalBody,
        line: u64,
    },
    Progress(ImportReport),
    Finished {
        success: bool,
        #[serde(flatten)]
        report: ImportReport,
    },
    Stopped {
        success: bool,
        #[serde(flatten)]
        report: ImportReport,
        error: RefusalBody,
        line: u64,
    },
}

/// Lines so far.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct ImportReport {
    processed: u64,
    /// New edges.
    followed: u64,
    refused: u64,
}

/// Lines stored together.
#[derive(Default)]
struct ImportBatch {
    edges: Vec<Follow>,
    refused: Vec<(u64, Refusal)>,
    first_line: u64,
    line_count: u64,
    /// The end of the import after this batch: the line without a readable body, and the refusal.
    broken: Option<(u64, Refusal)>,
}

/// A stored batch with its number of new edges, or the refusal.
struct Stored {
    batch: ImportBatch,
    followed: Result<u64, Refusal>,
}

/// Stores the edges of a body. The answer begins while the body is read.
pub(crate) async fn post(
    hub: Data<Hub>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Refusal> {
    let caller = caller_of_change(&hub, &request).await?;
    // Lines of JSON under any of its names.
    media_type(&request)?;
    let lines = BodyLines::new(&hub, &request, payload, MAX_LINE_BYTES);
    let held = lines.held();
    let lines = lines.ready_chunks(MAX_BATCH_LINES);
    let stored = lines.map(move |lines| {
        let hub = hub.clone();
        let batch = ImportBatch::of(&caller, lines);
        async move { store(&hub, batch).await }
    });
    Ok(answer_lines(held, answers(stored.buffered(MAX_BATCHES))))
}

/// The lines of the answer: refused lines, progress, and the end.
fn answers(stored: impl Stream<Item = Stored> + 'static) -> impl Stream<Item = ImportLine> {
    let (stored, report) = (stored.boxed_local(), ImportReport::default());
    let import = Import { stored, report, reported: 0, is_finished: false };
    stream::unfold(import, |mut import| async {
        let answers = import.next().await?;
        Some((stream::iter(answers), import))
    })
    .flatten()
}

/// An import in flight.
struct Import {
    stored: stream::LocalBoxStream<'static, Stored>,
    report: ImportReport,
    /// Lines of the last report.
    reported: u64,
    is_finished: bool,
}

impl Import {
    /// The next lines of the answer; `None` at the end. `buffered` keeps batches in order, so the
    /// counts are those of a prefix of the body.
    async fn next(&mut self) -> Option<Vec<ImportLine>> {
        if self.is_finished {
            return None;
        }
        let Some(Stored { batch, followed }) = self.stored.next().await else {
            self.is_finished = true;
            return Some(vec![ImportLine::Finished { success: true, report: self.report }]);
        };
        let followed = match followed {
            Ok(followed) => followed,
            Err(refusal) => return Some(vec![self.stop(batch.first_line, refusal)]),
        };
        self.report.processed += batch.line_count;
        self.report.followed += followed;
        self.report.refused += batch.refused.len() as u64;
        let refused = batch.refused.into_iter();
        let mut answers: Vec<ImportLine> = refused
            .map(|(line, refusal)| ImportLine::Refused { error: refusal.error, line })
            .collect();
        if let Some((line, refusal)) = batch.broken {
            answers.push(self.stop(line, refusal));
        } else if self.report.processed - self.reported >= REPORT_LINES {
            self.reported = self.report.processed;
            answers.push(ImportLine::Progress(self.report));
        }
        Some(answers)
    }

    /// Ends the import at a line. This line and all later ones are not counted; some may be stored.
    fn stop(&mut self, line: u64, refusal: Refusal) -> ImportLine {
        self.is_finished = true;
        ImportLine::Stopped { success: false, report: self.report, error: refusal.error, line }
    }
}

impl ImportBatch {
    fn of(caller: &Caller, lines: Vec<BodyLine>) -> Self {
        let first_line = lines.first().map_or(0, |line| line.number);
        let mut batch = Self { first_line, ..Self::default() };
        for BodyLine { number, bytes } in lines {
            match bytes {
                Ok(bytes) => match parse(caller, &bytes) {
                    Ok(edge) => batch.edges.push(edge),
                    Err(refusal) => batch.refused.push((number, refusal)),
                },
                Err(refusal) => {
                    batch.broken = Some((number, refusal));
                    break;
                }
            }
            batch.line_count += 1;
        }
        batch
    }
}

async fn store(hub: &Hub, mut batch: ImportBatch) -> Stored {
    let edges = std::mem::take(&mut batch.edges);
    let followed = hub.follow_all(edges).await;
    Stored { batch, followed: followed.map_err(Refusal::from) }
}

/// Reads an edge of a follower whom the caller may act as.
fn parse(caller: &Caller, line: &[u8]) -> Result<Follow, Refusal> {
    let edge: Edge<'_> = object(line).map_err(bad_json)?;
    caller.acting_as(&edge.follower)?;
    Ok(Follow::parse(&edge.follower, &edge.author)?)
}
