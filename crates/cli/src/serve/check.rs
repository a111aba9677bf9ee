//! `fanfare serve --check`: prints the sources of the configuration, its values, and the policy of
//! a topic.

use std::{fmt::Write, time::Duration};

use fanfare::{
    Config,
    config::{Access, Conflate, EffectiveValue, Flush, Rate, process_environment},
};
use fanfare_core::{access::USER, topic::Topic};

use super::flags::{LoadedConfig, ServeArgs};
use crate::CliError;

/// The report about a valid configuration.
///
/// # Errors
/// `--topic` is no topic.
pub(super) fn report(args: &ServeArgs, loaded: &LoadedConfig) -> Result<String, CliError> {
    let mut text = sources(args);
    if args.print {
        text.push_str(&as_toml(&loaded.values));
    }
    if let Some(topic) = &args.topic {
        Topic::parse(topic).map_err(|error| CliError::Usage(format!("--topic: {error}")))?;
        text.push_str(&policy(&loaded.config, topic));
    }
    text.push_str(&anonymous_callers(&loaded.config.access));
    text.push_str("the configuration is valid\n");
    Ok(text)
}

/// One comment line per source, so all of the report before the last line is TOML.
fn sources(args: &ServeArgs) -> String {
    let mut text = match &args.config {
        Some(file) => format!("# read {}\n", file.display()),
        None => "# read no file: built-in defaults\n".to_owned(),
    };
    let environment = process_environment().into_iter().map(|(name, _)| name);
    let mut names: Vec<String> = environment.filter(|name| name.starts_with("FANFARE__")).collect();
    names.sort();
    if !names.is_empty() {
        let _ = writeln!(text, "# read the environment: {}", names.join(", "));
    }
    text
}

fn as_toml(values: &[EffectiveValue]) -> String {
    let (mut text, mut open) = (String::new(), "");
    for EffectiveValue { key, value, place } in values {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        if section != open {
            let entry = section.split_once('[').map(|(list, _)| format!("[[{list}]]"));
            let _ = writeln!(text, "\n{}", entry.unwrap_or_else(|| format!("[{section}]")));
            open = section;
        }
        let line = format!("{name} = {value}");
        let _ = writeln!(text, "{line:<44} # {place}");
    }
    text + "\n"
}

/// The rights of callers without a token, in words.
fn anonymous_callers(access: &Access) -> String {
    if !access.enabled {
        return "# access control is off: everybody may subscribe, publish and manage\n".to_owned();
    }
    let rules = access.rules.iter().filter(|rule| rule.who == "anyone");
    let (mut subscribe, mut publish, mut manage) = (Vec::new(), Vec::new(), Vec::new());
    for rule in rules {
        // `{user}` matches nothing without a user.
        let own = |list: &[String]| {
            list.iter().filter(|one| !one.contains(USER)).cloned().collect::<Vec<_>>()
        };
        subscribe.extend(own(&rule.subscribe));
        publish.extend(own(&rule.publish));
        manage.extend(own(&rule.manage));
    }
    let may = |verb: &str, list: &[String]| match list {
        [] => format!("# anonymous callers may {verb} nothing\n"),
        list => format!("# anonymous callers may {verb} {}\n", list.join(", ")),
    };
    let application = match access.webhook.url.is_empty() {
        true => String::new(),
        false => "# besides, access.webhook decides about callers without a token\n".to_owned(),
    };
    may("subscribe to", &subscribe)
        + &may("publish to", &publish)
        + &may("manage", &manage)
        + &application
}

fn policy(config: &Config, topic: &str) -> String {
    let policy = config.policy_of(topic);
    let entry = config.topics.iter().position(|entry| entry.pattern == policy.pattern);
    let from = match entry {
        Some(index) => format!("topics[{index}], pattern {:?}", policy.pattern),
        None => "[delivery] and [history]: no [[topics]] entry matches".to_owned(),
    };
    let duration = |duration: Option<Duration>| {
        humantime::format_duration(duration.unwrap_or_default()).to_string()
    };
    let rate = match policy.rate {
        Some(Rate { events_per_second, burst }) => {
            format!("{{ events_per_second = {events_per_second}, burst = {burst} }}")
        }
        None => "none".to_owned(),
    };
    format!(
        "# the policy of {topic}, from {from}\n\
         # flush = {:?}\n# tick = {:?}\n# conflate = {:?}\n\
         # history = {{ events = {}, ttl = {:?} }}\n# rate = {rate}\n",
        policy.flush.map_or("", flush_word),
        duration(policy.tick),
        policy.conflate.map_or("", Conflate::as_str),
        policy.history.events.unwrap_or_default(),
        duration(policy.history.ttl),
    )
}

fn flush_word(flush: Flush) -> &'static str {
    match flush {
        Flush::Tick => "tick",
        Flush::Immediate => "immediate",
        Flush::Leading => "leading",
    }
}
