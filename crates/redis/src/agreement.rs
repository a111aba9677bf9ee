//! The settings required to be equal on all instances of a cluster. The first instance stores them
//! in Redis; every later one compares its own.
//!
//! Not here: the comparison (`join.lua`).

use fanfare_core::{cluster::SettingConflict, policy::Policies};
use redis::{Cmd, RedisError, Value, from_redis_value};

use crate::script::Names;

/// The version of the scripts. Instances with different versions cannot share keys.
const SCRIPTS: &str = "3";

/// A setting in its text form.
#[derive(Debug)]
struct AgreedSetting {
    name: &'static str,
    value: String,
    /// Whether a different value is refused also while no other instance is connected: the keys in
    /// Redis depend on it.
    is_fixed: bool,
}

/// All these settings of this instance.
#[derive(Debug)]
pub(crate) struct Agreement(Vec<AgreedSetting>);

impl Agreement {
    pub fn new(partition_count: u16, policies: &Policies) -> Self {
        let partitions = partition_count.to_string();
        Self(vec![
            AgreedSetting { name: "hub.partitions", value: partitions, is_fixed: true },
            AgreedSetting { name: "scripts", value: SCRIPTS.to_owned(), is_fixed: false },
            AgreedSetting {
                name: "topic policies",
                value: policies.history_terms(),
                is_fixed: false,
            },
        ])
    }

    /// The call joining a partition. `own` is the number of own subscriptions to `control`.
    pub fn join(&self, sha: &str, names: &Names, own: usize) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(sha).arg(1).arg(names.of("cluster"));
        command.arg(names.database_part()).arg(names.channel("control")).arg(own);
        for AgreedSetting { name, value, is_fixed } in &self.0 {
            command.arg(name).arg(value).arg(if *is_fixed { "always" } else { "together" });
        }
        command
    }

    /// The different setting in the answer to a join, if any.
    pub fn conflict(&self, answer: Value) -> Result<Option<SettingConflict>, RedisError> {
        let words: Vec<String> = from_redis_value(answer)?;
        let [name, stored] = &words[..] else { return Ok(None) };
        let own = self.0.iter().find(|setting| setting.name == name);
        Ok(Some(SettingConflict {
            name: name.clone(),
            stored: stored.clone(),
            own: own.map(|own| own.value.clone()).unwrap_or_default(),
        }))
    }
}
