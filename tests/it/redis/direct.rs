//! Programs in other languages, publishing straight through Redis: the ones in `examples/`.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Instances, RedisServer, Stream, http::publish, redis::Options, repository};

/// Interpreter and program.
const PROGRAMS: [(&str, &str); 2] = [
    ("target/python/bin/python", "examples/direct_publish.py"),
    ("node", "examples/direct_publish.mjs"),
];

/// The publish script, a public interface.
pub(super) fn publish_script() -> String {
    let script = std::fs::read_to_string(repository().join("crates/redis/src/publish.lua"));
    script.expect("the script is in the repository")
}

/// Runs a program to its end. Returns its output.
pub(super) async fn run(
    (interpreter, program): (&str, &str),
    redis: &str,
    arguments: &[&str],
) -> Value {
    let repository = repository();
    // A path is relative to the repository. The system finds a bare name.
    let interpreter = match interpreter.contains('/') {
        true => repository.join(interpreter),
        false => interpreter.into(),
    };
    let mut command = Command::new(&interpreter);
    command.current_dir(repository).arg(program).args(arguments).args(["--redis", redis]);
    let output = command.output().await;
    let output = output
        .unwrap_or_else(|error| panic!("{}: {error}: run scripts/test", interpreter.display()));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {complaint}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{program}: {error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_and_node_publish_straight_through_redis() {
    let redis = RedisServer::start(Options::default()).await;
    let url = redis.url();
    let instances = Instances::start(&[&url, &url], &[]).await;
    for program in PROGRAMS {
        let topic = format!("direct:{}:börse", program.0);
        let mut stream = Stream::subscribe(instances.addr(0), "topic=direct:**").await;
        let text = "Grüße, 世界\nof two lines";
        let first = run(program, &url, &[&topic, text]).await;
        assert_eq!(first["new"], true, "{first}");
        let event = stream.next().await;
        assert_eq!((event.event.as_str(), event.data.as_str()), ("message", text));

        let object = "{\"price\": 1.5, \"of\": [null, \"ü\"]}";
        let more = ["--event", "note", "--key", "k", "--id", "once"];
        let second = run(program, &url, &[&[topic.as_str(), object], &more[..]].concat()).await;
        let event = stream.next().await;
        assert_eq!(
            (event.event.as_str(), event.json()),
            ("note", json!({ "price": 1.5, "of": [null, "ü"] }))
        );
        assert!(!event.data.contains(' '), "compact: {}", event.data);

        // The id is shared with other programs and with instances.
        for other in PROGRAMS {
            let again = run(other, &url, &[&topic, "another", "--id", "once"]).await;
            assert_eq!((&again["new"], &again["sequence"]), (&json!(false), &second["sequence"]));
        }
        let event = json!({ "topic": topic, "data": "another", "id": "once" });
        let answer = publish(instances.addr(1), event).await;
        for field in ["partition", "sequence"] {
            assert_eq!(answer[field], second[field], "{field}");
        }
        // A publish on an instance gets the next sequence.
        let event = json!({ "topic": topic, "data": "over HTTP" });
        let next = publish(instances.addr(1), event).await;
        assert_eq!(next["sequence"], second["sequence"].as_u64().expect("a number") + 1);
        assert_eq!(stream.take_data(1).await, ["over HTTP"]);
        let query = format!("topic=direct:{}:*&last_event_id=earliest", program.0);
        let mut stream = Stream::subscribe(instances.addr(1), &query).await;
        assert_eq!(stream.take(3).await[0].data, text);
    }
}
