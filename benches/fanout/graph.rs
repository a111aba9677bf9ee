//! The follow graph. The n-th author has one follower per n^0.9 users: all users follow the first
//! author, and most authors have a handful of followers. A multiplication spreads the followers
//! over the users, identically in every run.

use super::feeds::Client;

/// Odd and not near a power of two.
const SPREAD: usize = 7919;

pub struct Graph {
    users: usize,
    followers: Vec<usize>,
}

impl Graph {
    pub fn zipf(users: usize) -> Self {
        let count = |author: usize| (users as f64 / ((author + 1) as f64).powf(0.9)) as usize;
        Self { users, followers: (0..users).map(count).collect() }
    }

    pub fn followers(&self, author: usize) -> usize {
        self.followers[author]
    }

    pub fn edge_count(&self) -> usize {
        self.followers.iter().sum()
    }

    /// Followers with an open feed: every `step`-th user has one.
    pub fn online_followers(&self, author: usize, step: usize) -> usize {
        self.of(author).filter(|user| user % step == 0).count()
    }

    pub async fn import(&self, client: &mut Client) {
        for author in 0..self.users {
            for follower in self.of(author) {
                client.follow(follower, author).await;
            }
        }
        client.finish_follows().await;
    }

    fn of(&self, author: usize) -> impl Iterator<Item = usize> {
        let users = self.users;
        // The multiplier shares no factor with the number of users, so no follower repeats.
        (0..self.followers[author]).map(move |place| (author + place * SPREAD) % users)
    }
}
