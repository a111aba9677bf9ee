//! The grant of a caller: its identity, its rights from all sources, and their end.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    access::{AskedCaller, PatternList, Rights, RightsError, RightsText, parse_user},
    error::AccessError,
    topic::Topic,
    user::User,
};

/// Two clocks read one after the other show the same moment up to this difference.
const SAME_MOMENT: Duration = Duration::from_millis(100);

/// The proof behind a grant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// An anonymous caller.
    #[default]
    None,
    /// A signed token, with its `jti` and `iat`.
    Token { id: Option<Box<str>>, issued_at_s: Option<u64> },
    /// The word of the application, at this time in milliseconds since 1970.
    Application { at_ms: u64 },
}

/// The rights of one caller. Templates with `{user}` are resolved.
#[derive(Debug, Clone, Default)]
pub struct Grant {
    user: Option<User>,
    credential: Credential,
    /// Whether everything is granted: to the application itself, or without access control.
    is_everything: bool,
    /// The sources of plain patterns, shared with other grants.
    shared: SmallVec<[Arc<Rights>; 2]>,
    /// The resolved templates of all sources.
    own: Option<Box<Rights>>,
    /// Milliseconds since 1970.
    expires_at_ms: Option<u64>,
    ends_at: Option<Instant>,
    /// The caller, if the application is asked again at the end.
    asked: Option<Arc<AskedCaller>>,
    /// Whether its owner has more rights.
    is_narrowed: bool,
}

/// A grant on its way to another instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantText {
    user: Option<String>,
    credential: Credential,
    is_everything: bool,
    rights: RightsText,
    expires_at_ms: Option<u64>,
    #[serde(default)]
    asked: Option<AskedCaller>,
    #[serde(default)]
    is_narrowed: bool,
}

impl Grant {
    /// The grant of a caller from all sources.
    pub fn new(
        user: Option<User>,
        credential: Credential,
        sources: impl IntoIterator<Item = Arc<Rights>>,
    ) -> Self {
        let shared: SmallVec<[Arc<Rights>; 2]> =
            sources.into_iter().filter(|source| !source.is_empty()).collect();
        let own = resolved(&shared, user.as_ref());
        Self { user, credential, shared, own, ..Self::default() }
    }

    /// The grant of everything: of the application itself, and of all callers without access
    /// control.
    pub fn everything() -> Arc<Self> {
        static ALL: LazyLock<Arc<Grant>> =
            LazyLock::new(|| Arc::new(Grant { is_everything: true, ..Grant::default() }));
        ALL.clone()
    }

    /// Everything, for this user's streams: the application has decided.
    pub fn of_application(user: Option<User>, at_ms: u64) -> Self {
        let credential = Credential::Application { at_ms };
        Self { user, credential, is_everything: true, ..Self::default() }
    }

    /// Everything without access control, for this user's streams.
    pub fn open(user: Option<User>) -> Self {
        Self { user, is_everything: true, ..Self::default() }
    }

    /// Ends the grant at `expires_at_ms`. The clocks show `now` and `now_ms` at the same moment.
    #[must_use]
    pub fn until(mut self, expires_at_ms: u64, now: Instant, now_ms: u64) -> Self {
        let left = Duration::from_millis(expires_at_ms.saturating_sub(now_ms));
        self.expires_at_ms = Some(expires_at_ms);
        // A time beyond the clock's range never comes.
        self.ends_at = now.checked_add(left);
        self
    }

    /// Asks the application about this caller again, at the end of the grant.
    #[must_use]
    pub fn asked_about(mut self, caller: Arc<AskedCaller>) -> Self {
        self.asked = Some(caller);
        self
    }

    /// The caller, if the application is asked again at the end of the grant.
    pub fn asked(&self) -> Option<&Arc<AskedCaller>> {
        self.asked.as_ref()
    }

    /// This later grant of the owner of `earlier`, narrowed as that one was.
    ///
    /// # Errors
    /// The names of `earlier` are invalid.
    pub fn narrowed_like(self, earlier: &Self) -> Result<Self, RightsError> {
        if !earlier.is_narrowed {
            return Ok(self);
        }
        let mut names = earlier.plain(|rights| &rights.subscribe);
        names.retain(|name| self.may_subscribe(name));
        self.narrowed(names)
    }

    /// Whether both are the grant of one token, from the same sources.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same_source = |(a, b): (&Arc<Rights>, &Arc<Rights>)| Arc::ptr_eq(a, b);
        let apart = |a: Instant, b: Instant| a.max(b) - a.min(b);
        matches!(self.credential, Credential::Token { .. })
            && self.credential == other.credential
            && self.user == other.user
            && self.expires_at_ms == other.expires_at_ms
            // A clock set meanwhile moves the end.
            && self.ends_at.zip(other.ends_at).is_some_and(|(a, b)| apart(a, b) < SAME_MOMENT)
            && self.shared.len() == other.shared.len()
            && self.shared.iter().zip(&other.shared).all(is_same_source)
            && !self.is_narrowed
            && !other.is_narrowed
    }

    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Whether the caller has shown no credential.
    pub fn is_anonymous(&self) -> bool {
        self.credential == Credential::None && !self.is_everything
    }

    /// The refusal of these names: an anonymous caller needs a token first.
    pub fn refusal(&self, names: Vec<String>) -> AccessError {
        match self.is_anonymous() {
            true => AccessError::no_token(),
            false => AccessError::Forbidden { names },
        }
    }

    /// Passes on, or refuses the caller without naming topics.
    ///
    /// # Errors
    /// `is_granted` is false.
    pub fn require(&self, is_granted: bool) -> Result<(), AccessError> {
        if is_granted { Ok(()) } else { Err(self.refusal(Vec::new())) }
    }

    /// Checks the names of a subscription, spelt as in the request.
    ///
    /// # Errors
    /// Some of the names are not granted.
    pub fn check_subscribe<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), AccessError> {
        let refused = |name: &&str| !self.may_subscribe(name);
        let refused: Vec<String> = names.into_iter().filter(refused).map(str::to_owned).collect();
        if refused.is_empty() { Ok(()) } else { Err(self.refusal(refused)) }
    }

    /// Checks the topics of a publish.
    ///
    /// # Errors
    /// Some of the topics are not granted.
    pub fn check_publish<'a>(
        &self,
        topics: impl IntoIterator<Item = &'a Topic>,
    ) -> Result<(), AccessError> {
        let refused = topics.into_iter().filter(|topic| !self.may_publish(topic));
        let refused: Vec<String> = refused.map(|topic| topic.as_str().to_owned()).collect();
        if refused.is_empty() { Ok(()) } else { Err(self.refusal(refused)) }
    }

    /// Whether everything is granted.
    pub fn is_everything(&self) -> bool {
        self.is_everything
    }

    /// The end of the grant, in milliseconds since 1970.
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.expires_at_ms
    }

    /// The end of the grant.
    pub fn ends_at(&self) -> Option<Instant> {
        self.ends_at
    }

    pub fn has_ended(&self, now: Instant) -> bool {
        self.ends_at.is_some_and(|end| end <= now)
    }

    /// Whether the caller may receive this topic, or every topic of this pattern.
    pub fn may_subscribe(&self, name: &str) -> bool {
        self.allows(name, |rights| &rights.subscribe)
    }

    /// Whether the caller may add this topic or pattern to an open stream. The application named
    /// the topics of its own streams: nobody else adds to them.
    pub fn may_add(&self, name: &str) -> bool {
        let is_application_s =
            self.is_everything && matches!(self.credential, Credential::Application { .. });
        !is_application_s && self.may_subscribe(name)
    }

    /// Whether the caller may publish to a topic. The topics of users need the right to manage
    /// them.
    pub fn may_publish(&self, topic: &Topic) -> bool {
        let name = topic.as_str();
        match name.starts_with("notifications:") || name.starts_with("posts:") {
            true => self.may_manage(name),
            false => self.allows(name, |rights| &rights.publish),
        }
    }

    /// Whether the caller may manage this topic, or every topic of this pattern.
    pub fn may_manage(&self, name: &str) -> bool {
        self.allows(name, |rights| &rights.manage)
    }

    /// Whether the caller is this user.
    pub fn is_of(&self, user: &User) -> bool {
        self.is_everything || self.user.as_ref() == Some(user)
    }

    /// Whether the caller is this user, or may manage the user's notifications.
    pub fn may_act_as(&self, user: &User) -> bool {
        self.is_of(user) || self.may_manage(user.notifications().as_str())
    }

    fn allows(&self, name: &str, list: impl Fn(&Rights) -> &PatternList) -> bool {
        let own = self.own.iter().map(AsRef::as_ref);
        let mut all = self.shared.iter().map(AsRef::as_ref).chain(own);
        self.is_everything || all.any(|rights| list(rights).contains(name))
    }

    /// The plain patterns of all sources, sorted.
    fn plain(&self, list: impl Fn(&Rights) -> &PatternList) -> Vec<String> {
        let own = self.own.iter().map(AsRef::as_ref);
        let all = self.shared.iter().map(AsRef::as_ref).chain(own);
        let mut plain: Vec<String> =
            all.flat_map(|rights| list(rights).plain()).map(str::to_owned).collect();
        plain.sort_unstable();
        plain
    }

    /// The grant to subscribe to these names only. The names must be granted.
    ///
    /// # Errors
    /// Too many names, or an invalid one.
    pub fn narrowed(&self, subscribe: Vec<String>) -> Result<Self, RightsError> {
        let text = RightsText { subscribe, ..RightsText::default() };
        let rights = Arc::new(Rights::try_from(text)?);
        let mut narrowed = Self::new(self.user.clone(), self.credential.clone(), [rights]);
        (narrowed.expires_at_ms, narrowed.ends_at) = (self.expires_at_ms, self.ends_at);
        (narrowed.asked, narrowed.is_narrowed) = (self.asked.clone(), true);
        Ok(narrowed)
    }

    /// The grant for another instance.
    pub fn to_text(&self) -> GrantText {
        let rights = RightsText {
            subscribe: self.plain(|rights| &rights.subscribe),
            publish: self.plain(|rights| &rights.publish),
            manage: self.plain(|rights| &rights.manage),
        };
        GrantText {
            user: self.user.as_ref().map(|user| user.as_str().to_owned()),
            credential: self.credential.clone(),
            is_everything: self.is_everything,
            rights,
            expires_at_ms: self.expires_at_ms,
            asked: self.asked.as_deref().cloned(),
            is_narrowed: self.is_narrowed,
        }
    }

    /// The grant of another instance. The clocks show `now` and `now_ms` at the same moment.
    ///
    /// # Errors
    /// The rights are invalid, or of a later version.
    pub fn from_text(text: GrantText, now: Instant, now_ms: u64) -> Result<Self, RightsError> {
        let user = text.user.as_deref().and_then(|user| parse_user(user).ok());
        let rights = Arc::new(text.rights.try_into()?);
        let mut grant = Self::new(user, text.credential, [rights]);
        (grant.is_everything, grant.is_narrowed) = (text.is_everything, text.is_narrowed);
        grant.asked = text.asked.map(Arc::new);
        Ok(match text.expires_at_ms {
            Some(end) => grant.until(end, now, now_ms),
            None => grant,
        })
    }
}

/// The templates of all sources with the user's name.
fn resolved(sources: &[Arc<Rights>], user: Option<&User>) -> Option<Box<Rights>> {
    let list = |list: fn(&Rights) -> &PatternList| {
        let own: Vec<String> = sources.iter().flat_map(|source| list(source).own(user)).collect();
        // A pattern too long with the user's name is one of no topic.
        let own: Vec<String> =
            own.into_iter().filter(|one| PatternList::parse(&[one]).is_ok()).collect();
        PatternList::parse(&own).expect("each is checked").resolved(None)
    };
    let own = Rights {
        subscribe: list(|rights| &rights.subscribe),
        publish: list(|rights| &rights.publish),
        manage: list(|rights| &rights.manage),
    };
    (!own.is_empty()).then(|| Box::new(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(json: &str) -> Arc<Rights> {
        Arc::new(serde_json::from_str(json).unwrap())
    }

    fn user(name: &str) -> Option<User> {
        Some(parse_user(name).unwrap())
    }

    fn token() -> Credential {
        Credential::Token { id: None, issued_at_s: Some(1) }
    }

    #[test]
    fn sources_add_up() {
        let anyone = rights(r#"{"subscribe":["ticker:**"]}"#);
        let own = rights(r#"{"subscribe":["notifications:{user}"],"publish":["chat:*"]}"#);
        let grant = Grant::new(user("42"), token(), [anyone, own]);
        assert!(grant.may_subscribe("ticker:a") && grant.may_subscribe("notifications:42"));
        assert!(!grant.may_subscribe("notifications:*") && !grant.may_subscribe("chat:a"));
        let topic = |name| Topic::parse(name).unwrap();
        assert!(grant.may_publish(&topic("chat:a")) && !grant.may_publish(&topic("chat:a:b")));
        assert!(!grant.may_manage("chat:a") && grant.to_operate().is_err());
    }

    #[test]
    fn the_topics_of_users_need_the_right_to_manage_them() {
        let publisher = rights(r#"{"publish":["**"],"manage":["notifications:7"]}"#);
        let grant = Grant::new(None, token(), [publisher]);
        let may = |name| grant.may_publish(&Topic::parse(name).unwrap());
        assert!(may("a") && may("notifications") && may("notifications:7"));
        assert!(!may("notifications:8") && !may("posts:7"));
        let seven = parse_user("7").unwrap();
        assert!(grant.may_act_as(&seven) && !grant.is_of(&seven));
    }

    #[test]
    fn without_a_user_templates_grant_nothing() {
        let own = rights(r#"{"subscribe":["notifications:{user}","{user}"]}"#);
        let grant = Grant::new(None, Credential::None, [own.clone()]);
        assert!(!grant.may_subscribe("notifications:{user}") && !grant.may_subscribe("{user}"));
        assert!(grant.is_anonymous());
        // A resolved pattern over 256 bytes is one of no topic.
        let long = Grant::new(
            user(&"x".repeat(240)),
            token(),
            [rights(r#"{"subscribe":["notifications:{user}:and:more","{user}"]}"#)],
        );
        assert!(long.may_subscribe(&"x".repeat(240)));
    }

    #[test]
    fn a_later_grant_is_narrowed_like_the_earlier_one() {
        let wide = |json| Grant::new(user("42"), token(), [rights(json)]);
        let all = wide(r#"{"subscribe":["a:*","b"],"publish":["c"]}"#);
        let earlier = all.narrowed(vec!["a:1".to_owned(), "b".to_owned()]).unwrap();
        let earlier = Grant::from_text(earlier.to_text(), Instant::now(), 0).unwrap();
        let later = wide(r#"{"subscribe":["a:*","d"]}"#).narrowed_like(&earlier).unwrap();
        assert!(later.may_subscribe("a:1") && !later.may_subscribe("a:2"));
        assert!(!later.may_subscribe("b") && !later.may_subscribe("d"));
        let wider = wide(r#"{"subscribe":["d"]}"#).narrowed_like(&all).unwrap();
        assert!(wider.may_subscribe("d"));
    }

    #[test]
    fn grants_of_one_token_are_the_same() {
        let (now, own) = (Instant::now(), rights(r#"{"subscribe":["a:{user}"]}"#));
        let of = |name| Grant::new(user(name), token(), [own.clone()]).until(60_000, now, 0);
        assert!(of("42").is_same(&of("42")) && !of("42").is_same(&of("43")));
        let later = Grant::new(user("42"), token(), [own.clone()]).until(60_001, now, 0);
        assert!(!of("42").is_same(&later));
        let other = Grant::new(user("42"), token(), [rights(r#"{"publish":["a"]}"#)]);
        assert!(!of("42").is_same(&other.until(60_000, now, 0)));
        let moved = Grant::new(user("42"), token(), [own.clone()]).until(60_000, now, 1000);
        assert!(!of("42").is_same(&moved), "the clock was set");
        assert!(!of("42").is_same(&of("42").narrowed(vec!["a:42".to_owned()]).unwrap()));
    }

    #[test]
    fn a_grant_travels_as_text() {
        let (now, now_ms) = (Instant::now(), 1_000_000);
        let sources = [rights(r#"{"subscribe":["a:{user}","b:*"],"manage":["**"]}"#)];
        let grant = Grant::new(user("42"), token(), sources).until(1_060_000, now, now_ms);
        let text = grant.to_text();
        let json = serde_json::to_string(&text).unwrap();
        let read = Grant::from_text(serde_json::from_str(&json).unwrap(), now, now_ms).unwrap();
        assert_eq!(read.to_text(), text);
        assert!(
            read.may_subscribe("a:42") && read.may_subscribe("b:*") && read.to_operate().is_ok()
        );
        assert_eq!(read.ends_at(), Some(now + Duration::from_secs(60)));
        assert!(!read.has_ended(now) && read.has_ended(now + Duration::from_secs(60)));
        assert_eq!(read.user(), grant.user());
    }
}
