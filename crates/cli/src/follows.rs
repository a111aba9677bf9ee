//! `fanfare follow`, `unfollow` and `fanout`: the follow graph, and events to an author's followers.

use std::{io::Write, time::Duration};

use awc::http::Method;
use clap::ValueEnum;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::{
    CliError,
    client::{HubClient, HubError, HubRequest},
    hub_connection::HubConnection,
    progress,
    publish::event::Data,
};

/// A fan-out answers after the last follower's event is in history: with millions of followers,
/// after minutes.
const FAN_OUT_DEADLINE: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
pub(crate) struct EdgeArgs {
    /// The user following
    follower: String,
    /// The user followed
    author: String,
    #[command(flatten)]
    hub: HubConnection,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FanOutArgs {
    /// The author of the event
    author: String,
    /// The event's data, published as JSON if it is JSON other than a string, otherwise as text
    #[arg(allow_negative_numbers = true)]
    data: String,
    /// Event type
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// push writes to each follower's notifications, pull publishes once, auto decides by the number
    /// of followers
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Collapse key: merges events not yet sent to a stream
    #[arg(long, value_name = "KEY")]
    collapse: Option<String>,
    /// Id of the event: published again within five minutes, it is delivered once
    #[arg(long)]
    id: Option<String>,
    /// Refuses data other than valid JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: HubConnection,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Auto,
    Push,
    Pull,
}

/// Adds the edge.
pub(crate) async fn follow(args: EdgeArgs) -> Result<(), CliError> {
    change(&args, Method::PUT, ["follows", "already followed"]).await
}

/// Removes the edge.
pub(crate) async fn unfollow(args: EdgeArgs) -> Result<(), CliError> {
    change(&args, Method::DELETE, ["unfollowed", "did not follow"]).await
}

async fn change(args: &EdgeArgs, method: Method, words: [&str; 2]) -> Result<(), CliError> {
    #[derive(Deserialize)]
    struct EdgeAnswer {
        changed: bool,
    }
    let EdgeArgs { follower, author, .. } = args;
    let encode = |name| utf8_percent_encode(name, NON_ALPHANUMERIC);
    let path = format!("/events/follows/{}/{}", encode(follower), encode(author));
    let client = HubClient::new(&args.hub)?;
    let answer: EdgeAnswer = client.json(HubRequest::of(method, path)).await.map_err(failed)?;
    let word = if answer.changed { words[0] } else { words[1] };
    print(format_args!("{follower} {word} {author}"));
    Ok(())
}

/// Delivers an event to all followers, and prints how many they are.
pub(crate) async fn fan_out(args: FanOutArgs) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct FanOutBody<'a> {
        author: &'a str,
        data: Data<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        event: Option<&'a str>,
        mode: Mode,
        #[serde(skip_serializing_if = "Option::is_none")]
        collapse: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
    }
    #[derive(Deserialize)]
    struct FanOutAnswer {
        mode: String,
        followers: u64,
        online: u64,
        muted: u64,
    }
    let body = FanOutBody {
        author: &args.author,
        data: Data::new(&args.data, args.json).map_err(CliError::Usage)?,
        event: args.event.as_deref(),
        mode: args.mode,
        collapse: args.collapse.as_deref(),
        id: args.id.as_deref(),
    };
    let body = serde_json::to_vec(&body).expect("strings and checked JSON serialize");
    let request = HubRequest::post("/events/fanout", "application/json", body);
    let client = HubClient::new(&args.hub)?;
    let spinner = progress::spinner("delivering to the followers");
    let answer = client.json(request.within(FAN_OUT_DEADLINE)).await;
    spinner.finish_and_clear();
    let FanOutAnswer { mode, followers, online, muted } = answer.map_err(failed)?;
    print(format_args!("{mode}: {followers} followers, {online} online, {muted} muted"));
    Ok(())
}

fn failed(error: HubError) -> CliError {
    CliError::Failed(error.to_string())
}

/// The change is done, so a closed standard output is no error.
fn print(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
