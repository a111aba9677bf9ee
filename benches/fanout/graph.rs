//! Who follows whom: the n-th author has a follower for every n^0.9 users, so everybody
//! follows the first, and most have a handful. Who they are is spread by a multiplication,
//! the same in every run.

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

    /// Followers among every so many users.
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
        // The multiplier shares no factor with the number of users, so nobody comes twice.
        (0..self.followers[author]).map(move |place| (author + place * SPREAD) % users)
    }
}
