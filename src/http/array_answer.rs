//! The answer to an array of events: the JSON of its answers, written as they come.

use fanfare_core::error::ErrorCode;
use serde_json::value::RawValue;

use super::{
    publish::PostAnswer,
    refusal::{Refusal, bad_json},
};

/// A JSON array, open at its end.
pub(crate) struct ArrayAnswer(Vec<u8>);

impl ArrayAnswer {
    pub fn new() -> Self {
        Self(vec![b'['])
    }

    /// Adds the answers of a group. `first` is the index of the group's first event.
    ///
    /// # Errors
    /// The first refused event, with the answers before it. If a later event of the group is
    /// accepted, the refusal is `unconfirmed`: after a plain refusal, the publisher could repeat
    /// that event without an id.
    pub fn add_all(
        &mut self,
        first: usize,
        results: Vec<Result<PostAnswer, Refusal>>,
    ) -> Result<(), Refusal> {
        let mut results = results.into_iter().enumerate();
        while let Some((index, result)) = results.next() {
            match result {
                Ok(answer) => self.add(&answer).map_err(bad_json)?,
                Err(mut refusal) => {
                    if results.any(|(_, later)| later.is_ok()) {
                        refusal.error.code = ErrorCode::Unconfirmed;
                    }
                    refusal.error.index = Some(first + index);
                    let published = std::mem::replace(self, Self::new()).into_json();
                    refusal.published = Some(RawValue::from_string(published).map_err(bad_json)?);
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, answer: &PostAnswer) -> serde_json::Result<()> {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        serde_json::to_writer(&mut self.0, answer)
    }

    /// The whole array.
    pub fn into_json(mut self) -> String {
        self.0.push(b']');
        String::from_utf8(self.0).expect("serde_json writes UTF-8")
    }
}

/// The refusal of an array with topics not granted. It names the topics of all events.
#[derive(Default)]
pub(crate) struct Forbidden(Option<Refusal>);

impl Forbidden {
    /// Keeps a refusal by access control; `None` for it.
    ///
    /// # Errors
    /// Any other refusal.
    pub fn take<T>(&mut self, checked: Result<T, Refusal>) -> Result<Option<T>, Refusal> {
        match (checked, &mut self.0) {
            (Ok(one), _) => Ok(Some(one)),
            (Err(refusal), None) if refusal.error.code == ErrorCode::Forbidden => {
                self.0 = Some(refusal);
                Ok(None)
            }
            (Err(refusal), Some(first)) if refusal.error.code == ErrorCode::Forbidden => {
                first.error.topics.extend(refusal.error.topics);
                Ok(None)
            }
            (Err(refusal), _) => Err(refusal),
        }
    }

    /// # Errors
    /// The refusal, if there is one.
    pub fn refuse(self) -> Result<(), Refusal> {
        let Some(mut refusal) = self.0 else { return Ok(()) };
        refusal.error.topics.sort_unstable();
        refusal.error.topics.dedup();
        Err(refusal)
    }
}
