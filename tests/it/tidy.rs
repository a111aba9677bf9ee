//! The house rules that ARCHITECTURE.md states, as far as text can show them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A source file: its path below `src/`, and its text up to its unit tests.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_below(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// Lines with any of these in them, comments aside.
    fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let code = self.text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let found =
            code.enumerate().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found.map(|(number, line)| format!("{}:{}: {line}", self.path, number + 1)).collect()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 40, "the tree was found");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        Source { path: path.strip_prefix(&root).unwrap().display().to_string(), text }
    };
    let is_test = |source: &Source| {
        [
            "actors/model/",
            "actors/tests.rs",
            "bridge/contract.rs",
            "follow/contract/",
            "testing.rs",
            "tests.rs",
        ]
        .iter()
        .any(|path| source.path.starts_with(path) || source.path.ends_with(path))
    };
    files.into_iter().map(read).filter(|source| !is_test(source)).collect()
}

fn nothing_found(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_file_says_what_it_owns() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//!"));
    nothing_found(silent.map(|source| source.path).collect());
}

#[test]
fn what_decides_names_no_actor_socket_or_clock() {
    let pure = |source: &Source| {
        source.is_below("domain/") || source.is_below("wire/") || source.path.contains("/state")
    };
    let words = [
        "actix",
        "tokio::",
        "redis::",
        "std::net",
        "std::io",
        "Instant::now()",
        "SystemTime::now()",
    ];
    nothing_found(
        sources().iter().filter(|source| pure(source)).flat_map(|s| s.lines_with(&words)).collect(),
    );
}

#[test]
fn dependencies_run_one_way() {
    let upwards: [(&str, &[&str]); 7] = [
        ("domain/", &["crate::wire", "crate::actors", "crate::hub", "crate::http", "crate::cli"]),
        ("follow/", &["crate::wire", "crate::actors", "crate::hub", "crate::http", "crate::cli"]),
        ("wire/", &["crate::actors", "crate::hub", "crate::http", "crate::cli"]),
        ("actors/", &["crate::transport", "crate::bridge", "crate::http", "crate::cli"]),
        ("transport/", &["crate::http", "crate::server", "crate::cli"]),
        ("http/", &["crate::actors", "crate::server", "crate::cli"]),
        ("server/", &["crate::actors", "crate::cli"]),
    ];
    let sources = sources();
    let found = upwards.iter().flat_map(|(folder, words)| {
        sources.iter().filter(|source| source.is_below(folder)).flat_map(|s| s.lines_with(words))
    });
    nothing_found(found.collect());
}

#[test]
fn mailbox_bounds_are_only_passed_by_messages_that_are_bounded_otherwise() {
    // `src/actors/mod.rs` says by what.
    let bounded = [
        "OpenedStream(",
        "EndStream {",
        "CloseStream {",
        "Drain {",
        "Deliver {",
        "do_send(DeliveriesTaken)",
        "do_send(TrimHistory)",
        "manager.do_send(message)",
        "PublishEvents {",
        "TakeNews(vec![News::LinkDown])",
        "BeginBridge {",
        "PublishInRedis {",
        "AskRedis {",
        "ReconnectPartition(",
        "LinkEnded {",
        "ServeCalls(",
        "CallReceived {",
        "CallAnswered {",
        "FanOutToFollowers {",
        "FanOutEvent {",
        "ForgetFeed(",
        "ChangeTopics {",
    ];
    let sources = sources();
    let found = sources.iter().flat_map(|source| source.lines_with(&["do_send("]));
    nothing_found(found.filter(|line| !bounded.iter().any(|word| line.contains(word))).collect());
}

#[test]
fn nothing_is_unwrapped() {
    nothing_found(sources().iter().flat_map(|source| source.lines_with(&[".unwrap()"])).collect());
}
