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
const SCRIPTS: &str = "7";

/// A setting in its text form.
#[derive(Debug)]
struct AgreedSetting {
    name: &'static str,
    value: String,
    refusal: Refusal,
}

/// When an instance with a different value is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Also while no other instance is connected: the keys in Redis depend on the value.
    Always,
    /// While another instance is connected.
    Together,
    /// Never: the last value stored counts.
    Never,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Together => "together",
            Self::Never => "never",
        }
    }
}

/// All these settings of this instance.
#[derive(Debug)]
pub(crate) struct Agreement(Vec<AgreedSetting>);

impl Agreement {
    /// `stored_bytes` is the limit of the history in Redis, of all partitions together.
    pub fn new(partition_count: u16, policies: &Policies, stored_bytes: usize) -> Self {
        let stored_bytes = stored_bytes / usize::from(partition_count);
        let settings = [
            ("hub.partitions", partition_count.to_string(), Refusal::Always),
            ("scripts", SCRIPTS.to_owned(), Refusal::Together),
            ("topic policies", policies.history_terms(), Refusal::Together),
            // Read by publish.lua, for each partition. A cluster's instances take a new value one
            // after the other.
            ("redis.max_history_bytes", stored_bytes.to_string(), Refusal::Never),
        ];
        let settings =
            settings.map(|(name, value, refusal)| AgreedSetting { name, value, refusal });
        Self(settings.into())
    }

    /// The call joining a partition. `own` is the number of own subscriptions to `control`.
    /// `secret` is used unless the partition has one.
    pub fn join(&self, names: &Names, own: usize, secret: &str) -> Cmd {
        // With the text of the script: a forgotten script needs no separate handling here.
        let mut command = redis::cmd("EVAL");
        command.arg(script::JOIN).arg(1).arg(names.of("cluster"));
        command.arg(names.database_part()).arg(names.channel("control")).arg(own).arg(secret);
        for AgreedSetting { name, value, refusal } in &self.0 {
            command.arg(name).arg(value).arg(refusal.as_str());
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
