//! The programs in `docs/guide/publishing.md`, run as they stand, and the dashboard of `deploy/`.

use std::{fs, path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::support::{Server, Stream, directory::Directory, repository};

/// A block of the page: its language, its name in its event, its file, and the command running it.
const PROGRAMS: [(&str, &str, &str, &[&str]); 5] = [
    ("python", "python", "publish.py", &["python3"]),
    ("js", "node", "publish.mjs", &["node"]),
    ("php", "php", "publish.php", &["php"]),
    ("go", "go", "publish.go", &["go", "run"]),
    ("sh", "sh", "publish.sh", &["sh"]),
];

/// The only block of this language.
fn block(page: &str, language: &str) -> String {
    let blocks: Vec<&str> = page.split(&format!("\n```{language}\n")).skip(1).collect();
    assert_eq!(blocks.len(), 1, "blocks of {language}");
    let (block, _) = blocks[0].split_once("\n```\n").expect("a block ends");
    format!("{block}\n")
}

/// Debian's Go and the one of its makers are in different places.
fn path() -> String {
    format!("{}:/usr/local/go/bin", std::env::var("PATH").unwrap_or_default())
}

fn run(server: &Server, directory: &Directory, command: &[&str], file: &str) {
    let program: PathBuf = directory.path().join(file);
    let output = Command::new(command[0])
        .args(&command[1..])
        .arg(program)
        .env("PATH", path())
        // Kept from run to run: the first one compiles Go's library.
        .env("GOCACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/go-cache"))
        .env("GOTOOLCHAIN", "local")
        .env("FANFARE_URL", format!("http://{}", server.addr))
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}: run scripts/test", command[0]));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{file}: {complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_other_languages_publish_by_plain_http() {
    let page = fs::read_to_string(repository().join("docs/guide/publishing.md")).expect("a page");
    let server = Server::start(&["--no-demo"]).await;
    let directory = Directory::new("snippets");
    let mut stream = Stream::subscribe(server.addr, "topic=news").await;
    for (language, name, file, command) in PROGRAMS {
        directory.write(file, &block(&page, language));
        run(&server, &directory, command, file);
        let event = stream.next().await;
        assert_eq!((event.event.as_str(), &event.json()["from"]), ("headline", &json!(name)));
    }
}

#[tokio::test]
async fn every_metric_of_the_dashboard_exists() {
    let path = repository().join("deploy/grafana.json");
    let text = fs::read_to_string(path).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let server = Server::start(&["--no-demo"]).await;
    let metrics = server.get("/metrics").await.text().to_owned();
    let mut count = 0;
    for query in queries {
        let query = query["expr"].as_str().expect("a query");
        let names = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in names.filter(|name| name.contains("fanfare_") || name.contains("process_")) {
            let family = name.trim_end_matches("_bucket").trim_end_matches("_total");
            assert!(metrics.contains(&format!("# TYPE {family} ")), "{name} in {query}");
            count += 1;
        }
    }
    assert!(count > 15, "{count} metrics");
}
