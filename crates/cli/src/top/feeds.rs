//! The sources of the view: the hub's statistics every second, and a stream of all events.

use awc::http::Method;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{INTERVAL, figures::Stats};
use crate::{
    client::{HubClient, HubError, HubRequest},
    watch::{Watch, WatchedEvent},
};

/// Wait before a lost stream is opened again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(3);

/// News for the view.
pub(super) enum Update {
    Stats(Box<Stats>),
    /// The statistics are unavailable, for this reason.
    NoStats(String),
    Events(Vec<WatchedEvent>),
    /// Events are not counted, for this reason.
    NoEvents(String),
}

/// The statistics at this moment.
pub(super) async fn stats(client: &HubClient) -> Result<Stats, HubError> {
    client.json(HubRequest::of(Method::GET, "/stats")).await
}

/// Passes on the statistics every second. Ends with the receiver.
pub(super) async fn follow_stats(client: HubClient, to: mpsc::Sender<Update>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let update = match stats(&client).await {
            Ok(stats) => Update::Stats(Box::new(stats)),
            Err(error) => Update::NoStats(error.to_string()),
        };
        if to.send(update).await.is_err() {
            return;
        }
    }
}

/// Passes on the events of these topics. Ends with the receiver.
pub(super) async fn count(client: HubClient, topics: Vec<String>, to: mpsc::Sender<Update>) {
    loop {
        let why = match Watch::open(&client, &topics).await {
            Ok(watch) => pass_on(watch, &to).await,
            Err(error) => error,
        };
        if to.send(Update::NoEvents(why.to_string())).await.is_err() {
            return;
        }
        sleep(RETRY).await;
    }
}

/// Passes on events until the stream breaks.
async fn pass_on(mut watch: Watch, to: &mpsc::Sender<Update>) -> HubError {
    // The stream works again, even without an event.
    let mut events = Vec::new();
    loop {
        if to.send(Update::Events(events)).await.is_err() {
            return HubError::broken("the view ended");
        }
        events = match watch.next().await {
            Ok(events) => events,
            Err(error) => return error,
        };
    }
}
