//! The settings required to be equal on all instances of a cluster. The first instance stores them
//! in Redis; every later one compares its own.
//!
//! Not here: the comparison (`join.lua`).

use fanfare_core::{cluster::SettingConflict, policy::Policies};
use redis::{Cmd, RedisError, Value, from_redis_value};

use crate::{
    publish_path::LinkError,
    script::{self, Names},
    signature::Secret,
};

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
    /// `secret` is used unless the partition has one.
    pub fn join(&self, names: &Names, own: usize, secret: &str) -> Cmd {
        // With the text of the script: a forgotten script needs no separate handling here.
        let mut command = redis::cmd("EVAL");
        command.arg(script::JOIN).arg(1).arg(names.of("cluster"));
        command.arg(names.database_part()).arg(names.channel("control")).arg(own).arg(secret);
        for AgreedSetting { name, value, is_fixed } in &self.0 {
            command.arg(name).arg(value).arg(if *is_fixed { "always" } else { "together" });
        }
        command
    }

    /// Parses the answer to a join: the secret of the partition.
    ///
    /// # Errors
    /// A setting is different, or the answer has an unexpected form.
    pub fn secret(&self, answer: Value, names: &Names) -> Result<Secret, LinkError> {
        let words: Vec<String> = from_redis_value(answer).map_err(RedisError::from)?;
        if let [name, stored] = &words[..] {
            let own = self.0.iter().find(|setting| setting.name == name);
            return Err(LinkError::Refused(SettingConflict {
                name: name.clone(),
                stored: stored.clone(),
                own: own.map(|own| own.value.clone()).unwrap_or_default(),
            }));
        }
        let secret = words.first().and_then(|text| Secret::new(text, names.base()));
        secret.ok_or_else(|| script::unexpected().into())
    }
}
