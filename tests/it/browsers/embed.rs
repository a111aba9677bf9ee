//! `examples/embed`: two users, each with the own notifications.

use super::walk::Walk;
use crate::support::{Example, browser_turn};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_of_an_embedded_hub_notify_each_other() {
    let _turn = browser_turn().await;
    let example = Example::start("embed", &[], &[("LISTEN", "127.0.0.1:0")]).await;
    Walk::start("embed", example.addr, &[]).finish(&[]).await;
}
