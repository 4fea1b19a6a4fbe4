//! Which letters a request means.

use tonic::Status;
use warren_clock::UnixMillis;
use warren_messages::{
    ids::JobId,
    replay::MOST,
    to_millis,
    wire::{DeadLetterFilter, DeadLetterState},
};
use warren_store::{DeadLetter, LetterFilter, LetterState};

use crate::{
    parts::Parts,
    status::{invalid, not_found, of_store},
};

/// The letters of a request that changes something.
#[derive(Debug)]
pub(super) struct Selected {
    /// The oldest first, or in the order in which they were named.
    pub(super) letters: Vec<DeadLetter>,
    /// Letters that match as well.
    pub(super) left: u64,
}

/// How a request names its letters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection<'r> {
    pub(super) ids: &'r [String],
    pub(super) filter: Option<&'r DeadLetterFilter>,
    pub(super) all: bool,
}

impl Selection<'_> {
    /// The letters in one of `states`, unless the filter names another one; or those with these ids, in any state.
    ///
    /// # Errors
    /// The field that is wrong; `NOT_FOUND` for an id that is no letter's.
    pub(super) async fn letters(&self, parts: &Parts, states: &[LetterState]) -> Result<Selected, Status> {
        let narrow = self.filter.is_some_and(|filter| *filter != DeadLetterFilter::default());
        if [!self.ids.is_empty(), narrow, self.all].into_iter().filter(|way| *way).count() != 1 {
            return Err(invalid("ids", "select by exactly one of `ids`, `filter`, `all`"));
        }
        if self.ids.len() > MOST {
            return Err(invalid("ids", format!("at most {MOST} at once, there are {}", self.ids.len())));
        }
        let read = parts.store.read();
        if !self.ids.is_empty() {
            let mut letters = Vec::new();
            for id in self.ids {
                let letter = read.letter(id).await.map_err(|error| of_store(&error))?;
                letters.push(letter.ok_or_else(|| not_found("dead letter", id))?);
            }
            return Ok(Selected { letters, left: 0 });
        }
        let filter = filter(self.filter, states)?;
        let letters = read.oldest_letters(&filter, MOST as u64).await.map_err(|error| of_store(&error))?;
        let total = read.count_letters(&filter).await.map_err(|error| of_store(&error))?;
        Ok(Selected { left: total.saturating_sub(letters.len() as u64), letters })
    }
}

/// A filter as the store knows it; `states` unless it names one.
///
/// # Errors
/// The field that is wrong.
pub(super) fn filter(asked: Option<&DeadLetterFilter>, states: &[LetterState]) -> Result<LetterFilter, Status> {
    let asked = asked.cloned().unwrap_or_default();
    let state = DeadLetterState::try_from(asked.state)
        .map_err(|_| invalid("filter.state", format!("{} is no state of a letter", asked.state)))?;
    let states = match state {
        DeadLetterState::Unspecified => states.to_vec(),
        DeadLetterState::Dead => vec![LetterState::Dead],
        DeadLetterState::Parked => vec![LetterState::Parked],
        DeadLetterState::Replaying => vec![LetterState::Replaying],
        DeadLetterState::Replayed => vec![LetterState::Replayed],
        DeadLetterState::Void => vec![LetterState::Void],
        DeadLetterState::Discarded => vec![LetterState::Discarded],
        DeadLetterState::Purged => vec![LetterState::Purged],
    };
    let job = match asked.job.as_str() {
        "" => None,
        id => Some(id.parse::<JobId>().map_err(|error| invalid("filter.job", error.to_string()))?.0),
    };
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok(LetterFilter {
        states,
        class: given(asked.class),
        fingerprint: given(asked.fingerprint),
        queue: given(asked.queue),
        job,
        task: None,
        before: asked.before.as_ref().map(|at| UnixMillis(to_millis(at))),
        since: asked.since.as_ref().map(|at| UnixMillis(to_millis(at))),
    })
}
