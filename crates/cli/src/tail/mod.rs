//! `fanfare tail`: follows topics, reconnects without a limit, and resumes. Events go to standard
//! output, everything else to standard error. `output` owns the forms of events, `control` the
//! sentences about control events.

mod control;
pub(crate) mod output;
mod template;

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    pin::pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use awc::http::StatusCode;
use fanfare_core::sse::decode::{Decoded, Decoder};
use futures_util::future::{Either, select};
use serde::Serialize;

use self::{
    control::Control,
    output::{TailForm, TailOutput},
    template::Template,
};
use super::{
    CliError,
    client::{Backoff, HubClient, HubError, HubRequest, HubResponse, note},
    hub_connection::HubConnection,
};

/// A hub writes a heartbeat every 15 s. After four missing heartbeats, the connection is dead.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// Wait before a reconnect, if the hub sent no `retry:`. Browsers wait about as long.
const DEFAULT_RETRY: Duration = Duration::from_secs(3);

/// Bounds of the waits while the hub is unavailable or refuses streams.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    /// Topics to follow; `*` stands for one segment, a last `**` for one or more
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Start after the event with this id; `earliest` starts with the oldest stored event
    #[arg(long, value_name = "ID")]
    from: Option<String>,
    /// Start with the events of this last time, like 5m
    #[arg(long, value_name = "DURATION", conflicts_with = "from")]
    #[arg(value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Print only these event types, like like,post; can be repeated
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// End after this number of events
    #[arg(short = 'n', long = "count", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print each event as a JSON object with its id, topic, type and key
    #[arg(long)]
    json: bool,
    /// Print each event by this template, like '{time} {topic} {type} {key} {id} {data}'; \\t and \\n
    /// are tab and line end
    #[arg(long, conflicts_with = "json")]
    template: Option<Template>,
    #[command(flatten)]
    hub: HubConnection,
}

/// Follows until the hub answers 204 (no more events), standard output is closed, or enough events
/// are printed.
///
/// # Errors
/// The hub refuses for good, an event is too large, or standard output fails.
pub(crate) async fn run(args: TailArgs) -> Result<(), CliError> {
    let client = HubClient::new(&args.hub)?;
    let is_terminal = io::stdout().is_terminal();
    let form = args.form(is_terminal);
    let output =
        TailOutput { out: BufWriter::new(io::stdout()), form, is_terminal, printed_count: 0 };
    let tail = Tail {
        client,
        last_id: args.start(),
        topics: args.topics,
        types: args.types,
        max_count: args.count.unwrap_or(u64::MAX),
        retry: DEFAULT_RETRY,
        backoff: Backoff::new(FIRST_BACKOFF, MAX_BACKOFF),
        output,
    };
    match select(pin!(tail.follow()), pin!(stdout_closed())).await {
        Either::Left((ended, _)) => ended,
        Either::Right(((), _)) => Ok(()),
    }
}

impl TailArgs {
    /// A pipe gets bare data, a terminal a line for people.
    fn form(&self, is_terminal: bool) -> TailForm {
        match &self.template {
            Some(template) => TailForm::Template(template.clone()),
            None if self.json => TailForm::Json,
            None if is_terminal => {
                let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
                TailForm::Line { has_colours }
            }
            None => TailForm::Data,
        }
    }

    /// The id to start after. A start in time is `@` and milliseconds since 1970.
    fn start(&self) -> Option<String> {
        match self.since {
            Some(since) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Some(format!("@{}", now.saturating_sub(since).as_millis()))
            }
            None => self.from.clone().filter(|id| !id.is_empty()),
        }
    }
}

/// How a connection ended.
enum Ending {
    /// No more events, enough events, or standard output is closed.
    Done,
    Again {
        why: String,
        after: Duration,
    },
}

struct Tail<W> {
    client: HubClient,
    topics: Vec<String>,
    /// The event types to print; empty for all.
    types: Vec<String>,
    /// Ends after this number of printed events.
    max_count: u64,
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
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            types: &'a [String],
            #[serde(skip_serializing_if = "Option::is_none")]
            last_event_id: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            batch: Option<&'a str>,
        }
        let Self { topics, types, .. } = self;
        let batch = self.output.needs_batches().then_some("json");
        let last_event_id = self.last_id.as_deref();
        let body = serde_json::to_vec(&TailBody { topics, types, last_event_id, batch })
            .expect("strings serialize");
        let request = HubRequest::post("/events/stream", "application/json", body);
        self.client.send(request).await
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
                Ok(_) if self.output.printed_count >= self.max_count => return Ok(Ending::Done),
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
        while self.output.printed_count < self.max_count
            && let Some(decoded) = stream.pop()
        {
            match decoded {
                Decoded::Comment => {}
                Decoded::Retry(retry) => self.retry = retry,
                Decoded::Event { event_type, data, .. } => {
                    let Some(control) = Control::parse(&event_type, &data) else {
                        self.output.event(&event_type, &data, self.max_count)?;
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
