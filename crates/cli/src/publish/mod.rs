//! `fanfare publish`: publishes one event, or one per line of standard input as lines arrive.

use std::{
    collections::VecDeque,
    io::{self, BufRead, IsTerminal, Read, Write},
    thread,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use fanfare_bench::hub_address::{ErrorBody, HubArgs};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::{
    CliError,
    client::{Backoff, HubClient, HubError, HubRequest, note},
    tail::one_line,
};

const PATH: &str = "/events/publish";

/// Bounds of one request of lines. Proxies accept this many bytes by default.
const MAX_BATCH_LINES: usize = 500;
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Most bytes of the answers to one request. The hub answers while it reads, and the command reads
/// only after it has sent everything, so these answers must fit into the sockets' buffers.
const MAX_ANSWERS_BYTES: usize = 96 * 1024;

/// Bytes of an answer without its topic.
const ANSWER_BYTES: usize = 160;

/// Longest line of input and longest answer kept in memory.
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

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

#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// Topic to publish to
    topic: String,
    /// The event's data, published as JSON if it is JSON other than a string, otherwise as text.
    /// Without it, each line of standard input is an event
    #[arg(allow_negative_numbers = true)]
    data: Option<String>,
    /// Event type
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// Key of the event, for conflation
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    hub: HubArgs,
}

/// Publishes, and returns once the hub has accepted all events into its history.
pub(crate) async fn run(args: PublishArgs) -> Result<(), CliError> {
    let client = HubClient::new(&args.hub)?;
    match &args.data {
        Some(data) => publish_one(&client, args.body(data, None)).await,
        None => publish_lines(client, args).await,
    }
}

impl PublishArgs {
    /// The JSON body of a publish. It is one line if `data` is one line.
    fn body(&self, data: &str, id: Option<&str>) -> Vec<u8> {
        #[derive(Serialize)]
        struct PublishBody<'a> {
            topic: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            event: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            key: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<&'a str>,
            data: Data<'a>,
        }
        let (event, key) = (self.event.as_deref(), self.key.as_deref());
        let body = PublishBody { topic: &self.topic, event, key, id, data: Data::new(data) };
        serde_json::to_vec(&body).expect("strings and checked JSON serialize")
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    /// The unchanged text: a parsed value would change numbers.
    Json(&'a RawValue),
    Text(&'a str),
}

impl<'a> Data<'a> {
    /// A JSON string is published as text with its quotes. Parsing it would drop the quotes
    /// silently.
    fn new(text: &'a str) -> Self {
        let json = serde_json::from_str::<&RawValue>(text).ok();
        json.filter(|json| !json.get().starts_with('"')).map_or(Self::Text(text), Self::Json)
    }
}

async fn publish_one(client: &HubClient, body: Vec<u8>) -> Result<(), CliError> {
    let failed = |error: HubError| CliError::Failed(error.to_string());
    let request = HubRequest { path: PATH, content_type: "application/json", body: body.into() };
    let answer = client.post(request).await.map_err(failed)?;
    let answer = answer.read(MAX_ANSWER_BYTES).await.map_err(failed)?;
    let answer = serde_json::from_slice::<&RawValue>(&answer).map_err(not_a_hub)?;
    // The event is published, so a closed standard output is no error.
    let _ = writeln!(io::stdout(), "{}", one_line(answer));
    Ok(())
}

async fn publish_lines(client: HubClient, args: PublishArgs) -> Result<(), CliError> {
    if io::stdin().is_terminal() {
        note("publishing each typed line as an event; Ctrl-D ends");
    }
    // A thread reads the lines, so the next batch fills while a request is in flight.
    let (sender, mut input) = mpsc::channel(MAX_BATCH_LINES);
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || read_lines(io::stdin().lock(), &sender))
        .map_err(|error| CliError::Failed(format!("standard input: {error}")))?;
    let mut publisher = LinePublisher::new(client, args);
    let ended = publisher.run(&mut input).await;
    let count = publisher.published_count;
    note(format_args!("published {count} event{}", if count == 1 { "" } else { "s" }));
    ended?;
    match publisher.refused_count {
        0 => Ok(()),
        1 => Err(CliError::Failed("1 line was not published".to_owned())),
        count => Err(CliError::Failed(format!("{count} lines were not published"))),
    }
}

type Input = Result<Vec<u8>, String>;

/// Sends each line without its line end. Ends with the input, at an error, or once the receiver
/// is gone.
fn read_lines(mut from: impl BufRead, to: &mpsc::Sender<Input>) {
    loop {
        let mut line = Vec::new();
        let read = from.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        let input = match read {
            Ok(0) => return,
            Ok(_) if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") => {
                Err(format!("a line exceeds {MAX_LINE_BYTES} bytes"))
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
    args: PublishArgs,
    /// Random prefix of this run's event ids.
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
}

impl LinePublisher {
    fn new(client: HubClient, args: PublishArgs) -> Self {
        Self {
            client,
            args,
            id_prefix: format!("{:016x}", rand::random::<u64>()),
            read_count: 0,
            published_count: 0,
            refused_count: 0,
            pending: VecDeque::new(),
            backoff: Backoff::new(FIRST_BACKOFF, MAX_BACKOFF),
            broken_since: None,
            was_answered: false,
        }
    }

    async fn run(&mut self, input: &mut mpsc::Receiver<Input>) -> Result<(), CliError> {
        while self.fill(input).await? {
            let count = batch_count(&self.pending, max_batch_lines(self.args.topic.len()));
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
        let number = self.read_count;
        match str::from_utf8(&line) {
            Ok(data) => {
                let id = format!("{}-{number}", self.id_prefix);
                let mut body = self.args.body(data, Some(&id));
                body.push(b'\n');
                self.pending.push_back(InputLine { number, body });
            }
            Err(_) => self.refuse(number, "not UTF-8"),
        }
        Ok(())
    }

    fn refuse(&mut self, number: u64, why: impl std::fmt::Display) {
        self.refused_count += 1;
        note(format_args!("line {number}: {why}"));
    }

    /// Sends the first lines in one request, and collects their answers as they arrive. After a
    /// lost connection, the answers received before it still count.
    async fn send(&mut self, count: usize, outcomes: &mut Vec<LineOutcome>) -> Result<(), Halt> {
        let lines: Vec<&[u8]> =
            self.pending.iter().take(count).map(|line| line.body.as_slice()).collect();
        let body = lines.concat().into();
        let content_type = "application/x-ndjson";
        let mut answer = self.client.post(HubRequest { path: PATH, content_type, body }).await?;
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
            match outcome {
                LineOutcome::Taken => self.published_count += 1,
                LineOutcome::Refused(ErrorBody { code, message }) => {
                    self.refuse(line.number, format_args!("{code}: {message}"));
                }
                LineOutcome::Later => left.push(line),
            }
        }
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
        note(format_args!("{why}; retrying in {} ms", after.as_millis()));
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

fn max_batch_lines(topic_bytes: usize) -> usize {
    (MAX_ANSWERS_BYTES / (ANSWER_BYTES + topic_bytes)).clamp(1, MAX_BATCH_LINES)
}

fn outcome(line: &[u8]) -> Result<LineOutcome, Halt> {
    #[derive(Deserialize)]
    struct PublishAnswer {
        success: bool,
        error: Option<ErrorBody>,
    }
    match serde_json::from_slice(line) {
        Ok(PublishAnswer { success: true, .. }) => Ok(LineOutcome::Taken),
        Ok(PublishAnswer { error: Some(error), .. })
            if TEMPORARY.contains(&error.code.as_str()) =>
        {
            Ok(LineOutcome::Later)
        }
        Ok(PublishAnswer { error: Some(error), .. }) => Ok(LineOutcome::Refused(error)),
        Ok(_) => Err(Halt::Fatal(not_a_hub("an answer without success or error").to_string())),
        Err(error) => Err(Halt::Fatal(not_a_hub(error).to_string())),
    }
}

fn not_a_hub(why: impl std::fmt::Display) -> CliError {
    CliError::Failed(format!("no fanfare hub at this address: {why}"))
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
