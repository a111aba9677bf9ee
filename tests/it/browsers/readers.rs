//! The readers as processes: the scripts of `tests/js` and curl.

use std::{fmt, net::SocketAddr, path::PathBuf, process::Stdio, sync::Arc};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    task::JoinSet,
};

use super::{TOPIC, eventually};
use crate::support::{
    crowd::{Answer, Piece},
    repository,
};

/// The scripts of `tests/js` with a stream reader: name of the reader, script, further options.
const SCRIPTS: [(&str, &str, &[&str]); 4] = [
    ("chromium", "browser", &[]),
    ("firefox", "browser", &["--browser", "firefox"]),
    ("eventsource", "eventsource", &[]),
    ("fetch-event-source", "fetch-event-source", &[]),
];

/// An event as a reader saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `message` if the stream names no type.
    pub kind: String,
    pub id: String,
    pub data: String,
}

/// A reader process. It runs until it has seen `done`; dropping it kills it.
pub struct Reader {
    pub name: &'static str,
    seen: Arc<Mutex<Vec<Seen>>>,
    _task: JoinSet<()>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.seen().into_iter().map(|seen| seen.kind).collect();
        write!(formatter, "{}: {kinds:?}", self.name)
    }
}

impl Reader {
    fn start<F>(name: &'static str, run: impl FnOnce(Arc<Mutex<Vec<Seen>>>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let mut task = JoinSet::new();
        task.spawn(run(seen.clone()));
        Self { name, seen, _task: task }
    }

    /// All events so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub async fn until(&self, what: &str, is_so: impl Fn(&[Seen]) -> bool) {
        let what = format!("{}: {what}", self.name);
        eventually(&what, async || is_so(&self.seen.lock())).await;
    }
}

/// One reader of each kind, all at the same address.
pub fn all_readers(addr: SocketAddr) -> Vec<Reader> {
    let scripts = SCRIPTS.map(|(name, script, options)| {
        Reader::start(name, |seen| run_script(addr, script, options, seen))
    });
    let curl = Reader::start("curl", |seen| run_curl(addr, seen));
    scripts.into_iter().chain([curl]).collect()
}

/// A library with its own reconnect and resume.
async fn run_script(addr: SocketAddr, script: &str, options: &[&str], seen: Arc<Mutex<Vec<Seen>>>) {
    let path: PathBuf = repository().join(format!("tests/js/{script}.mjs"));
    let mut command = Command::new("node");
    command
        .arg(path)
        .args(options)
        .args(["--url", &format!("http://{addr}"), "--topics", TOPIC, "--timeout", "120"])
        .args(["--types", "note,done,connected,gap,shutdown", "--until", "done"]);
    let (mut child, output) = spawn(&mut command);
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await.expect("its output can be read") {
        let line: Value = serde_json::from_str(&line).expect("lines are JSON");
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        seen.lock().push(Seen { kind: text("type"), id: text("id"), data: text("data") });
    }
    let exit = child.wait().await.expect("it ran");
    assert!(exit.success(), "{script} {options:?}: {exit}; its reason is on stderr");
}

/// curl does not reconnect: a loop does, like a user's shell script.
async fn run_curl(addr: SocketAddr, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut last_id = String::new();
    while !super::is_done(&seen.lock()) {
        let mut command = Command::new("curl");
        command.args(["-sN", &format!("http://{addr}/events/stream?topics={TOPIC}")]);
        if !last_id.is_empty() {
            command.args(["-H", &format!("Last-Event-ID: {last_id}")]);
        }
        let (_child, mut output) = spawn(&mut command);
        let mut answer = Answer::default();
        let mut buffer = [0; 4096];
        while !super::is_done(&seen.lock()) {
            let count = output.read(&mut buffer).await.expect("its output can be read");
            if count == 0 {
                break;
            }
            answer.take_stream(&buffer[..count], &mut |piece| {
                let Piece::Event(event) = piece else { return };
                if !event.id.is_empty() {
                    last_id.clone_from(&event.id);
                }
                let kind = if event.kind.is_empty() { "message".to_owned() } else { event.kind };
                seen.lock().push(Seen { kind, id: event.id, data: event.data });
            });
        }
    }
}

fn spawn(command: &mut Command) -> (Child, ChildStdout) {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
    let mut child = spawned.expect("node and curl are there: scripts/test installs them");
    let output = child.stdout.take().expect("piped");
    (child, output)
}
