//! The commands beside `serve`, run against a hub.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    Server, Stream,
    directory::Directory,
    http::{request, try_publish},
    server::{fanfare, temporary_file},
    until,
    wait::DEADLINE,
};

/// Runs a command for this hub to its end.
fn run(server: &Server, args: &[&str]) -> Output {
    fanfare(args, &[("FANFARE_URL", &format!("http://{}", server.addr))])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Runs a command with this standard input.
fn run_with_input(server: &Server, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(args)
        .env("FANFARE_URL", format!("http://{}", server.addr))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("the command reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// The history of these topics, as printed by `tail --json`.
fn history(server: &Server, topic: &str, count: usize) -> Vec<Value> {
    let count = count.to_string();
    let output = run(server, &["tail", topic, "--from", "earliest", "--json", "-n", &count]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_bare_data_into_a_pipe_and_ends_after_a_count() {
    let server = Server::start(&["--no-demo"]).await;
    for (topic, event, data) in
        [("a:1", "like", json!("one")), ("a:1", "post", json!({"n": 2})), ("a:1", "like", json!(3))]
    {
        server.publish(json!({"topic": topic, "event": event, "data": data})).await;
    }
    let printed = |args: &[&str]| {
        let args = [&["tail", "a:*", "--from", "earliest"], args].concat();
        let output = run(&server, &args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(printed(&["-n", "3"]), "one\n{\"n\":2}\n3\n");
    assert_eq!(printed(&["-n", "2", "--types", "like,other"]), "one\n3\n");
    let template = ["-n", "2", "--template", "{topic}|{type}|{data}"];
    assert_eq!(printed(&template), "a:1|like|one\na:1|post|{\"n\":2}\n");
    let output = run(&server, &["tail", "a:*", "--since", "5m", "-n", "3"]);
    assert_eq!(text(&output.stdout), "one\n{\"n\":2}\n3\n");
    for args in [&["--template", "{tpic}"][..], &["-n", "0"], &["--since", "1h", "--from", "x"]] {
        let output = run(&server, &[&["tail", "a"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_explains_a_gap_in_a_sentence() {
    let server = Server::start(&["--no-demo"]).await;
    server.publish(json!({"topic": "a", "data": "kept"})).await;
    // A cursor of another life of the hub.
    let output = run(&server, &["tail", "a", "--from", "fdqGxN2Q~q8I2II7.1:1", "-n", "1"]);
    let notes = text(&output.stderr);
    assert!(
        notes.contains("gap (epoch): ") && notes.contains("because the hub lost its history"),
        "{notes}"
    );
    assert_eq!(text(&output.stdout), "kept\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_takes_files_several_topics_and_all_fields() {
    let server = Server::start(&["--no-demo"]).await;
    let file = temporary_file("json", "{\"n\": 1.50}");
    let at_file = format!("@{}", file.display());
    let args = [
        "publish",
        "a,b",
        &at_file,
        "--event",
        "x",
        "--key",
        "k",
        "--id",
        "once",
        "--collapse",
        "c",
    ];
    let first = run(&server, &args);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let answers: Value = serde_json::from_slice(&first.stdout).expect("JSON");
    assert_eq!(answers.as_array().map(Vec::len), Some(2), "{answers}");
    // The id makes the repeat harmless.
    assert_eq!(text(&run(&server, &args).stdout), text(&first.stdout));
    run(&server, &["publish", "b", "@@alice"]);
    let of_b = history(&server, "b", 2);
    assert_eq!(of_b[0]["data"], json!({"n": 1.50}));
    assert_eq!((&of_b[0]["event"], &of_b[0]["key"]), (&json!("x"), &json!("k")));
    assert_eq!(of_b[1]["data"], "@alice");

    for args in [&["publish", "a", "{a:1}", "--json"][..], &["publish", "a", "@/nothing/here"]] {
        let output = run(&server, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    let _ = std::fs::remove_file(file);
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_reads_lines_of_standard_input() {
    let server = Server::start(&["--no-demo"]).await;
    let output = run_with_input(&server, &["publish", "a,b", "-", "--id", "run"], "1\ntwo\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    run_with_input(&server, &["publish", "a,b", "--id", "run"], "1\ntwo\nthree\n");
    let data: Vec<Value> =
        history(&server, "b", 3).into_iter().map(|event| event["data"].clone()).collect();
    assert_eq!(data, [json!(1), json!("two"), json!("three")], "each line once");

    let output = run_with_input(&server, &["publish", "j", "--json"], "1\n{oops\n2\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("line 2: invalid JSON"), "{}", text(&output.stderr));
    assert_eq!(history(&server, "j", 2)[1]["data"], 2);

    run_with_input(&server, &["publish", "whole", "@-"], "two\nlines");
    assert_eq!(history(&server, "whole", 1)[0]["data"], "two\nlines");
}

#[tokio::test]
async fn a_misspelt_field_of_an_event_is_named() {
    let server = Server::start(&["--no-demo"]).await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let bad = json!({"topic": "a", "evnt": "x", "data": 1});
    let good = json!({"topic": "a", "data": 2});
    for body in [bad.clone(), json!([good, bad])] {
        let answer = try_publish(server.addr, &body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "bad_json");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("evnt")), "{error}");
    }
    let lines = format!("{bad}\n{good}\n");
    let headers = [("Content-Type", "application/x-ndjson")];
    let answer = request(server.addr, "POST", "/events/publish", &headers, lines.as_bytes()).await;
    let answers: Vec<Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers[0]["error"]["code"], "bad_json");
    assert!(answers[0]["error"]["message"].as_str().is_some_and(|text| text.contains("evnt")));
    assert_eq!(answers[1]["success"], true);
    assert_eq!(stream.next().await.data, "2", "the array was refused whole");
    until(DEADLINE, "one event in all", async || server.stats().await["published"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_are_changed_and_reached_by_commands() {
    let server = Server::start(&["--no-demo"]).await;
    let printed = |args: &[&str]| {
        let output = run(&server, args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(printed(&["follow", "a/ñ", "bob"]), "a/ñ follows bob\n");
    assert_eq!(printed(&["follow", "a/ñ", "bob"]), "a/ñ already followed bob\n");
    let fanned = printed(&["fanout", "bob", "{\"n\":1}", "--event", "post", "--mode", "push"]);
    assert_eq!(fanned, "push: 1 followers, 0 online, 0 muted\n");
    assert_eq!(printed(&["unfollow", "a/ñ", "bob"]), "a/ñ unfollowed bob\n");
    assert_eq!(printed(&["unfollow", "a/ñ", "bob"]), "a/ñ did not follow bob\n");
    assert_eq!(run(&server, &["fanout", "bob", "{oops", "--json"]).status.code(), Some(2));
}

#[test]
fn shells_and_man_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = fanfare(&["completions", shell], &[]);
        assert!(output.status.success() && text(&output.stdout).contains("unfollow"), "{shell}");
    }
    let directory = Directory::new("man");
    let output = fanfare(&["man", &directory.path().display().to_string()], &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for page in ["fanfare.1", "fanfare-serve.1", "fanfare-tail.1", "fanfare-publish.1"] {
        assert!(directory.path().join(page).exists(), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_measures_through_the_hub() {
    let server = Server::start(&["--no-demo"]).await;
    let output = run(&server, &["ping", "a", "-n", "3", "--interval", "1ms"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines[0].starts_with("event 1: ") && lines.len() == 4, "{lines:?}");
    assert!(lines[3].starts_with("3 events on a: min "), "{lines:?}");
    let output = run(&server, &["ping", "-n", "2", "--interval", "1ms", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(report["latency_ms"]["max"].as_f64().is_some_and(|max| max > 0.0), "{report}");
    assert!(report["topic"].as_str().is_some_and(|topic| topic.starts_with("ping:")), "{report}");
    server.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_shows_named_and_busy_ones() {
    let server = Server::start(&["--no-demo"]).await;
    let _stream = Stream::subscribe(server.addr, "topic=named").await;
    server.publish(json!({"topic": "named", "data": 1})).await;
    let output = run(&server, &["topics", "named", "--json"]);
    let named: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(named, json!({"topic": "named", "subscribers": 1, "sequence": named["sequence"]}));

    let counting = async {
        // The command has its stream once there are two.
        server.until_streams(2).await;
        for _ in 0..3 {
            server.publish(json!({"topic": "busy:1", "data": 1})).await;
        }
        server.publish(json!({"topic": "busy:2", "data": 1})).await;
    };
    let url = format!("http://{}", server.addr);
    let command = tokio::task::spawn_blocking(move || {
        fanfare(&["topics", "busy:*", "--for", "5s"], &[("FANFARE_URL", &url)])
    });
    let (output, ()) = tokio::join!(command, counting);
    let printed = text(&output.expect("no panic").stdout);
    let rows: Vec<Vec<&str>> =
        printed.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 2, "{printed}");
    assert_eq!((rows[0][0], rows[0][3]), ("0.6", "busy:1"), "{printed}");
    assert_eq!((rows[1][0], rows[1][3]), ("0.2", "busy:2"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_removes_a_key_at_once_or_after_its_life() {
    let keyed = "[[topics]]\npattern = \"k:**\"\nconflate = \"latest-by-key\"\n";
    let server = Server::with_config(keyed).await;
    let mut stream = Stream::subscribe(server.addr, "topic=k:a").await;
    for args in [
        &["publish", "k:a", "--key", "x", "1"][..],
        &["publish", "k:a", "--key", "x", "--delete"],
        &["publish", "k:a", "--key", "y", "--ttl", "200ms", "2"],
    ] {
        let output = run(&server, args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    }
    for (event_type, data) in [
        ("message", "1"),
        ("deleted", r#"{"topic":"k:a","key":"x"}"#),
        ("message", "2"),
        ("deleted", r#"{"topic":"k:a","key":"y"}"#),
    ] {
        let event = stream.next().await;
        assert_eq!((event.event.as_str(), event.data.as_str()), (event_type, data));
    }
    for args in [
        &["publish", "k:a", "--delete"][..],
        &["publish", "k:a", "1", "--ttl", "1s"],
        &["publish", "k:a", "1", "--delete", "--key", "x"],
    ] {
        assert_eq!(run(&server, args).status.code(), Some(2), "{args:?}");
    }
}
