//! Which letters are meant.

use std::time::Duration;

use clap::{Args, ValueEnum};
use warren_clock::Clock;
use warren_messages::{
    from_millis,
    wire::{DeadLetterFilter, DeadLetterState},
};

/// Letters for which all of it is true.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Filter {
    /// Only of this class, e.g. Malformed or WorkerLost.
    #[arg(long)]
    class: Option<String>,
    /// Only with this fingerprint: the same trouble.
    #[arg(long, visible_alias = "group")]
    fingerprint: Option<String>,
    /// Only of this job.
    #[arg(long)]
    job: Option<String>,
    /// Only those that died on this queue, e.g. warren.task.embed.
    #[arg(long)]
    queue: Option<String>,
    /// Only in this state.
    #[arg(long)]
    state: Option<State>,
    /// Only those that died longer ago, e.g. 90s, 20m, 2h or 3d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    older: Option<Duration>,
    /// Only those that died since.
    #[arg(long, value_name = "AGE", value_parser = age)]
    newer: Option<Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Dead,
    Parked,
    Replaying,
    Replayed,
    Void,
    Discarded,
    Purged,
}

impl Filter {
    /// Nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.wire() == DeadLetterFilter::default()
    }

    /// As the server understands it. Ages count from now.
    pub(super) fn wire(&self) -> DeadLetterFilter {
        let now = Clock::system().now();
        let ago = |age: Duration| from_millis(now.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
        let state = match self.state {
            None => DeadLetterState::Unspecified,
            Some(State::Dead) => DeadLetterState::Dead,
            Some(State::Parked) => DeadLetterState::Parked,
            Some(State::Replaying) => DeadLetterState::Replaying,
            Some(State::Replayed) => DeadLetterState::Replayed,
            Some(State::Void) => DeadLetterState::Void,
            Some(State::Discarded) => DeadLetterState::Discarded,
            Some(State::Purged) => DeadLetterState::Purged,
        };
        DeadLetterFilter {
            state: state.into(),
            class: self.class.clone().unwrap_or_default(),
            fingerprint: self.fingerprint.clone().unwrap_or_default(),
            job: self.job.clone().unwrap_or_default(),
            queue: self.queue.clone().unwrap_or_default(),
            before: self.older.map(ago),
            since: self.newer.map(ago),
        }
    }
}

/// `90s`, `20m`, `2h` or `3d`.
fn age(text: &str) -> Result<Duration, String> {
    let said = || format!("`{text}` is no age; write it as 90s, 20m, 2h or 3d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(said)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(said()),
    };
    let number: u32 = number.parse().map_err(|_| said())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit() {
        assert_eq!(age("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(
            [age("20m"), age("2h"), age("3d")].map(|age| age.map_or(0, |age| age.as_secs())),
            [1_200, 7_200, 259_200]
        );
        for wrong in ["", "5", "m", "-1m", "1,5h", "5µ"] {
            assert!(age(wrong).is_err_and(|why| why.contains("20m")), "{wrong}");
        }
    }
}
