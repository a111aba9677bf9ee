//! The commands for a person at a terminal, on a real one.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::json;

use crate::support::{
    Server, directory::Directory, process, server::fanfare, until, wait::DEADLINE,
};

/// A terminal made by `script`, with a shell running a command. At the end, the shell prints the
/// exit code and the terminal's settings.
struct Terminal {
    script: Child,
    output: PathBuf,
}

impl Terminal {
    /// Runs this line of shell, with the command as `$FANFARE`.
    fn run(server: &Server, directory: &Directory, line: &str) -> Self {
        let output = directory.path().join("terminal");
        let line = format!("stty rows 40 cols 120; {line}; echo exit=$?; stty -a; echo THE-END");
        let script = Command::new("script")
            .args(["-qfc", &line, "/dev/null"])
            .env("FANFARE", env!("CARGO_BIN_EXE_fanfare"))
            .env("FANFARE_URL", format!("http://{}", server.addr))
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(File::create(&output).expect("the temporary directory takes files"))
            .spawn()
            .expect("script starts");
        Self { script, output }
    }

    /// Everything written to the terminal.
    fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).expect("a file")).into_owned()
    }

    fn type_in(&mut self, keys: &str) {
        let stdin = self.script.stdin.as_mut().expect("piped");
        stdin.write_all(keys.as_bytes()).expect("script reads");
    }

    async fn until_it_shows(&self, text: &str) {
        until(DEADLINE, &format!("{text} on the terminal"), async || self.text().contains(text))
            .await;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

const ENTER_FULL_SCREEN: &str = "\u{1b}[?1049h";
const LEAVE_FULL_SCREEN: &str = "\u{1b}[?1049l";

/// Waits for the end, with the terminal as before.
async fn until_given_back(terminal: &Terminal) {
    terminal.until_it_shows("THE-END").await;
    let text = terminal.text();
    let (_, after) = text.split_once(LEAVE_FULL_SCREEN).expect("the full screen is left");
    assert!(after.contains("exit=0"), "{after}");
    assert!(after.contains(" icanon") && after.contains(" echo "), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_a_hub_and_gives_the_terminal_back() {
    let server = Server::start(&["--no-demo"]).await;
    for (keys, signal) in [("q", None), ("\u{3}", None), ("", Some("TERM"))] {
        let directory = Directory::new("top");
        let line = "sh -c 'echo pid=$$,; exec $FANFARE top'";
        let mut terminal = Terminal::run(&server, &directory, line);
        terminal.until_it_shows(ENTER_FULL_SCREEN).await;
        // Blanks are cursor moves, so a text is one word.
        terminal.until_it_shows("deliveries").await;
        until(DEADLINE, "a counted topic is shown", async || {
            server.publish(json!({"topic": "prices:berlin", "data": 1})).await;
            terminal.text().contains("prices:berlin")
        })
        .await;
        terminal.type_in(keys);
        if let Some(signal) = signal {
            let text = terminal.text();
            let pid = text.split_once("pid=").and_then(|(_, rest)| rest.split_once(','));
            let pid = pid.and_then(|(pid, _)| pid.parse().ok()).expect("a process id");
            process::signal(pid, signal);
        }
        until_given_back(&terminal).await;
    }
}

#[tokio::test]
async fn top_without_a_terminal_or_a_hub_says_so() {
    let output = fanfare(&["top"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.starts_with("fanfare top needs a terminal"), "{message}");

    let server = Server::start(&["--no-demo"]).await;
    let directory = Directory::new("top-nothing");
    let terminal = Terminal::run(&server, &directory, "$FANFARE top --url http://127.0.0.1:1");
    terminal.until_it_shows("THE-END").await;
    let text = terminal.text();
    assert!(text.contains("cannot connect") && text.contains("exit=1"), "{text}");
    assert!(!text.contains(ENTER_FULL_SCREEN), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_shows_its_progress_through_a_file() {
    let server = Server::start(&["--no-demo"]).await;
    let directory = Directory::new("lines");
    let mut lines = String::new();
    for number in 0..3000 {
        writeln!(lines, "{number}").expect("a string takes it");
    }
    directory.write("lines", &lines);
    let file = directory.path().join("lines");
    let line = format!("$FANFARE publish news < {}", file.display());
    let terminal = Terminal::run(&server, &directory, &line);
    terminal.until_it_shows("THE-END").await;
    let text = terminal.text();
    assert!(text.contains("published 3000 events") && text.contains("exit=0"), "{text}");
    assert!(text.contains("/13.56 KiB") && text.contains(" events, "), "{text}");
    // In a pipe, nobody sees a bar.
    let line = format!("$FANFARE publish news < {} 2>&1 | cat", file.display());
    let terminal = Terminal::run(&server, &directory, &line);
    terminal.until_it_shows("THE-END").await;
    assert!(!terminal.text().contains("KiB"), "{}", terminal.text());
}
