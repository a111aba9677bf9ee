//! Posts and likes, owned by the application, and the events it publishes about them. The hub owns
//! the follow graph.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use fanfare::{Event, FanOutError, FanOutMode, FanOutReport, FollowError, Hub, PublishError};
use serde::Serialize;
use serde_json::{Value, json};

/// Most stored posts; a database would store more.
const MAX_POSTS: usize = 500;

/// Longest text of a post, in characters.
const MAX_TEXT: usize = 500;

/// Longest quote of a post in a notification, in characters.
const MAX_QUOTE: usize = 40;

/// A post in JSON: in an answer, and as the data of an event.
#[derive(Debug, Clone, Serialize)]
pub struct Post {
    pub id: u64,
    pub author: String,
    pub text: String,
    /// Milliseconds since 1970.
    pub at: u64,
    #[serde(skip)]
    likes: HashSet<String>,
}

impl Post {
    fn quote(&self) -> String {
        let mut quote: String = self.text.chars().take(MAX_QUOTE).collect();
        if quote.len() < self.text.len() {
            quote.push('…');
        }
        quote
    }
}

/// Reasons to refuse a request.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("a post has 1 to {MAX_TEXT} characters")]
    Text,
    #[error("the post does not exist any more")]
    UnknownPost,
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    FanOut(#[from] FanOutError),
    #[error(transparent)]
    Follow(#[from] FollowError),
}

impl Refused {
    /// The stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Text => "bad_text",
            Self::UnknownPost => "unknown_post",
            Self::Publish(error) => error.code(),
            Self::FanOut(error) => error.code(),
            Self::Follow(error) => error.code(),
        }
    }
}

#[derive(Debug, Default)]
struct Posts {
    last_id: u64,
    /// In ascending order of ids: the newest last.
    kept: VecDeque<Post>,
}

impl Posts {
    fn find(&mut self, id: u64) -> Option<&mut Post> {
        let place = self.kept.binary_search_by_key(&id, |post| post.id).ok()?;
        self.kept.get_mut(place)
    }
}

/// The application, shared by requests and the bot.
pub struct Network {
    hub: Hub,
    posts: Mutex<Posts>,
    liking: tokio::sync::Mutex<()>,
}

impl Network {
    pub fn new(hub: Hub) -> Self {
        Self { hub, posts: Mutex::default(), liking: tokio::sync::Mutex::default() }
    }

    /// Stores a post with this time, without an event.
    pub fn keep(&self, author: &str, text: &str, at: u64) -> Result<Post, Refused> {
        let text = text.trim();
        if !(1..=MAX_TEXT).contains(&text.chars().count()) {
            return Err(Refused::Text);
        }
        let mut posts = self.posts();
        // Event ids are made of post ids. A post id from the clock does not repeat after a restart.
        posts.last_id = at.max(posts.last_id + 1);
        let (author, text, id) = (author.to_owned(), text.to_owned(), posts.last_id);
        let post = Post { id, author, text, at, likes: HashSet::new() };
        posts.kept.push_back(post.clone());
        if posts.kept.len() > MAX_POSTS {
            posts.kept.pop_front();
        }
        Ok(post)
    }

    /// A new post, delivered to all followers. The hub chooses the mode: a write per follower, or
    /// one write for all followers of an author with very many.
    pub async fn post(&self, author: &str, text: &str) -> Result<(Post, FanOutReport), Refused> {
        let post = self.keep(author, text, now())?;
        let event = event("post", &post).id(format!("post:{}", post.id));
        let report = match self.hub.fan_out(author, event.clone(), FanOutMode::Auto).await {
            // The event has an id: the retry reaches the remaining followers, and nobody gets it
            // twice.
            Err(FanOutError::Partly(_)) => self.hub.fan_out(author, event, FanOutMode::Auto).await,
            done => done,
        };
        Ok((post, report?))
    }

    /// Likes a post and notifies its author. Several likes of one post close together become one
    /// notification with their number. Returns the number of likes.
    pub async fn like(&self, user: &str, id: u64) -> Result<usize, Refused> {
        // Likes are published one after the other, so the newest event has the newest count.
        let _turn = self.liking.lock().await;
        let post = self.posts().find(id).cloned().ok_or(Refused::UnknownPost)?;
        if post.likes.contains(user) {
            return Ok(post.likes.len());
        }
        let likes = post.likes.len() + 1;
        let data = json!({
            "post": id, "text": post.quote(), "by": user, "likes": likes, "at": now(),
        });
        // With this id a retry after a failure notifies the author once.
        let event = event("like", &data).collapse(format!("like:{id}"));
        let event = event.id(format!("like:{id}:{user}"));
        self.hub.publish(notifications(&post.author), event).await?;
        if let Some(post) = self.posts().find(id) {
            post.likes.insert(user.to_owned());
        }
        Ok(likes)
    }

    /// Adds a follower and notifies the author. Open feeds change at once.
    pub async fn follow(&self, user: &str, author: &str) -> Result<(), Refused> {
        if self.hub.follow(user, author).await? {
            let data = json!({ "by": user, "at": now() });
            let event = event("follow", &data).collapse("follow");
            self.hub.publish(notifications(author), event).await?;
        }
        Ok(())
    }

    pub async fn unfollow(&self, user: &str, author: &str) -> Result<(), Refused> {
        self.hub.unfollow(user, author).await?;
        Ok(())
    }

    /// The newest posts with this user's view of them, newest last.
    pub fn newest(&self, user: &str, count: usize) -> Vec<Value> {
        let posts = self.posts();
        let newest = posts.kept.iter().skip(posts.kept.len().saturating_sub(count));
        let seen = newest.map(|post| {
            json!({
                "id": post.id, "author": post.author, "text": post.text, "at": post.at,
                "likes": post.likes.len(), "liked": post.likes.contains(user),
            })
        });
        seen.collect()
    }

    /// The newest stored post of an author.
    pub fn newest_of(&self, author: &str) -> Option<Post> {
        self.posts().kept.iter().rev().find(|post| post.author == author).cloned()
    }

    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    fn posts(&self) -> MutexGuard<'_, Posts> {
        self.posts.lock().expect("no holder panics")
    }
}

/// The hub's topic for events to one user.
fn notifications(user: &str) -> String {
    format!("notifications:{user}")
}

fn event(kind: &str, data: &impl Serialize) -> Event {
    Event::json(data).expect("numbers and text").event_type(kind)
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_1970.as_millis() as u64
}
