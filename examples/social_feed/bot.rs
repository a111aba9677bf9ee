//! The bot: now and then somebody posts, many like something, a reader follows somebody. So
//! the page lives while nobody else is there.

use std::{sync::Arc, time::Duration};

use rand::RngExt;

use super::{
    network::{Network, Refused},
    people::{self, CELEBRITY, LINES, PEOPLE, READER_COUNT, reader},
};

/// Between two things that happen.
const PAUSE: Duration = Duration::from_millis(1200);

/// Most likes of one applause.
const MAX_APPLAUSE: usize = 12;

/// Goes on as long as the program does.
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

/// Many like the same post at the same time: its author is told once.
async fn applaud(network: &Network) -> Result<(), Refused> {
    let Some(post) = network.newest_of(person()) else { return Ok(()) };
    for _ in 0..rand::random_range(1..=MAX_APPLAUSE) {
        network.like(&any_reader(), post.id).await?;
    }
    Ok(())
}

/// Anybody but the celebrity, rather one of the first: their pages are those that are watched.
fn person() -> &'static str {
    let any = || rand::random_range(1..PEOPLE.len());
    PEOPLE[any().min(any()).min(any())].0
}

fn any_reader() -> String {
    reader(rand::random_range(0..READER_COUNT))
}
