//! `fanfare top`: a live view of a hub on the whole terminal. `figures` owns the numbers, `rates` those
//! of topics, `feeds` their sources, `view` the drawing, `screen` the terminal.

mod feeds;
mod figures;
mod rates;
mod screen;
mod view;

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use futures_util::future::join;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use self::{
    feeds::Update,
    figures::Figures,
    screen::{Input, Screen},
    view::View,
};
use super::{CliError, client::HubClient, hub_connection::HubConnection};

/// Between two looks at the hub's statistics, and between two drawings.
const INTERVAL: Duration = Duration::from_secs(1);

/// Updates waiting for the view. If the queue is full, the stream of events waits.
const MAX_WAITING_UPDATES: usize = 64;

#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Topics or patterns to count [default: **]
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// Address of the operators' listener, if the hub has one: it has the statistics
    #[arg(long, value_name = "URL")]
    stats_url: Option<String>,
    #[command(flatten)]
    hub: HubConnection,
}

/// Shows the view until `q`, Ctrl-C or a signal.
///
/// # Errors
/// No terminal, or the hub refuses the first request.
pub(crate) async fn run(mut args: TopArgs) -> Result<(), CliError> {
    let failed = |error: io::Error| CliError::Failed(format!("terminal: {error}"));
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        let message = "fanfare top needs a terminal; for a script, there are GET /stats and \
                       `fanfare topics --json`";
        return Err(CliError::Usage(message.to_owned()));
    }
    if args.topics.is_empty() {
        args.topics.push("**".to_owned());
    }
    let watching = HubClient::new(&args.hub)?;
    let url = args.stats_url.unwrap_or_else(|| args.hub.hub.url.clone());
    args.hub.hub.url.clone_from(&url);
    let client = HubClient::new(&args.hub)?;
    let first = feeds::stats(&client).await;
    let mut figures = Figures::new(url);
    figures.take(first.map_err(|error| CliError::Failed(error.to_string()))?, Instant::now());
    let (sender, updates) = mpsc::channel(MAX_WAITING_UPDATES);
    let feeding = join(
        feeds::follow_stats(client, sender.clone()),
        feeds::count(watching, args.topics, sender),
    );
    tokio::select! {
        shown = show(figures, updates) => shown.map_err(failed),
        _ = feeding => Ok(()),
    }
}

/// Draws until the user ends it.
async fn show(mut figures: Figures, mut updates: mpsc::Receiver<Update>) -> io::Result<()> {
    let mut screen = Screen::open()?;
    let mut view = View::default();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once, before a complete second.
    ticks.tick().await;
    screen.draw(&mut view, &figures)?;
    loop {
        tokio::select! {
            update = updates.recv() => match update {
                Some(update) => figures.on_update(update, Instant::now()),
                None => return Ok(()),
            },
            input = screen.next_input() => match input {
                Input::End => return Ok(()),
                Input::Key(key) => {
                    view.on_key(key);
                    screen.draw(&mut view, &figures)?;
                }
                Input::Resized => screen.draw(&mut view, &figures)?,
            },
            _ = ticks.tick() => {
                figures.end_second();
                screen.draw(&mut view, &figures)?;
            }
        }
    }
}
