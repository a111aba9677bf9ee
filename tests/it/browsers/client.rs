//! The npm package `clients/js`: its own tests and checks, and its pages in Chromium and Firefox.

use std::{fs, net::SocketAddr, path::Path, process::Stdio};

use tokio::{net::TcpStream, process::Command};

use super::{CONFIG, walk::Walk};
use crate::{
    proxies::{Behind, Proxy},
    support::{
        Server, browser_turn, directory::Directory, ports::free_port, process, process::Process,
        repository, until, wait::DEADLINE,
    },
};

/// Ends of leaders: closed, crashed, frozen; and a follower frozen. `FANFARE_TAB_ROUNDS` asks for more.
const TAB_ROUNDS: &str = "8";

/// The option of walks for the other browser.
const FIREFOX: (&str, &str) = ("--browser", "firefox");

async fn npm(script: &str) {
    let mut command = Command::new("npm");
    command.args(["run", "--silent", script]).current_dir(repository().join("clients/js"));
    run(command).await;
}

/// Runs a command to its end.
async fn run(mut command: Command) {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.expect("there are npm and node: scripts/test installs them");
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}:\n{printed}\n{errors}");
}

#[tokio::test]
async fn the_package_passes_its_tests_without_a_hub() {
    npm("test").await;
}

#[tokio::test]
async fn the_package_is_small_and_its_exports_and_types_are_right() {
    npm("check").await;
}

#[test]
fn the_demo_page_has_the_newest_build() {
    let client = repository().join("crates/cli/src/demo/client");
    for file in fs::read_dir(client).expect("the demo has the client") {
        let file = file.expect("readable").path();
        let name = file.file_name().expect("a file");
        let built = repository().join("clients/js/dist").join(name);
        let built = fs::read(built).expect("scripts/test builds the package");
        let command = "cp clients/js/dist/NAME.js crates/cli/src/demo/client/";
        assert!(fs::read(&file).expect("readable") == built, "{}: {command}", file.display());
    }
}

async fn share_one_stream_in_tabs(options: &[(&str, &str)]) {
    let _turn = browser_turn().await;
    let server = Server::with_config(CONFIG).await;
    let rounds = std::env::var("FANFARE_TAB_ROUNDS").unwrap_or_else(|_| TAB_ROUNDS.to_owned());
    let options = [options, &[("--rounds", &rounds)]].concat();
    Walk::start("client-tabs", server.addr, &options).finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_tabs_share_one_stream_while_their_leaders_are_closed_crashed_and_frozen() {
    share_one_stream_in_tabs(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_tabs_of_firefox_share_one_stream_while_their_leaders_are_closed_and_leave() {
    share_one_stream_in_tabs(&[FIREFOX]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_offline_gets_all_it_missed_and_is_told_of_a_restarted_hub() {
    be_offline_and_restart(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_firefox_offline_gets_all_it_missed_and_is_told_of_a_restarted_hub() {
    be_offline_and_restart(&[FIREFOX]).await;
}

async fn be_offline_and_restart(options: &[(&str, &str)]) {
    let _turn = browser_turn().await;
    let server = Server::with_config(CONFIG).await;
    let mut walk = Walk::start("client-page", server.addr, options);
    assert_eq!(walk.next().await["ready"], true);
    let _server = server.restart().await;
    walk.tell("restarted").await;
    walk.finish(&[]).await;
}

struct Nginx(Process);

impl Drop for Nginx {
    fn drop(&mut self) {
        // A killed nginx would leave its workers running.
        self.0.terminate();
    }
}

/// A proxy ignoring the hub's headers. With compression it holds a stream back, its head too.
fn nginx_config(listen: SocketAddr, hub: SocketAddr, compression: &str) -> String {
    format!(
        "events {{}} http {{ access_log off; server {{ listen {listen}; location / {{ \
         proxy_pass http://{hub}; proxy_http_version 1.1; \
         proxy_set_header Host $host:$server_port; proxy_buffering on; \
         proxy_ignore_headers X-Accel-Buffering; proxy_hide_header Content-Encoding; \
         gzip {compression}; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 1; \
         }} }} }}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_buffering_proxy_a_page_polls_and_streams_again_when_the_proxy_lets_it() {
    let _turn = browser_turn().await;
    let server = Server::with_config(CONFIG).await;
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let directory = Directory::new("buffering");
    let config = directory.write("config", &nginx_config(addr, server.addr, "on"));
    let more = format!("daemon off; pid {0}/pid; error_log {0}/log;", directory.path().display());
    let nginx = Nginx(Process::start("nginx", &["-c", &config.display().to_string(), "-g", &more]));
    until(DEADLINE, "the proxy listens", async || TcpStream::connect(addr).await.is_ok()).await;

    let hub = format!("http://{}", server.addr);
    let mut walk = Walk::start("client-buffered", addr, &[("--hub", &hub)]);
    assert_eq!(walk.next().await["ready"], true);
    directory.write("config", &nginx_config(addr, server.addr, "off"));
    process::signal(nginx.0.pid(), "HUP");
    walk.tell("streams pass").await;
    walk.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_on_a_killed_instance_behind_nginx_loses_nothing() {
    let _turn = browser_turn().await;
    let settings = [("stream.retry_min", "200ms"), ("stream.retry_max", "500ms")];
    let mut behind = Behind::new(Proxy::Nginx, &settings).await;
    let mut walk = Walk::start("client-cluster", behind.addr, &[]);
    assert_eq!(walk.next().await["ready"], true);
    let index = behind.with_stream().await;
    behind.instances.servers[index].kill9();
    walk.tell("killed").await;
    walk.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_streaming_bodies_a_page_uses_event_source() {
    let _turn = browser_turn().await;
    let server = Server::with_config(CONFIG).await;
    for options in [&[][..], &[FIREFOX]] {
        Walk::start("client-eventsource", server.addr, options).finish(&[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_with_removals_over_cuts_equals_the_model_in_node_and_deno() {
    let keyed = "[[topics]]\npattern = \"map:**\"\nconflate = \"latest-by-key\"\n";
    let server = Server::with_config(&format!("{CONFIG}{keyed}")).await;
    let deno = repository().join("tests/js/node_modules/.bin/deno");
    let programs: [(&Path, &[&str]); 2] =
        [(Path::new("node"), &[]), (&deno, &["run", "--allow-net", "--allow-read"])];
    for (seed, (program, options)) in programs.iter().enumerate() {
        let mut command = Command::new(program);
        command.args(*options).arg(repository().join("tests/js/client-map.mjs"));
        command.args(["--url", &format!("http://{}", server.addr), "--rounds", "8", "--removals"]);
        command.args(["--seed", &(seed + 1).to_string()]);
        run(command).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_project_builds_the_package_and_its_hooks_and_element_follow() {
    let _turn = browser_turn().await;
    let keyed = "[[topics]]\npattern = \"react-prices\"\nconflate = \"latest-by-key\"\n";
    let server = Server::with_config(&format!("{CONFIG}{keyed}")).await;
    Walk::start("client-react", server.addr, &[]).finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn htmx_turbo_and_datastar_show_the_events_of_a_stream() {
    let _turn = browser_turn().await;
    let server = Server::with_config(CONFIG).await;
    Walk::start("frameworks", server.addr, &[]).finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_with_short_tokens_renew_them_on_the_open_stream_and_lose_nothing() {
    const SECRET: &str = "a secret of thirty-two bytes, at least";
    let _turn = browser_turn().await;
    let access = format!(
        "[access]\nenabled = true\nrenew_before = \"3s\"\n\
         [[access.keys]]\nalgorithm = \"HS256\"\nkey = \"{SECRET}\"\n"
    );
    let server = Server::with_config(&format!("{CONFIG}{access}")).await;
    for options in [&[("--secret", SECRET)][..], &[("--secret", SECRET), FIREFOX]] {
        Walk::start("client-tokens", server.addr, options).finish(&[]).await;
    }
}
