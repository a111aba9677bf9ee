//! The configuration as a user sees it: the defaults file, the layers, and the exact lines of their
//! problems.

use std::{fs, path::PathBuf, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::{layers, tree::leaves, *};

const DEFAULTS: &str = include_str!("../../config/fanfare.toml");

/// A configuration file, removed at the end of the test.
struct File(PathBuf);

impl File {
    fn of(text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("fanfare-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("the temporary folder takes a file");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn variables(given: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    given.iter().map(owned).collect()
}

fn load_text(text: &str) -> Result<Config, ConfigProblems> {
    let file = File::of(text);
    Config::load(&Sources { file: Some(&file.0), ..Sources::default() })
}

/// The problems of a file with this text, one line each, without the file's name.
fn problems_of(text: &str) -> Vec<String> {
    let problems = load_text(text).expect_err("the text has problems").0;
    let without_place = |problem: &Problem| format!("{}: {}", problem.key, problem.message);
    problems.iter().map(without_place).collect()
}

#[test]
fn the_defaults_parse_and_are_valid() {
    let config = Config::default();
    assert_eq!(config.validate(), Ok(()));
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.stream.heartbeat, Duration::from_secs(15));
    assert_eq!(config.outbox.max_bytes, 1024 * 1024);
    assert_eq!(config.outbox.slow_consumer, SlowConsumer::Disconnect);
    assert_eq!(config.delivery.tick, Duration::from_millis(100));
    assert_eq!(config.delivery.flush, Flush::Leading);
    assert_eq!(config.delivery.conflate, Conflate::None);
    assert_eq!(config.topics, []);
    assert_eq!(Config::load(&Sources::default()), Ok(config));
}

#[test]
fn every_key_of_the_defaults_file_is_known_and_every_known_key_is_in_it() {
    let tree = layers::parse(DEFAULTS).expect("the defaults parse");
    // Unknown keys are errors, so parsing proves one half. The other half: no key may be missing.
    assert!(Config::deserialize(&tree).is_ok());
    for (key, _) in leaves(&tree) {
        let pointer = format!("/{}", key.to_string().replace('.', "/"));
        let (section, name) = pointer.rsplit_once('/').expect("a pointer has a slash");
        let mut without = tree.clone();
        let section = without.pointer_mut(section).and_then(Value::as_object_mut);
        assert!(section.expect("the section is there").remove(name).is_some());
        let error = Config::deserialize(without).expect_err("the key is required");
        assert_eq!(error.to_string(), format!("missing field `{name}`"));
    }
}

#[test]
fn the_commented_topic_of_the_defaults_file_shows_every_key_of_a_policy() {
    let is_example = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && *line != "#";
    let example: Vec<&str> = DEFAULTS.lines().filter(is_example).map(|line| &line[1..]).collect();
    let config = load_text(&example.join("\n")).expect("the example is valid");
    let expected = TopicPolicy {
        pattern: "ticker:**".into(),
        flush: Some(Flush::Tick),
        tick: Some(Duration::from_millis(250)),
        conflate: Some(Conflate::LatestByKey),
        history: TopicHistory { events: Some(100), ttl: Some(Duration::from_secs(600)) },
        rate: Some(Rate { events_per_second: 20, burst: 40 }),
    };
    assert_eq!(config.topics, [expected]);
}

#[test]
fn a_file_changes_only_the_keys_that_it_names() {
    let config = load_text("[stream]\nrate.burst = 7\n[[topics]]\npattern = 'a'\n[server]\n");
    let mut expected = Config::default();
    expected.stream.rate.burst = 7;
    expected.topics = vec![TopicPolicy {
        pattern: "a".into(),
        flush: None,
        tick: None,
        conflate: None,
        history: TopicHistory::default(),
        rate: None,
    }];
    assert_eq!(config, Ok(expected));
    assert_eq!(load_text(""), Ok(Config::default()));
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let file = File::of("server.workers = 1\nhub.threads = 2\nserver.backlog = 3\n");
    let config = Config::load(&Sources {
        toml: None,
        file: Some(&file.0),
        environment: variables(&[
            ("PATH", "/bin"),
            ("FANFARE__SERVER__WORKERS", "4"),
            ("FANFARE__HUB__THREADS", "5"),
            ("FANFARE__STREAM__RATE__BURST", "6"),
            ("FANFARE__SERVER__OPEN_TO_NETWORK", "true"),
            ("FANFARE__OUTBOX__SLOW_CONSUMER", "drop-oldest"),
        ]),
        flags: vec![("server.workers", "7".into(), "--workers")],
    })
    .expect("all of it is valid");
    assert_eq!(config.server.backlog, 3);
    assert_eq!(config.hub.threads, 5);
    assert_eq!(config.server.workers, 7);
    assert_eq!(config.stream.rate.burst, 6);
    assert!(config.server.open_to_network);
    assert_eq!(config.outbox.slow_consumer, SlowConsumer::DropOldest);
}

#[test]
fn all_problems_of_all_layers_are_reported_at_once_a_line_each() {
    let file = File::of(
        r#"
        [stream]
        heartbeat = "abc"
        retry_min = "5s"
        hartbeat = "15s"
        [outbox]
        max_bytes = "64 apples"
        slow_consumer = "wait"
        [auth]
        password = "hunter2"
        [[topics]]
        pattern = "fine"
        [[topics]]
        flush = "now"
        [[topics]]
        pattern = "also:fine"
        tick = "2h"
        rate = { burst = 1.5 }
        "#,
    );
    let problems = Config::load(&Sources {
        toml: None,
        file: Some(&file.0),
        environment: variables(&[
            ("FANFARE__HUB__PARTITIONS", "12"),
            ("FANFARE__PUBLISH__MAX_PAYLOAD", "17MiB"),
            ("FANFARE__HISTORY__EVENTZ", "5"),
        ]),
        flags: vec![("server.listen", "localhost:80".into(), "--listen")],
    })
    .expect_err("nearly all of it is wrong");
    let lines = r#"
FILE: topics[1].pattern: is missing
FILE: topics[2].rate.events_per_second: is missing
FILE: auth: unknown key, expected one of `server`, `tls`, `admin`, `cors`, `access`, `limits`, `hub`, `stream`, `outbox`, `poll`, `history`, `publish`, `fanout`, `log`, `redis`, `delivery`, `topics`
FILE: outbox.max_bytes: expected a size like "64KiB", got "64 apples"
FILE: outbox.slow_consumer: expected `disconnect` or `drop-oldest`, got "wait"
FILE: stream.hartbeat: unknown key, expected one of `heartbeat`, `retry_min`, `retry_max`, `write_timeout`, `max_lifetime`, `max_lifetime_jitter`, `rate`, `topic_changes_per_second`, `max_batch_events`, `max_batch_bytes`
FILE: stream.heartbeat: expected a duration like "100ms", got "abc"
FILE: topics[1].flush: expected one of `tick`, `immediate`, `leading`, got "now"
FILE: topics[2].rate.burst: expected a whole number, got 1.5
FANFARE__HISTORY__EVENTZ: history.eventz: unknown key, expected one of `max_bytes`, `max_idle_bytes`, `events`, `ttl`
--listen: server.listen: expected an IP address and port like "127.0.0.1:8080", got "localhost:80"
FANFARE__HUB__PARTITIONS: hub.partitions: must be a power of two from 1 to 256, got 12
FILE: stream.retry_min: stream.retry_min must not be more than stream.retry_max, got "5s" and "4s"
FANFARE__PUBLISH__MAX_PAYLOAD: publish.max_payload: must be from 1 to 16777216, got 17825792
FILE: topics[2].tick: must be from "1ms" to "1h", got "2h""#;
    let expected = lines.trim_start().replace("FILE", &file.0.display().to_string());
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn unknown_keys_are_refused_in_every_layer() {
    let text =
        "colour = 1\n[auth]\n[server]\nport = 1\n[[topics]]\npattern = 'a'\nhistory.age = 1\n";
    let starts = ["auth", "colour", "server.port", "topics[0].history.age"];
    for (line, key) in problems_of(text).iter().zip(starts) {
        assert!(line.starts_with(&format!("{key}: unknown key, expected ")), "{line}");
    }
    assert_eq!(problems_of(text).len(), starts.len());

    let problems = Config::load(&Sources {
        toml: None,
        file: None,
        environment: variables(&[("FANFARE__", ""), ("FANFARE__SERVER__PORT", "1")]),
        flags: vec![("server.port", "1".into(), "--port")],
    })
    .expect_err("the keys are unknown")
    .0;
    let named: Vec<_> = problems.iter().map(|p| (p.place.as_str(), p.key.as_str())).collect();
    let expected =
        [("FANFARE__", ""), ("FANFARE__SERVER__PORT", "server.port"), ("--port", "server.port")];
    assert_eq!(named, expected);
    assert!(problems.iter().all(|problem| problem.message.starts_with("unknown key")));
}

#[test]
fn values_of_another_kind_are_told_what_belongs_there() {
    let text = "history = 5\nserver.listen.port = 1\n[stream]\nrate = 5\n[hub]\nthreads = [1]\n\
                [[topics]]\npattern = 5\nrate = 'fast'\nhistory = 1\n";
    assert_eq!(
        problems_of(text),
        [
            "history: expected a [history] section, got 5",
            "hub.threads: expected a whole number, got a list",
            "server.listen: expected an IP address and port like \"127.0.0.1:8080\", got a section",
            "stream.rate: expected a rate like { events_per_second = 100, burst = 200 }, got 5",
            "topics[0].history: expected a history like { events = 100, ttl = \"1h\" }, got 1",
            "topics[0].pattern: expected a string, got 5",
            "topics[0].rate: expected a rate like { events_per_second = 100, burst = 200 }, got \"fast\"",
        ]
    );
    assert_eq!(
        problems_of("topics = ['a', {}, { rate = {} }]"),
        [
            "topics[1].pattern: is missing",
            "topics[2].pattern: is missing",
            "topics[2].rate.events_per_second: is missing",
            "topics[2].rate.burst: is missing",
            "topics[0]: expected a [[topics]] entry, got \"a\"",
        ]
    );
    let list = "topics: expected [[topics]] entries, in a file";
    assert_eq!(problems_of("[topics]\npattern = 'a'\nflush = 'tick'"), [list]);
    let problems = Config::load(&Sources {
        environment: variables(&[("FANFARE__TOPICS__0__FLUSH", "tick")]),
        ..Sources::default()
    });
    let line = problems.map_err(|problems| problems.to_string());
    assert_eq!(line, Err(format!("FANFARE__TOPICS__0__FLUSH: {list}")));
}

#[test]
fn a_file_that_can_not_be_read_or_parsed_is_one_problem_that_names_it() {
    let missing = Config::load(&Sources {
        file: Some("/nowhere/fanfare.toml".as_ref()),
        ..Sources::default()
    });
    let line = missing.expect_err("there is no such file").to_string();
    assert!(line.starts_with("/nowhere/fanfare.toml: the file can't be read: "), "{line}");

    let file = File::of("[server]\nlisten = \n");
    let broken = Config::load(&Sources { file: Some(&file.0), ..Sources::default() });
    let line = broken.expect_err("a value is missing").to_string();
    let start = format!("{}: line 2, column 10: ", file.0.display());
    assert!(line.starts_with(&start) && !line.contains('\n'), "{line}");

    let both = Config::load(&Sources {
        file: Some(&file.0),
        environment: variables(&[
            ("FANFARE__HUB__THREADS", "none"),
            ("FANFARE__STREAM__RETRY_MIN", "1m"),
        ]),
        ..Sources::default()
    });
    let lines = both.expect_err("two layers are wrong").to_string();
    let other = "FANFARE__HUB__THREADS: hub.threads: expected a whole number, got \"none\"";
    assert_eq!(lines, format!("{line}\n{other}"));
}

#[test]
fn of_keys_that_disagree_the_one_set_last_is_named() {
    let file = File::of("stream.retry_min = '3s'\n");
    let mut sources = Sources {
        file: Some(&file.0),
        environment: variables(&[("FANFARE__STREAM__RETRY_MAX", "2s")]),
        ..Sources::default()
    };
    let line = Config::load(&sources).expect_err("they disagree").to_string();
    assert_eq!(
        line,
        "FANFARE__STREAM__RETRY_MAX: stream.retry_max: \
         stream.retry_min must not be more than stream.retry_max, got \"3s\" and \"2s\""
    );
    sources.flags = vec![
        ("stream.retry_min", "5s".into(), "--retry"),
        ("hub.threads", "2".into(), "--threads"),
        ("stream.retry_max", "4s".into(), "--retry-max"),
    ];
    let problems = Config::load(&sources).expect_err("they still disagree").0;
    assert_eq!(problems[0].place, "--retry-max");
    // A stand-in replaces a bad value, and no rule applies to it.
    sources.environment = variables(&[("FANFARE__STREAM__RETRY_MAX", "2")]);
    sources.flags = vec![("stream.retry_min", "5s".into(), "--retry")];
    let problems = Config::load(&sources).expect_err("one has no unit").0;
    assert_eq!(problems.len(), 1);
}

#[test]
fn a_config_built_in_code_is_told_every_key_that_makes_no_sense() {
    let mut config = Config::default();
    config.server.listeners = 0;
    config.server.backlog = u32::MAX;
    config.hub.partitions = 0;
    config.hub.max_connections = 0;
    config.stream.heartbeat = Duration::ZERO;
    config.stream.max_lifetime_jitter = Duration::from_secs(1);
    config.stream.rate.burst = 0;
    config.stream.max_batch_events = 0;
    config.outbox.max_bytes = 4095;
    config.poll.max_bytes = 4095;
    config.history.ttl = Duration::MAX;
    config.publish.max_payload = 0;
    config.publish.max_pending = 0;
    config.delivery.tick = Duration::from_micros(999);
    config.topics.push(TopicPolicy {
        pattern: String::new(),
        flush: None,
        tick: Some(Duration::ZERO),
        conflate: None,
        history: TopicHistory::default(),
        rate: Some(Rate { events_per_second: 1, burst: 0 }),
    });
    let problems = config.validate().expect_err("none of it makes sense").0;
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "server.backlog",
            "server.listeners",
            "hub.partitions",
            "hub.max_connections",
            "stream.heartbeat",
            "stream.max_lifetime_jitter",
            "stream.rate.burst",
            "stream.max_batch_events",
            "outbox.max_bytes",
            "poll.max_bytes",
            "history.ttl",
            "publish.max_payload",
            "publish.max_pending",
            "delivery.tick",
            "topics[0].pattern",
            "topics[0].tick",
            "topics[0].rate.burst",
        ]
    );
    assert_eq!(
        problems[4].to_string(),
        "stream.heartbeat: must be from \"100ms\" to \"1h\", got \"0s\""
    );
}

#[test]
fn threads_are_at_most_the_partitions() {
    let mut config = Config::default();
    config.hub.partitions = 4;
    for (threads, is_valid) in [(0, false), (1, true), (4, true), (5, false)] {
        config.hub.threads = threads;
        assert_eq!(config.validate().is_ok(), is_valid, "{threads}");
    }
}

#[test]
fn a_rate_of_zero_is_no_limit_and_needs_no_burst() {
    let mut config = Config::default();
    config.stream.rate = Rate { events_per_second: 0, burst: 0 };
    assert_eq!(config.validate(), Ok(()));
}
