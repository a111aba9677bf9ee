//! The Python package `clients/python`: its own tests against a hub ending all streams every moment, and its types.

use std::process::Stdio;

use tokio::process::Command;

use crate::support::{Server, repository};

const CONFIG: &str = r#"
[stream]
max_lifetime = "400ms"
retry_min = "20ms"
retry_max = "50ms"
"#;

async fn python(module: &str, url: &str) {
    let mut command = Command::new(repository().join("target/python/bin/python"));
    command.args(["-m", module]).current_dir(repository().join("clients/python"));
    command.env("FANFARE_URL", url).env("PYTHONDONTWRITEBYTECODE", "1");
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let run = run.expect("there is Python: scripts/test installs it");
    let printed = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "python -m {module}:\n{printed}\n{errors}");
}

#[tokio::test]
async fn the_package_publishes_and_gets_each_event_once_over_many_streams() {
    let server = Server::with_config(CONFIG).await;
    python("unittest", &format!("http://{}/events", server.addr)).await;
}

#[tokio::test]
async fn the_types_of_the_package_check() {
    python("mypy", "").await;
}
