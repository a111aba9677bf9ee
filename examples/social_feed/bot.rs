//! The bot: people post, like and follow at intervals. The page is alive without other visitors.

use std::{sync::Arc, time::Duration};

use rand::RngExt;

use super::{
    network::{Network, Refused},
    people::{self, CELEBRITY, LINES, PEOPLE, READER_COUNT, reader},
};

/// Time between two actions.
const PAUSE: Duration = Duration::from_millis(1200);

/// Most likes of one post in one action.
const MAX_APPLAUSE: usize = 12;

/// Runs until the program ends.
pub async fn run(network: Arc<Network>) {
    let mut prices = people::prices().collect::<Vec<_>>().into_iter().cycle();
    let mut lines = LINES.iter().cycle();
    let mut interval = tokio::time::interval(PAUSE);
    loop {
        interval.tick().await;
        let done = match rand::rng().random_range(0..10) {
            0 => post(&network, CELEBRITY, prices.next().as_deref()).await,
            1..4 => post(&network, person(), lines.next().copied()).await,
            4..8 => applaud(&network).await,
            _ => network.follow(&any_reader(), person()).await,
        };
        if let Err(refused) = done {
            eprintln!("the bot: {refused}");
        }
    }
}

async fn post(network: &Network, author: &str, text: Option<&str>) -> Result<(), Refused> {
    network.post(author, text.unwrap_or("…")).await.map(|_| ())
}

/// Many people like the same post at once. Its author gets one notification.
async fn applaud(network: &Network) -> Result<(), Refused> {
    let Some(post) = network.newest_of(person()) else { return Ok(()) };
    for _ in 0..rand::random_range(1..=MAX_APPLAUSE) {
        network.like(&any_reader(), post.id).await?;
    }
    Ok(())
}

/// Anybody but the celebrity. The first people are chosen more often: visitors watch their pages.
fn person() -> &'static str {
    let any = || rand::random_range(1..PEOPLE.len());
    PEOPLE[any().min(any()).min(any())].0
}

fn any_reader() -> String {
    reader(rand::random_range(0..READER_COUNT))
}
