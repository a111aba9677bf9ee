//! `fanfare publish`: publishes one event, or one per line of standard input (`lines`), or removes a
//! key.

pub(crate) mod event;
mod lines;

use std::{
    fs::File,
    io::{self, Read, Write},
    time::Duration,
};

use serde_json::value::RawValue;

use self::event::PublishedEvent;
use super::{
    CliError,
    client::{HubClient, HubError, HubRequest},
    hub_connection::HubConnection,
    tail::output::one_line,
};

const PATH: &str = "/events/publish";

/// Longest data, of a line or of a file, and longest answer kept in memory.
const MAX_DATA_BYTES: u64 = 16 * 1024 * 1024;
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// Topic to publish to; several with commas between them, like news,chat:1
    #[arg(value_name = "TOPIC")]
    topics: String,
    /// The event's data, published as JSON if it is JSON other than a string, otherwise as text.
    /// @FILE is the content of a file, @- of standard input, @@ a text beginning with @. Without
    /// data, or with -, each line of standard input is an event
    #[arg(allow_negative_numbers = true)]
    data: Option<String>,
    /// Event type
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// Key of the event, for conflation
    #[arg(long)]
    key: Option<String>,
    /// Removes the key from a topic conflated by key, instead of publishing data
    #[arg(long, requires = "key", conflicts_with_all = ["data", "json", "ttl"])]
    delete: bool,
    /// Life of the key, like 30s: then the hub removes it
    #[arg(long, value_name = "DURATION", requires = "key")]
    #[arg(value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Collapse key: merges events not yet sent to a stream
    #[arg(long, value_name = "KEY")]
    collapse: Option<String>,
    /// Id of the event: published again within five minutes, it is delivered once. With lines, the
    /// id of each is this and the number of the line
    #[arg(long)]
    id: Option<String>,
    /// Refuses data other than valid JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: HubConnection,
}

/// Publishes, and returns once the hub has accepted all events into its history.
pub(crate) async fn run(args: PublishArgs) -> Result<(), CliError> {
    let client = HubClient::new(&args.hub)?;
    let data = match args.data.as_deref() {
        None if args.delete => None,
        None | Some("-") => return lines::publish(client, args.event()).await,
        Some(data) => Some(data_of(data)?),
    };
    let event = args.event();
    let body = event.body(data.as_deref(), event.id.as_deref()).map_err(CliError::Usage)?;
    publish_one(&client, body).await
}

impl PublishArgs {
    fn event(self) -> PublishedEvent {
        let Self { topics, event, key, collapse, delete, ttl, id, json: is_json, .. } = self;
        let topics = topics.split(',').map(str::to_owned).collect();
        PublishedEvent { topics, event, key, collapse, delete, ttl, id, is_json }
    }
}

/// The data of the argument, or of the named file.
fn data_of(argument: &str) -> Result<String, CliError> {
    let failed = |name: &str, error: io::Error| CliError::Usage(format!("{name}: {error}"));
    match argument.strip_prefix('@') {
        None => Ok(argument.to_owned()),
        Some(text) if text.starts_with('@') => Ok(text.to_owned()),
        Some("-") => read(io::stdin()).map_err(|error| failed("standard input", error)),
        Some(name) => File::open(name).and_then(read).map_err(|error| failed(name, error)),
    }
}

fn read(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(MAX_DATA_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_DATA_BYTES {
        return Err(io::Error::other(format!("more than {MAX_DATA_BYTES} bytes")));
    }
    Ok(text)
}

async fn publish_one(client: &HubClient, body: Vec<u8>) -> Result<(), CliError> {
    let failed = |error: HubError| CliError::Failed(error.to_string());
    let request = HubRequest::post(PATH, "application/json", body);
    let answer = client.send(request).await.map_err(failed)?;
    let answer = answer.read(MAX_ANSWER_BYTES).await.map_err(failed)?;
    let answer = serde_json::from_slice::<&RawValue>(&answer).map_err(not_a_hub)?;
    // The event is published, so a closed standard output is no error.
    let _ = writeln!(io::stdout(), "{}", one_line(answer));
    Ok(())
}

fn not_a_hub(why: impl std::fmt::Display) -> CliError {
    CliError::Failed(format!("no fanfare hub at this address: {why}"))
}
