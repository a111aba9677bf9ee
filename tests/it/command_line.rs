//! `fanfare serve`: its flags, its refusals and its exit codes.

use std::{net::TcpListener, process::Output};

use serde_json::json;

use crate::support::{
    Launch, Server, Stream, repository,
    server::{fanfare, temporary_file},
    until,
    wait::DEADLINE,
};

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// Runs `serve --check` with this configuration. Returns exit code, log lines, and file name.
fn check(config: &str) -> (Option<i32>, Vec<String>, String) {
    let path = temporary_file("toml", config);
    let name = path.display().to_string();
    let output = fanfare(&["serve", "--check", "--config", &name], &[]);
    let lines = stderr(&output).lines().map(str::to_owned).collect();
    let _ = std::fs::remove_file(path);
    (output.status.code(), lines, name)
}

#[test]
fn check_accepts_what_holds() {
    let output = fanfare(&["serve", "--check"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let shipped = repository().join("config/fanfare.toml");
    let output = fanfare(&["serve", "--check", "--config", shipped.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(check("").0, Some(0));
    assert_eq!(check("[stream]\nheartbeat = \"20s\"").0, Some(0));
}

#[test]
fn every_problem_has_a_line_that_names_file_and_key() {
    let (code, lines, file) = check(
        "[stream]\nheartbeat = \"1ms\"\nunknown = 1\n\
         [hub]\npartitions = 3\n\
         [outbox]\nslow_consumer = \"wait\"\n\
         [nothing]\nkey = 1\n\
         [[topics]]\npattern = \"a::b\"\ntick = \"soon\"\n",
    );
    assert_eq!(code, Some(2));
    for key in [
        "stream.heartbeat",
        "stream.unknown",
        "hub.partitions",
        "outbox.slow_consumer",
        "nothing",
        "topics[0].pattern",
        "topics[0].tick",
    ] {
        let about: Vec<&String> = lines.iter().filter(|line| line.contains(key)).collect();
        assert_eq!(about.len(), 1, "{key}: {lines:#?}");
        assert!(about[0].contains(&file), "{about:?}");
    }
    assert_eq!(lines.len(), 7, "{lines:#?}");
}

#[test]
fn a_log_on_disk_and_redis_are_not_used_together() {
    let (code, lines, _) = check("log.directory = \"/tmp/x\"\nredis.url = \"redis://localhost\"");
    assert_eq!((code, lines.len()), (Some(2), 1), "{lines:?}");
    assert!(lines[0].contains("log.directory") && lines[0].contains("redis.url"), "{lines:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_bad_usage() {
    let output = fanfare(&["serve", "--config", "/nothing/here.toml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("/nothing/here.toml"), "{}", stderr(&output));
    let (code, lines, file) = check("[stream\nheartbeat = ");
    assert_eq!(code, Some(2));
    assert!(lines.iter().any(|line| line.contains(&file)), "{lines:?}");
}

#[test]
fn problems_in_the_environment_and_in_flags_are_named() {
    let output = fanfare(&["serve", "--check"], &[("FANFARE__STREAM__HEARTBEAT", "never")]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains("FANFARE__STREAM__HEARTBEAT") && text.contains("stream.heartbeat"),
        "{text}"
    );
    let output = fanfare(&["serve", "--check"], &[("FANFARE__STREAM__HARTBEAT", "1s")]);
    assert_eq!(output.status.code(), Some(2), "unknown keys are errors there too");
    let output = fanfare(&["serve", "--check", "--listen", "nowhere"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--listen"), "{}", stderr(&output));
}

#[test]
fn bad_usage_is_2() {
    for args in [
        &["--nothing"][..],
        &["nothing"],
        &["serve", "--nothing"],
        &["serve", "extra"],
        &["serve", "--config"],
        &["serve", "--workers", "many"],
    ] {
        assert_eq!(fanfare(args, &[]).status.code(), Some(2), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        assert_eq!(fanfare(args, &[]).status.code(), Some(0), "{args:?}");
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[test]
fn check_prints_the_sources_the_values_and_a_policy() {
    let config = "[stream]\nheartbeat = \"20s\"\n[redis]\nurl = \"redis://me:hunter2@host\"\n\
                  [[topics]]\npattern = \"a:*\"\nconflate = \"latest\"";
    let file = temporary_file("toml", config);
    let name = file.display().to_string();
    let environment = [("FANFARE__HUB__THREADS", "2")];
    let args = ["--check", "--print", "--topic", "a:b", "--config", &name, "--listen", ":7777"];
    let output = fanfare(&args, &environment);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = stdout(&output);
    for (value, place) in [
        ("heartbeat = \"20s\"", name.as_str()),
        ("threads = \"2\"", "FANFARE__HUB__THREADS"),
        ("listen = \"127.0.0.1:7777\"", "--listen"),
        ("drain = \"5s\"", "default"),
        ("conflate = \"latest\"", &name),
    ] {
        let line = printed.lines().find(|line| line.starts_with(value));
        assert!(
            line.is_some_and(|line| line.ends_with(&format!("# {place}"))),
            "{value}: {printed}"
        );
    }
    assert!(printed.starts_with(&format!("# read {name}\n")), "{printed}");
    assert!(printed.contains("# read the environment: FANFARE__HUB__THREADS\n"), "{printed}");
    assert!(printed.contains("# the policy of a:b, from topics[0], pattern \"a:*\""), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");

    // The printed values are a configuration with the same meaning.
    let again = temporary_file("toml", &printed.replace("the configuration is valid", ""));
    let output = fanfare(&["--check", "--config", &again.display().to_string()], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for args in [&["--print"][..], &["--topic", "a"], &["--check", "--topic", "a::b"]] {
        assert_eq!(fanfare(args, &[]).status.code(), Some(2), "{args:?}");
    }
    let _ = (std::fs::remove_file(file), std::fs::remove_file(again));
}

#[test]
fn options_of_serve_work_without_its_name() {
    let output = fanfare(&["--check", "--print", "--listen", "localhost:7777"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("listen = \"127.0.0.1:7777\""), "{}", stdout(&output));
    assert!(stdout(&output).contains("# read no file"), "{}", stdout(&output));
    assert_eq!(fanfare(&["--check", "publish", "a"], &[]).status.code(), Some(2));
}

#[test]
fn plan_takes_counts_with_units() {
    let plan = |connections| {
        fanfare(&["plan", "--connections", connections, "--rate", "1", "--json"], &[]).stdout
    };
    assert!(!plan("100k").is_empty());
    assert_eq!(plan("100k"), plan("100000"));
}

#[test]
fn an_address_that_others_reach_is_refused() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let output = fanfare(&["serve", "--no-demo", "--listen", address], &[]);
        assert_eq!(output.status.code(), Some(2), "{address}");
        assert!(stderr(&output).contains("--open-to-network"), "{}", stderr(&output));
    }
    let output = fanfare(&["serve", "--check", "--listen", "0.0.0.0:0", "--open-to-network"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = fanfare(&["serve", "--check", "--listen", "127.9.9.9:0"], &[]);
    assert_eq!(output.status.code(), Some(0), "all of 127/8 is loopback");
}

#[tokio::test]
async fn an_address_in_use_is_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let output = fanfare(&["serve", "--no-demo", "--listen", &address], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));

    let server = Server::start(&["--no-demo"]).await;
    let output = fanfare(&["serve", "--no-demo", "--listen", &server.addr.to_string()], &[]);
    assert_eq!(output.status.code(), Some(1), "another fanfare would share its port");
}

#[tokio::test]
async fn flags_win_over_the_environment_and_that_over_the_file() {
    let launch = Launch {
        config: Some(
            "[server]\nlisten = \"127.0.0.1:1\"\nworkers = 3\n[hub]\nmax_connections = 7".into(),
        ),
        args: vec!["--workers".into(), "1".into()],
        ..Launch::default()
    };
    let server = Server::launch(launch).await;
    assert!(server.printed().contains("7 streams"), "{}", server.printed());
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    server.publish(json!({"topic": "a", "data": 1})).await;
    stream.next().await;
    let file = temporary_file("toml", "[stream]\nheartbeat = \"1ms\"");
    let args = ["serve", "--check", "--config", &file.display().to_string()];
    assert_eq!(fanfare(&args, &[("FANFARE__STREAM__HEARTBEAT", "20s")]).status.code(), Some(0));
    assert_eq!(fanfare(&args, &[]).status.code(), Some(2));
    let _ = std::fs::remove_file(file);
}

#[tokio::test]
async fn both_signals_drain() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&["--no-demo"]).await;
        let mut stream = Stream::subscribe(server.addr, "topic=a").await;
        server.signal(signal);
        assert_eq!(stream.next().await.event, "shutdown");
        assert_eq!(server.wait_exit(DEADLINE).await.code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn open_files_bound_the_streams() {
    let launch =
        Launch { args: vec!["--no-demo".into()], open_files: Some(300), ..Launch::default() };
    let server = Server::launch(launch).await;
    let printed = server.printed();
    assert!(printed.contains("300 open files"), "{printed}");
    assert!(printed.contains("100 streams"), "{printed}");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let config = "[server]\ndrain = \"60s\"\n[outbox]\nmax_bytes = \"64MiB\"".to_owned();
    let launch = Launch { config: Some(config), log: "info".into(), ..Launch::default() };
    let mut server = Server::launch(launch).await;
    // A client with unread data delays the end of the drain.
    let _stalled = Stream::subscribe(server.addr, "topic=a").await;
    let filler = "x".repeat(60_000);
    until(DEADLINE, "the socket buffers are full", async || {
        for _ in 0..10 {
            server.publish(json!({"topic": "a", "data": filler})).await;
        }
        server.metric("fanfare_outbox_bytes").await > 1_000_000.0
    })
    .await;
    server.terminate();
    until(DEADLINE, "the drain has begun", async || server.log().contains("draining")).await;
    server.terminate();
    assert_eq!(server.wait_exit(DEADLINE).await.code(), Some(1));
}
