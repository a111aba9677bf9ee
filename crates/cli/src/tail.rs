//! `fanfare tail`: follows topics, reconnects without a limit, and resumes. Events go to standard
//! output, everything else to standard error.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    pin::pin,
    time::Duration,
};

use awc::http::StatusCode;
use fanfare_bench::hub_address::HubArgs;
use fanfare_core::sse::decode::{Decoded, Decoder};
use futures_util::future::{Either, select};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    CliError,
    client::{Backoff, HubClient, HubError, HubRequest, HubResponse, note},
    terminal::escaped,
};

/// A hub writes a heartbeat every 15 s. After four missing heartbeats, the connection is dead.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// Wait before a reconnect, if the hub sent no `retry:`. Browsers wait about as long.
const DEFAULT_RETRY: Duration = Duration::from_secs(3);

/// Bounds of the waits while the hub is unavailable or refuses streams.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Most topics of a stream named on standard error; further ones are counted.
const MAX_NAMED_TOPICS: usize = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    /// Topics to follow; `*` stands for one segment, a last `**` for one or more
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Start after the event with this id; `earliest` starts with the oldest stored event
    #[arg(long, value_name = "ID")]
    from: Option<String>,
    /// Print each event as a JSON object with its id, topic, type and key
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: HubArgs,
}

/// Follows until the hub answers 204 (no more events) or standard output is closed.
///
/// # Errors
/// The hub refuses for good, an event is too large, or standard output fails.
pub(crate) async fn run(args: TailArgs) -> Result<(), CliError> {
    let client = HubClient::new(&args.hub)?;
    let names_topic = args.topics.len() > 1 || args.topics.iter().any(|topic| topic.contains('*'));
    let form = match (args.json, names_topic) {
        (true, _) => TailForm::Json,
        (false, true) => TailForm::TopicAndData,
        (false, false) => TailForm::Data,
    };
    let is_terminal = io::stdout().is_terminal();
    let output = TailOutput { out: BufWriter::new(io::stdout()), form, is_terminal };
    let tail = Tail {
        client,
        topics: args.topics,
        last_id: args.from.filter(|id| !id.is_empty()),
        retry: DEFAULT_RETRY,
        backoff: Backoff::new(FIRST_BACKOFF, MAX_BACKOFF),
        output,
    };
    match select(pin!(tail.follow()), pin!(stdout_closed())).await {
        Either::Left((ended, _)) => ended,
        Either::Right(((), _)) => Ok(()),
    }
}

/// How a connection ended.
enum Ending {
    /// No more events, or standard output is closed.
    Done,
    Again {
        why: String,
        after: Duration,
    },
}

struct Tail<W> {
    client: HubClient,
    topics: Vec<String>,
    /// The id of the last printed event; at first, the id to start after.
    last_id: Option<String>,
    /// The last `retry:` of the hub.
    retry: Duration,
    backoff: Backoff,
    output: TailOutput<W>,
}

impl<W: Write> Tail<W> {
    async fn follow(mut self) -> Result<(), CliError> {
        loop {
            let ending = match self.open().await {
                Ok(answer) => self.read(answer).await?,
                Err(error) => self.on_refused(error)?,
            };
            let Ending::Again { why, after } = ending else {
                return Ok(());
            };
            note(format_args!("disconnected: {why}; reconnecting in {} ms", after.as_millis()));
            tokio::time::sleep(after).await;
        }
    }

    async fn open(&self) -> Result<HubResponse, HubError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct TailBody<'a> {
            topics: &'a [String],
            #[serde(skip_serializing_if = "Option::is_none")]
            last_event_id: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            batch: Option<&'a str>,
        }
        let batch = (self.output.form != TailForm::Data).then_some("json");
        let last_event_id = self.last_id.as_deref();
        let body = serde_json::to_vec(&TailBody { topics: &self.topics, last_event_id, batch })
            .expect("strings serialize");
        let content_type = "application/json";
        self.client
            .post(HubRequest { path: "/events/stream", content_type, body: body.into() })
            .await
    }

    fn on_refused(&mut self, error: HubError) -> Result<Ending, CliError> {
        let retry_after = match &error {
            HubError::Broken(_) => None,
            HubError::Refused(refusal)
                if refusal.is_temporary() || refusal.status.is_server_error() =>
            {
                refusal.retry_after
            }
            HubError::Refused(refusal) => return Err(CliError::Failed(refusal.to_string())),
        };
        Ok(Ending::Again { why: error.to_string(), after: self.backoff.next(retry_after) })
    }

    async fn read(&mut self, mut answer: HubResponse) -> Result<Ending, CliError> {
        if answer.status == StatusCode::NO_CONTENT {
            return Ok(Ending::Done);
        }
        if !answer.is_event_stream() {
            let message = "no fanfare hub at this address: the response is not an event stream";
            return Err(CliError::Failed(message.to_owned()));
        }
        self.backoff.reset();
        let mut stream = Decoder::default();
        let mut reconnect_in = None;
        let why = loop {
            let chunk = match answer.next_chunk(MAX_SILENCE).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break "the stream ended".to_owned(),
                Err(error) => break error.to_string(),
            };
            // No reconnect after this error: the hub would send the same event again.
            stream.push(&chunk).map_err(|error| CliError::Failed(error.to_string()))?;
            match self.print(&mut stream) {
                Ok(asked) => reconnect_in = asked.or(reconnect_in),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Ending::Done),
                Err(error) => return Err(CliError::Failed(format!("standard output: {error}"))),
            }
        };
        Ok(Ending::Again { why, after: reconnect_in.unwrap_or(self.retry) })
    }

    /// Prints the complete events, and updates the last id only after the flush: an event counts
    /// as seen once it is printed. Returns the wait requested by a `shutdown` event.
    fn print(&mut self, stream: &mut Decoder) -> io::Result<Option<Duration>> {
        let mut reconnect_in = None;
        while let Some(decoded) = stream.pop() {
            match decoded {
                Decoded::Comment => {}
                Decoded::Retry(retry) => self.retry = retry,
                Decoded::Event { event_type, data, .. } => {
                    let Some(control) = Control::parse(&event_type, &data) else {
                        self.output.event(&event_type, &data)?;
                        continue;
                    };
                    note(control.describe(&event_type));
                    reconnect_in = control.reconnect_ms.map(Duration::from_millis);
                }
            }
        }
        self.output.out.flush()?;
        if !stream.last_event_id().is_empty() {
            self.last_id = Some(stream.last_event_id().to_owned());
        }
        Ok(reconnect_in)
    }
}

/// The form of a printed event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TailForm {
    Data,
    /// The topic, a tab, the data: for a stream of several topics.
    TopicAndData,
    /// The item of a JSON batch.
    Json,
}

/// Prints events, unflushed.
struct TailOutput<W> {
    out: W,
    form: TailForm,
    /// Whether control characters in events are escaped.
    is_terminal: bool,
}

/// The printed fields of an item of a JSON batch.
#[derive(Deserialize)]
struct BatchItem<'a> {
    topic: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl BatchItem<'_> {
    /// A string as published, any other value as JSON.
    fn text(&self) -> String {
        serde_json::from_str(self.data.get()).unwrap_or_else(|_| one_line(self.data))
    }
}

impl<W: Write> TailOutput<W> {
    fn event(&mut self, event_type: &str, data: &str) -> io::Result<()> {
        if self.form == TailForm::Data {
            return self.line(data);
        }
        match serde_json::from_str::<Vec<&RawValue>>(data) {
            Ok(items) if event_type == "batch" => {
                items.into_iter().try_for_each(|item| self.item(item))
            }
            _ => {
                note(format_args!("skipping a `{event_type}` event: it is not a JSON batch"));
                Ok(())
            }
        }
    }
}

impl<W: Write> TailOutput<W> {
    fn item(&mut self, item: &RawValue) -> io::Result<()> {
        match serde_json::from_str::<BatchItem<'_>>(item.get()) {
            Ok(parsed) if self.form == TailForm::TopicAndData => {
                self.line(&format!("{}\t{}", parsed.topic, parsed.text()))
            }
            _ => self.line(&one_line(item)),
        }
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        match self.is_terminal {
            true => writeln!(self.out, "{}", escaped(text)),
            false => writeln!(self.out, "{text}"),
        }
    }
}

/// The JSON on one line. Line ends occur in JSON only as white space, so spaces replace them.
pub(crate) fn one_line(json: &RawValue) -> String {
    json.get().replace(['\n', '\r'], " ")
}

/// The fields of the hub's control events. Each event has some of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Control {
    client_id: String,
    topics: Vec<String>,
    resumed: bool,
    reason: String,
    partitions: Vec<u16>,
    reconnect_ms: Option<u64>,
}

impl Control {
    /// None for a published event.
    fn parse(event_type: &str, data: &str) -> Option<Self> {
        matches!(event_type, "connected" | "gap" | "shutdown")
            .then(|| serde_json::from_str(data).unwrap_or_default())
    }

    fn describe(&self, event_type: &str) -> String {
        let Self { client_id, reason, .. } = self;
        let topics = name_some(&self.topics);
        match event_type {
            "connected" => {
                let how = if self.resumed { "resumed" } else { "live" };
                format!("connected as {client_id} to {topics}; {how}")
            }
            "gap" if !topics.is_empty() => format!("gap: reason {reason}; topics {topics}"),
            "gap" => format!("gap: reason {reason}; partitions {:?}", self.partitions),
            _ => {
                let reconnect_ms = self.reconnect_ms.unwrap_or_default();
                format!("shutdown: {reason}; reconnect in {reconnect_ms} ms")
            }
        }
    }
}

fn name_some(topics: &[String]) -> String {
    match topics.get(..MAX_NAMED_TOPICS) {
        Some(first) if topics.len() > MAX_NAMED_TOPICS => {
            format!("{} and {} more", first.join(", "), topics.len() - MAX_NAMED_TOPICS)
        }
        _ => topics.join(", "),
    }
}

/// Ends once the reader of standard output is gone. A write would fail too, but on a quiet topic
/// `fanfare tail … | head -1` would wait for the next event.
async fn stdout_closed() {
    #[cfg(unix)]
    if let Ok(pipe) = watch_stdout()
        && pipe.ready(tokio::io::Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Standard output as a pipe, to watch and not to write. The pipe stays blocking, as expected by
/// other processes sharing it.
///
/// # Errors
/// Standard output is not a pipe.
#[cfg(unix)]
fn watch_stdout() -> io::Result<tokio::net::unix::pipe::Sender> {
    use std::{
        fs::File,
        os::{fd::AsFd, unix::fs::FileTypeExt},
    };
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    if !stdout.metadata()?.file_type().is_fifo() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    tokio::net::unix::pipe::Sender::from_file_unchecked(stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(is_json: bool, event_type: &str, data: &str) -> String {
        let form = if is_json { TailForm::Json } else { TailForm::Data };
        printed_as(form, false, event_type, data)
    }

    fn printed_as(form: TailForm, is_terminal: bool, event_type: &str, data: &str) -> String {
        let mut output = TailOutput { out: Vec::new(), form, is_terminal };
        output.event(event_type, data).unwrap();
        String::from_utf8(output.out).unwrap()
    }

    #[test]
    fn data_is_printed_as_it_was_published() {
        assert_eq!(printed(false, "message", "a\nb\n"), "a\nb\n\n");
        assert_eq!(printed(false, "batch", "[1.50]"), "[1.50]\n");
    }

    #[test]
    fn a_batch_is_printed_an_object_a_line_with_its_numbers_as_they_were() {
        let batch = "[{\"id\":\"1\",\"data\":1.50},{\"data\":{\"a\":\n1e400}}]";
        let lines = "{\"id\":\"1\",\"data\":1.50}\n{\"data\":{\"a\": 1e400}}\n";
        assert_eq!(printed(true, "batch", batch), lines);
        assert_eq!(printed(true, "like", "{}"), "");
    }

    #[test]
    fn events_of_several_topics_name_their_topic() {
        let batch =
            r#"[{"id":"1","topic":"a:b","data":"x\ty"},{"id":"2","topic":"c","data":{"n":1.50}}]"#;
        let lines = "a:b\tx\ty\nc\t{\"n\":1.50}\n";
        assert_eq!(printed_as(TailForm::TopicAndData, false, "batch", batch), lines);
    }

    #[test]
    fn escape_sequences_reach_a_pipe_but_no_terminal() {
        let data = "\u{1b}[31mred";
        assert_eq!(printed_as(TailForm::Data, false, "message", data), format!("{data}\n"));
        assert_eq!(printed_as(TailForm::Data, true, "message", data), "\\u{1b}[31mred\n");
    }

    #[test]
    fn control_events_are_a_short_line_each() {
        let describe = |event_type: &str, data: &str| {
            Control::parse(event_type, data).map(|control| control.describe(event_type))
        };
        let connected = r#"{"clientId":"c7","timestamp":1,"topics":["a","b"],"resumed":true}"#;
        assert_eq!(describe("connected", connected).unwrap(), "connected as c7 to a, b; resumed");
        assert_eq!(
            describe("gap", r#"{"reason":"slow","partitions":[3,4]}"#).unwrap(),
            "gap: reason slow; partitions [3, 4]"
        );
        assert_eq!(
            describe("gap", r#"{"reason":"slow","partitions":[3],"topics":["a"]}"#).unwrap(),
            "gap: reason slow; topics a"
        );
        assert_eq!(
            describe("shutdown", r#"{"reason":"drain","reconnectMs":120}"#).unwrap(),
            "shutdown: drain; reconnect in 120 ms"
        );
        assert_eq!(describe("like", "{}"), None);
    }

    #[test]
    fn of_many_topics_only_the_first_are_named() {
        let topics: Vec<String> = (0..7).map(|number| format!("t{number}")).collect();
        assert_eq!(name_some(&topics), "t0, t1, t2, t3, t4 and 2 more");
        assert_eq!(name_some(&topics[..5]), "t0, t1, t2, t3, t4");
    }
}
