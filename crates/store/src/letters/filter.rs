//! Which letters are meant.

use sea_orm::Value;
use uuid::Uuid;
use warren_clock::UnixMillis;

use super::LetterState;
use crate::sql;

/// Letters for which all of it is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterFilter {
    /// In one of these states; empty: in any.
    pub states: Vec<LetterState>,
    /// Only of this class.
    pub class: Option<String>,
    /// Only with this fingerprint.
    pub fingerprint: Option<String>,
    /// Only those that died on this queue.
    pub queue: Option<String>,
    /// Only of this job.
    pub job: Option<Uuid>,
    /// Only of this task.
    pub task: Option<Uuid>,
    /// Only those first seen before.
    pub before: Option<UnixMillis>,
    /// Only those first seen then or later.
    pub since: Option<UnixMillis>,
}

impl Default for LetterFilter {
    /// Those that are in `warren.dead`, or on their way out of it to be replayed.
    fn default() -> Self {
        Self {
            states: vec![LetterState::Dead, LetterState::Parked, LetterState::Replaying],
            class: None,
            fingerprint: None,
            queue: None,
            job: None,
            task: None,
            before: None,
            since: None,
        }
    }
}

impl LetterFilter {
    /// A condition on `dead_letter`, and its parameters from `$1` on.
    pub(super) fn rule(&self) -> (String, Vec<Value>) {
        let mut values: Vec<Value> = Vec::new();
        // The words are this file's own, so they need not be parameters.
        let states = if self.states.is_empty() { &LetterState::ALL[..] } else { &self.states };
        let words: Vec<_> = states.iter().map(|state| format!("'{}'", state.as_str())).collect();
        let mut rules = vec![format!("state IN ({})", words.join(", "))];
        let mut add = |rule: &str, value: Option<Value>| {
            let Some(value) = value else { return };
            values.push(value);
            rules.push(format!("{rule} ${}", values.len()));
        };
        let text = |value: &Option<String>| value.as_ref().map(|value| sql::text(value).into());
        add("class =", text(&self.class));
        add("fingerprint =", text(&self.fingerprint));
        add("queue =", text(&self.queue));
        add("job_id =", self.job.map(Value::from));
        add("task_id =", self.task.map(Value::from));
        add("first_seen_ms <", self.before.map(|at| at.0.into()));
        add("first_seen_ms >=", self.since.map(|at| at.0.into()));
        (rules.join(" AND "), values)
    }
}
