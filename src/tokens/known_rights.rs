//! The rights of the latest tokens by their text. Most tokens of an application have the same ones, and
//! their streams share them.
//!
//! Bounds: [`MAX_COUNT`] rights of at most [`MAX_BYTES`] each; the oldest go.

use std::{collections::VecDeque, sync::Arc};

use fanfare_core::access::{Rights, RightsError, RightsText};
use parking_lot::Mutex;

/// Kinds of users: each has rights of its own.
const MAX_COUNT: usize = 16;

/// Longer rights are those of one user.
const MAX_BYTES: usize = 1024;

#[derive(Default)]
pub(super) struct KnownRights {
    latest: Mutex<VecDeque<(RightsText, Arc<Rights>)>>,
}

impl KnownRights {
    /// The rights of a text.
    ///
    /// # Errors
    /// The text is invalid.
    pub fn of(&self, text: RightsText) -> Result<Arc<Rights>, RightsError> {
        if bytes(&text) > MAX_BYTES {
            return Ok(Arc::new(text.try_into()?));
        }
        if let Some((_, known)) = self.latest.lock().iter().find(|(known, _)| *known == text) {
            return Ok(known.clone());
        }
        let rights = Arc::new(Rights::try_from(text.clone())?);
        let mut latest = self.latest.lock();
        latest.push_front((text, rights.clone()));
        latest.truncate(MAX_COUNT);
        Ok(rights)
    }
}

/// An estimate of the bytes of a text.
fn bytes(text: &RightsText) -> usize {
    let all = text.subscribe.iter().chain(&text.publish).chain(&text.manage);
    all.map(|pattern| size_of::<String>() + pattern.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pattern: &str) -> RightsText {
        RightsText { subscribe: vec![pattern.to_owned()], ..RightsText::default() }
    }

    #[test]
    fn equal_texts_share_their_rights() {
        let known = KnownRights::default();
        let of = |pattern: &str| known.of(text(pattern)).unwrap();
        let first = of("a:*");
        assert!(Arc::ptr_eq(&first, &of("a:*")) && !Arc::ptr_eq(&first, &of("b")));
        assert!(known.of(text("a::b")).is_err());
        let long = "x".repeat(200);
        let many = RightsText { subscribe: vec![long; 10], ..RightsText::default() };
        assert!(!Arc::ptr_eq(&known.of(many.clone()).unwrap(), &known.of(many).unwrap()));
        for number in 0..MAX_COUNT {
            of(&format!("c:{number}"));
        }
        assert!(!Arc::ptr_eq(&first, &of("a:*")));
        assert_eq!(known.latest.lock().len(), MAX_COUNT);
    }
}
