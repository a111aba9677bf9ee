//! `fanfare publish` with lines of standard input: an event each, sent as they arrive. Owns batches
//! and retries; `event` owns the bodies.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, IsTerminal, Read},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use fanfare_bench::hub_address::ErrorBody;
use indicatif::ProgressBar;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{MAX_ANSWER_BYTES, MAX_DATA_BYTES, PATH, event::PublishedEvent, not_a_hub};
use crate::{
    CliError,
    client::{Backoff, HubClient, HubError, HubRequest, note},
    progress,
};

/// Bounds of one request of lines. Proxies accept this many bytes by default.
const MAX_BATCH_LINES: usize = 500;
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Most bytes of the answers to one request. The hub answers while it reads, and the command reads
/// only after it has sent everything, so these answers must fit into the sockets' buffers.
const MAX_ANSWERS_BYTES: usize = 96 * 1024;

/// Bytes of an answer without its topic.
const ANSWER_BYTES: usize = 160;

/// Longest wait for the next bytes of an answer.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// Longest outage before the command gives up. The hub's idempotency window is five minutes;
/// within it, a retry delivers nothing twice.
const MAX_BROKEN: Duration = Duration::from_secs(60);

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Codes of temporary refusals: the line is sent again.
const TEMPORARY: [&str; 5] =
    ["at_capacity", "rate_limited", "too_many_ids", "draining", "bridge_down"];

/// Publishes until the end of standard input.
pub(super) async fn publish(client: HubClient, event: PublishedEvent) -> Result<(), CliError> {
    let progress = progress();
    // A thread reads the lines, so the next batch fills while a request is in flight.
    let (sender, mut input) = mpsc::channel(MAX_BATCH_LINES);
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || read_lines(io::stdin().lock(), &sender))
        .map_err(|error| CliError::Failed(format!("standard input: {error}")))?;
    let mut publisher = LinePublisher::new(client, event, progress);
    let ended = publisher.run(&mut input).await;
    publisher.progress.finish_and_clear();
    let count = publisher.published_count;
    note(format_args!("published {count} event{}", if count == 1 { "" } else { "s" }));
    ended?;
    match publisher.refused_count {
        0 => Ok(()),
        1 => Err(CliError::Failed("1 line was not published".to_owned())),
        count => Err(CliError::Failed(format!("{count} lines were not published"))),
    }
}

/// The shown progress: through a file, or without an end. Typed lines need none.
fn progress() -> ProgressBar {
    if io::stdin().is_terminal() {
        note("publishing each typed line as an event; Ctrl-D ends");
        return ProgressBar::hidden();
    }
    let file = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let metadata = file.and_then(|file| file.metadata());
    let length = metadata.ok().filter(|file| file.is_file()).map(|file| file.len());
    progress::lines(length)
}

type Input = Result<Vec<u8>, String>;

/// Sends each line without its line end. Ends with the input, at an error, or once the receiver
/// is gone.
fn read_lines(mut from: impl BufRead, to: &mpsc::Sender<Input>) {
    loop {
        let mut line = Vec::new();
        let read = from.by_ref().take(MAX_DATA_BYTES).read_until(b'\n', &mut line);
        let input = match read {
            Ok(0) => return,
            Ok(_) if line.len() as u64 == MAX_DATA_BYTES && !line.ends_with(b"\n") => {
                Err(format!("a line exceeds {MAX_DATA_BYTES} bytes"))
            }
            Ok(_) => Ok(without_end(line)),
            Err(error) => Err(error.to_string()),
        };
        let is_last = input.is_err();
        if to.blocking_send(input).is_err() || is_last {
            return;
        }
    }
}

fn without_end(mut line: Vec<u8>) -> Vec<u8> {
    if line.ends_with(b"\n") {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    line
}

/// A line not yet accepted by the hub.
struct InputLine {
    /// Line number, from 1.
    number: u64,
    /// Bytes of the input, line end included.
    input_bytes: u64,
    /// The event with its id, and the line end.
    body: Vec<u8>,
}

/// The hub's answer to a line. `Later` asks for a retry.
enum LineOutcome {
    Taken,
    Refused(ErrorBody),
    Later,
}

/// Why lines of a request are still pending.
enum Halt {
    /// The hub has not accepted them: retry.
    Busy { why: String, retry_after: Option<Duration> },
    /// The hub may have accepted them: retry with the same ids, for a limited time.
    Broken(String),
    /// The hub will never accept them.
    Fatal(String),
}

impl From<HubError> for Halt {
    fn from(error: HubError) -> Self {
        let why = error.to_string();
        match error {
            HubError::Refused(refusal) if refusal.is_temporary() => {
                Self::Busy { why, retry_after: refusal.retry_after }
            }
            HubError::Refused(refusal) if !refusal.status.is_server_error() => Self::Fatal(why),
            _ => Self::Broken(why),
        }
    }
}

/// Sends all available lines in one request, and retries the lines not accepted.
struct LinePublisher {
    client: HubClient,
    /// The event of each line, without its data.
    event: PublishedEvent,
    /// Prefix of the ids of this run's events: given, or random.
    id_prefix: String,
    read_count: u64,
    published_count: u64,
    refused_count: u64,
    pending: VecDeque<InputLine>,
    backoff: Backoff,
    /// Start of the current outage.
    broken_since: Option<Instant>,
    /// Whether the hub has ever answered. Without any answer there is no retry: the address is
    /// more likely wrong than the hub restarting.
    was_answered: bool,
    /// Counts the bytes of settled lines.
    progress: ProgressBar,
}

impl LinePublisher {
    fn new(client: HubClient, event: PublishedEvent, progress: ProgressBar) -> Self {
        let random = || format!("{:016x}", rand::random::<u64>());
        Self {
            id_prefix: event.id.clone().unwrap_or_else(random),
            client,
            event,
            read_count: 0,
            published_count: 0,
            refused_count: 0,
            pending: VecDeque::new(),
            backoff: Backoff::new(FIRST_BACKOFF, MAX_BACKOFF),
            broken_since: None,
            was_answered: false,
            progress,
        }
    }

    async fn run(&mut self, input: &mut mpsc::Receiver<Input>) -> Result<(), CliError> {
        while self.fill(input).await? {
            let count = batch_count(&self.pending, max_batch_lines(&self.event.topics));
            let mut outcomes = Vec::with_capacity(count);
            let sent = self.send(count, &mut outcomes).await;
            self.settle(count, outcomes);
            if let Err(halt) = sent {
                self.wait(halt).await?;
            }
        }
        Ok(())
    }

    /// Waits for a line, and takes further available lines. False at the end of the input with no
    /// line left to send.
    async fn fill(&mut self, input: &mut mpsc::Receiver<Input>) -> Result<bool, CliError> {
        while self.pending.is_empty() {
            match input.recv().await {
                Some(line) => self.on_input(line)?,
                None => return Ok(false),
            }
        }
        while self.pending.len() < MAX_BATCH_LINES {
            match input.try_recv() {
                Ok(line) => self.on_input(line)?,
                Err(_) => break,
            }
        }
        Ok(true)
    }

    fn on_input(&mut self, input: Input) -> Result<(), CliError> {
        let line = input.map_err(|why| CliError::Failed(format!("standard input: {why}")))?;
        self.read_count += 1;
        let (number, input_bytes) = (self.read_count, line.len() as u64 + 1);
        let id = format!("{}-{number}", self.id_prefix);
        let data = str::from_utf8(&line).map_err(|_| "not UTF-8".to_owned());
        match data.and_then(|data| self.event.body(Some(data), Some(&id))) {
            Ok(mut body) => {
                body.push(b'\n');
                self.pending.push_back(InputLine { number, input_bytes, body });
            }
            Err(why) => {
                self.progress.inc(input_bytes);
                self.refuse(number, why);
            }
        }
        Ok(())
    }

    fn refuse(&mut self, number: u64, why: impl std::fmt::Display) {
        self.refused_count += 1;
        self.note(format_args!("line {number}: {why}"));
    }

    /// Prints a line above the shown progress.
    fn note(&self, line: impl std::fmt::Display) {
        self.progress.suspend(|| note(line));
    }

    /// Sends the first lines in one request, and collects their answers as they arrive. After a
    /// lost connection, the answers received before it still count.
    async fn send(&mut self, count: usize, outcomes: &mut Vec<LineOutcome>) -> Result<(), Halt> {
        let lines: Vec<&[u8]> =
            self.pending.iter().take(count).map(|line| line.body.as_slice()).collect();
        let body = lines.concat();
        let content_type = "application/x-ndjson";
        let mut answer = self.client.send(HubRequest::post(PATH, content_type, body)).await?;
        let mut answers = AnswerReader::default();
        while let Some(chunk) = answer.next_chunk(MAX_SILENCE).await? {
            answers.push(&chunk)?;
            while let Some(line) = answers.next() {
                outcomes.push(outcome(&line)?);
            }
        }
        match outcomes.len() {
            answered if answered < count => {
                let why = format!("the hub answered {answered} of {count} lines");
                Err(Halt::Broken(why))
            }
            _ if outcomes.iter().any(|outcome| matches!(outcome, LineOutcome::Later)) => {
                let why = "the hub has not accepted all lines".to_owned();
                Err(Halt::Busy { why, retry_after: None })
            }
            _ => Ok(()),
        }
    }

    /// Removes the answered lines of a request from the pending ones. Lines without an answer, and
    /// lines with [`LineOutcome::Later`], stay in order at the front.
    fn settle(&mut self, count: usize, outcomes: Vec<LineOutcome>) {
        let sent: Vec<InputLine> = self.pending.drain(..count).collect();
        let outcomes = outcomes.into_iter().chain(std::iter::repeat_with(|| LineOutcome::Later));
        let mut left = Vec::new();
        for (line, outcome) in sent.into_iter().zip(outcomes) {
            if !matches!(outcome, LineOutcome::Later) {
                self.progress.inc(line.input_bytes);
            }
            match outcome {
                LineOutcome::Taken => self.published_count += 1,
                LineOutcome::Refused(ErrorBody { code, message }) => {
                    self.refuse(line.number, format_args!("{code}: {message}"));
                }
                LineOutcome::Later => left.push(line),
            }
        }
        self.progress.set_message(format!("{} events", self.published_count));
        if left.len() < count {
            self.was_answered = true;
            self.broken_since = None;
            self.backoff.reset();
        }
        left.into_iter().rev().for_each(|line| self.pending.push_front(line));
    }

    async fn wait(&mut self, halt: Halt) -> Result<(), CliError> {
        let (why, retry_after) = match halt {
            Halt::Fatal(why) => return Err(self.give_up(&why)),
            Halt::Busy { why, retry_after } => {
                self.was_answered = true;
                self.broken_since = None;
                (why, retry_after)
            }
            Halt::Broken(why) => {
                let since = *self.broken_since.get_or_insert_with(Instant::now);
                if !self.was_answered || since.elapsed() > MAX_BROKEN {
                    return Err(self.give_up(&why));
                }
                (why, None)
            }
        };
        let after = self.backoff.next(retry_after);
        self.note(format_args!("{why}; retrying in {} ms", after.as_millis()));
        tokio::time::sleep(after).await;
        Ok(())
    }

    fn give_up(&self, why: &str) -> CliError {
        let at = self.pending.front().map(|line| format!("from line {} on: ", line.number));
        CliError::Failed(format!("{}{why}", at.unwrap_or_default()))
    }
}

/// The number of first lines for one request, at least one.
fn batch_count(pending: &VecDeque<InputLine>, max_lines: usize) -> usize {
    let mut bytes = 0;
    let fitting = pending.iter().take(max_lines).take_while(|line| {
        bytes += line.body.len();
        bytes <= MAX_BATCH_BYTES
    });
    fitting.count().max(1)
}

fn max_batch_lines(topics: &[String]) -> usize {
    let answer_bytes: usize = topics.iter().map(|topic| ANSWER_BYTES + topic.len()).sum();
    (MAX_ANSWERS_BYTES / answer_bytes.max(1)).clamp(1, MAX_BATCH_LINES)
}

/// The answer to an event of one topic.
#[derive(Deserialize)]
struct PublishAnswer {
    success: bool,
    error: Option<ErrorBody>,
}

/// The answer to a line: an object, or an array with one object per topic.
fn outcome(line: &[u8]) -> Result<LineOutcome, Halt> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum LineAnswer {
        One(PublishAnswer),
        Many(Vec<PublishAnswer>),
    }
    let answer = match serde_json::from_slice(line) {
        Ok(LineAnswer::One(answer)) => Some(answer),
        Ok(LineAnswer::Many(answers)) => {
            let count = answers.len();
            let mut failed = answers.into_iter().filter(|answer| !answer.success);
            let success = PublishAnswer { success: true, error: None };
            failed.next().or((count > 0).then_some(success))
        }
        Err(_) => None,
    };
    match answer {
        Some(PublishAnswer { success: true, .. }) => Ok(LineOutcome::Taken),
        Some(PublishAnswer { error: Some(error), .. })
            if TEMPORARY.contains(&error.code.as_str()) =>
        {
            Ok(LineOutcome::Later)
        }
        Some(PublishAnswer { error: Some(error), .. }) => Ok(LineOutcome::Refused(error)),
        _ => Err(Halt::Fatal(not_a_hub("an answer without success or error").to_string())),
    }
}

/// Splits the response into answers, one per line. A truncated last line is not an answer.
#[derive(Default)]
struct AnswerReader(BytesMut);

impl AnswerReader {
    fn push(&mut self, chunk: &[u8]) -> Result<(), Halt> {
        if self.0.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Halt::Fatal(not_a_hub("an answer line is too long").to_string()));
        }
        self.0.extend_from_slice(chunk);
        Ok(())
    }

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let end = self.0.iter().position(|byte| *byte == b'\n')?;
            let line = self.0.split_to(end + 1).freeze();
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests;
