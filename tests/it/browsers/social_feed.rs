//! `examples/social_feed`: the windows of two users, side by side.

use super::walk::Walk;
use crate::support::{Example, browser_turn};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_of_a_social_network_see_each_other_live() {
    let _turn = browser_turn().await;
    let example = Example::start("social_feed", &["--no-bot"], &[]).await;
    let walk = Walk::start("social-feed", example.addr, &[]);
    walk.finish(&["social-feed.png", "social-feed-phone-dark.png"]).await;
}
