//! Pages of other origins in Chromium and Firefox, and a hub with access control.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use serde_json::json;

use super::walk::Walk;
use crate::support::{
    Launch, Server, browser_turn,
    tokens::{SECRET, token},
};

/// An address of this machine, by plain HTTP no secure context for browsers.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // It sends nothing, and chooses the address of the route.
    match socket.connect("192.0.2.1:9") {
        Ok(()) => socket.local_addr().expect("it is bound").ip(),
        Err(_) => Ipv4Addr::LOCALHOST.into(),
    }
}

async fn start(address: IpAddr, config: String) -> Server {
    let toml = format!("{config}\n[server]\nopen_to_network = true\n");
    let launch = Launch { config: Some(toml), ..Launch::default() };
    let server = Server::spawn_on(SocketAddr::from((address, 0)), launch).await;
    server.until_ready().await;
    server
}

async fn walk(address: IpAddr, browser: &str) {
    let _turn = browser_turn().await;
    let pages = [start(address, String::new()).await, start(address, String::new()).await];
    let [own, foreign] = pages.each_ref().map(|page| format!("http://{}", page.addr));
    let hub = start(
        address,
        format!(
            "[access]\nenabled = true\ncookie = \"fanfare\"\n\
             [[access.keys]]\nalgorithm = \"HS256\"\nkey = {SECRET:?}\n\
             [cors]\norigins = [{own:?}]\ncredentials = true\n\
             [stream]\nretry_min = \"200ms\"\nretry_max = \"500ms\"\n"
        ),
    )
    .await;
    let rights = json!({"subscribe": ["a:*"], "publish": ["a:*"]});
    let token = token(json!({"sub": "ann", "fanfare": rights}));
    let options = [
        ("--browser", browser),
        ("--page", own.as_str()),
        ("--foreign", &foreign),
        ("--token", &token),
    ];
    Walk::start("access-page", hub.addr, &options).finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_admitted_pages_read_and_change_in_chromium() {
    walk(Ipv4Addr::LOCALHOST.into(), "chromium").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_admitted_pages_read_and_change_in_firefox() {
    walk(Ipv4Addr::LOCALHOST.into(), "firefox").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_admitted_pages_read_and_change_over_plain_http_on_the_network() {
    walk(own_address(), "chromium").await;
    walk(own_address(), "firefox").await;
}
