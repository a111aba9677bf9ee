//! The rules of the configuration, ready for grants.

use std::{collections::HashMap, sync::Arc};

use fanfare_core::{
    access::{Credential, Grant, Rights},
    user::User,
};

use crate::config::AccessRule;

/// Rules by the callers they are for.
#[derive(Default)]
pub(super) struct Rules {
    anyone: Vec<Arc<Rights>>,
    user: Vec<Arc<Rights>>,
    by_name: HashMap<String, Vec<Arc<Rights>>>,
    anonymous: Arc<Grant>,
}

impl Rules {
    /// The rules must be valid.
    pub fn new(rules: &[AccessRule]) -> Self {
        let mut all = Self::default();
        for rule in rules {
            let Ok(rights) = rule.rights().try_into().map(Arc::new) else { continue };
            match rule.who.strip_prefix("user:") {
                Some(name) => all.by_name.entry(name.to_owned()).or_default().push(rights),
                None if rule.who == "user" => all.user.push(rights),
                None => all.anyone.push(rights),
            }
        }
        let anonymous = Grant::new(None, Credential::None, all.anyone.iter().cloned());
        Self { anonymous: Arc::new(anonymous), ..all }
    }

    /// The grant of anonymous callers.
    pub fn anonymous(&self) -> Arc<Grant> {
        self.anonymous.clone()
    }

    /// The rights of a caller by the rules.
    pub fn of<'a>(&'a self, user: Option<&User>) -> impl Iterator<Item = Arc<Rights>> + 'a {
        let own = user.and_then(|user| self.by_name.get(user.as_str()));
        let of_users = user.is_some().then_some(&self.user);
        [Some(&self.anyone), of_users, own].into_iter().flatten().flatten().cloned()
    }
}
