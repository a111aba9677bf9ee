//! A small social network: posts, likes, followers, a celebrity, and live pages.
//!
//! `cargo run --release --example social_feed`, then open <http://127.0.0.1:8084/?user=ada> and
//! <http://127.0.0.1:8084/?user=bob> in two windows. Post as one, like as the other.
//!
//! The hub writes a post to the topic of each follower (*push*). The celebrity has thousands of
//! followers: the hub writes such a post once, and the followers' streams read it from there
//! (*pull*). The page shows the mode. Likes close together become one notification. A page has a
//! single stream for all authors; following and unfollowing change the open stream.
//!
//! There is no login: `/?user=ada` opens ada's page for anybody. A real application takes the user
//! from its session, as in `examples/embed.rs`, and has `my_feed` ask for it.

mod bot;
mod network;
mod people;

use std::{
    error::Error,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    App, HttpResponse, HttpServer, Responder, ResponseError,
    http::StatusCode,
    rt,
    web::{self, Data, Json, Path},
};
use clap::Parser;
use fanfare::{
    Config, Hub,
    config::{Flush, Sources, TopicPolicy, process_environment},
    follow::Follow,
};
use serde::Deserialize;
use serde_json::json;

use self::{
    network::{Network, Refused, now},
    people::{CELEBRITY, LINES, PEOPLE},
};

/// Posts on a page at its start.
const HOME_POSTS: usize = 100;

/// Seed posts of other people per seed post of the celebrity.
const SEED_PRICE_EVERY: usize = 3;

/// Time between two seed posts.
const SEED_INTERVAL: Duration = Duration::from_secs(11 * 60);

/// Authors with more followers are published to once (pull). Only the celebrity has more.
const MAX_PUSHED: usize = 1_000;

/// More than the followed authors of any person here.
const MAX_FOLLOWING: usize = 1_000;

#[derive(Debug, Clone, Parser)]
struct Options {
    /// Address and port to serve on.
    #[arg(long, default_value = "127.0.0.1:8084")]
    listen: SocketAddr,
    /// No bot: only your own actions change anything.
    #[arg(long)]
    no_bot: bool,
}

#[derive(Deserialize)]
struct NewPost {
    author: String,
    text: String,
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        match self.code() {
            "unknown_post" => StatusCode::NOT_FOUND,
            code if code.starts_with("bad_") => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let error = json!({ "code": self.code(), "message": self.to_string() });
        HttpResponse::build(self.status_code()).json(json!({ "error": error }))
    }
}

/// The page's initial state. All changes after it arrive over the stream.
async fn home(network: Data<Network>, user: Path<String>) -> Result<impl Responder, Refused> {
    let following = network.hub().following(&*user, None, MAX_FOLLOWING).await?.users;
    let muted = network.hub().muted(&*user).await?;
    let people = PEOPLE.map(|(name, about)| json!({ "name": name, "about": about }));
    let posts = network.newest(&user, HOME_POSTS);
    Ok(Json(json!({ "people": people, "following": following, "muted": muted, "posts": posts })))
}

async fn post(network: Data<Network>, new: Json<NewPost>) -> Result<impl Responder, Refused> {
    let start = Instant::now();
    let (post, report) = network.post(&new.author, &new.text).await?;
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    Ok(Json(json!({ "post": post, "fanout": report, "ms": ms })))
}

async fn like(
    network: Data<Network>,
    path: Path<(u64, String)>,
) -> Result<impl Responder, Refused> {
    let (post, user) = path.into_inner();
    Ok(Json(json!({ "likes": network.like(&user, post).await? })))
}

async fn follow(
    network: Data<Network>,
    path: Path<(String, String)>,
) -> Result<impl Responder, Refused> {
    network.follow(&path.0, &path.1).await?;
    Ok(Json(json!({ "success": true })))
}

async fn unfollow(
    network: Data<Network>,
    path: Path<(String, String)>,
) -> Result<impl Responder, Refused> {
    network.unfollow(&path.0, &path.1).await?;
    Ok(Json(json!({ "success": true })))
}

async fn page() -> impl Responder {
    let page = include_str!("index.html");
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(page)
}

/// Notifications have a longer tick than the default, so more likes collapse into one.
fn policy() -> TopicPolicy {
    TopicPolicy::new("notifications:*").flush(Flush::Tick).tick(Duration::from_millis(300))
}

/// Adds people, readers, follows and the first posts.
async fn seed(network: &Network) -> Result<(), Box<dyn Error>> {
    let follows = people::follows();
    let follows = follows.iter().map(|(follower, author)| Follow::parse(follower, author));
    network.hub().follow_all(follows.collect::<Result<_, _>>()?).await?;
    let prices: Vec<String> = people::prices().collect();
    let mut prices = prices.iter().skip(prices.len() - LINES.len() / SEED_PRICE_EVERY);
    let mut posts = Vec::new();
    for (number, line) in LINES.iter().enumerate() {
        posts.push((PEOPLE[1 + number].0, *line));
        if number % SEED_PRICE_EVERY == 0 {
            posts.extend(prices.next().map(|price| (CELEBRITY, price.as_str())));
        }
    }
    for (number, (author, text)) in posts.iter().enumerate() {
        let ago = SEED_INTERVAL * (posts.len() - number) as u32;
        network.keep(author, text, now() - ago.as_millis() as u64)?;
    }
    Ok(())
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let environment = process_environment();
    let sources = Sources::default().environment(environment);
    let mut config = Config::load(&sources)?.topic(policy());
    config.fanout.pull_above = MAX_PUSHED;
    let hub = Hub::start(config)?;
    let network = Arc::new(Network::new(hub.clone()));
    seed(&network).await?;
    if !options.no_bot {
        rt::spawn(bot::run(network.clone()));
    }
    let (network, routes) = (Data::from(network), hub.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(network.clone())
            .configure(routes.routes("/events").all())
            .route("/", web::get().to(page))
            .route("/api/home/{user}", web::get().to(home))
            .route("/api/posts", web::post().to(post))
            .route("/api/posts/{post}/likes/{user}", web::put().to(like))
            .route("/api/follows/{user}/{author}", web::put().to(follow))
            .route("/api/follows/{user}/{author}", web::delete().to(unfollow))
    });
    let server = hub.attach(server).bind(options.listen)?;
    for address in server.addrs() {
        println!("open http://{address}/?user=ada and http://{address}/?user=bob");
    }
    Ok(server.run().await?)
}
