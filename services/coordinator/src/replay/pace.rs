//! Sending the letters of each replay: at its rate, the canaries first, and no further when too many come back.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warren_blob::Key;
use warren_clock::Reconnect;
use warren_fault::Fault;
use warren_jobs::{JobState, TaskState};
use warren_messages::{
    ids::JobId,
    replay::Content,
    wire::{Command, command::Command as What},
};
use warren_store::{DeadLetter, Replay, ReplayCounts, ReplayLetterState, StoreError};

use super::send::send;
use crate::{board::Changes, lead::Lead, planner};

/// Letters in one transaction.
const GROUP: u64 = 64;
/// Looked at without being woken.
const IDLE: Duration = Duration::from_secs(60);
/// Fewer letters say nothing about the others.
const JUDGED_FROM: u64 = 5;
/// Of the letters sent, this many in a hundred may come back.
const MOST_BACK_PERCENT: u64 = 20;
/// What has become of the canary must be known by then: nobody may be there to do its work.
const CANARY_KNOWN: Duration = Duration::from_secs(3_600);

/// Sends what is to be replayed, until `over`.
///
/// # Errors
/// When the term is lost.
pub(crate) async fn run(lead: &Lead, over: &CancellationToken) -> Result<(), StoreError> {
    let mut paces = BTreeMap::new();
    let mut trouble = Reconnect::new();
    loop {
        let next = match round(lead, &mut paces).await {
            Ok(next) => {
                trouble.reset();
                next
            }
            Err(Trouble::Store(StoreError::TermLost)) => return Err(StoreError::TermLost),
            Err(error) => {
                tracing::warn!(%error, "letters not replayed; again later");
                Next::At(Instant::now() + trouble.next_delay())
            }
        };
        let (at, fates) = match next {
            Next::Nothing => (Instant::now() + IDLE, false),
            Next::Fates => (Instant::now() + IDLE, true),
            Next::At(at) => (at, false),
        };
        tokio::select! {
            () = over.cancelled() => return Ok(()),
            () = lead.replays.notified() => {}
            () = lead.fates.notified(), if fates => {}
            () = tokio::time::sleep_until(at) => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Fault(Fault),
}

/// What a replay waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: it is over.
    Nothing,
    /// What becomes of letters that were sent.
    Fates,
    /// The next letter's time.
    At(Instant),
}

impl Next {
    /// What comes first of what two replays wait for.
    fn first(self, other: Self) -> Self {
        match (self, other) {
            (Self::At(one), Self::At(other)) => Self::At(one.min(other)),
            // A look at fates takes little: while something is sent, each letter's time brings one.
            (at @ Self::At(_), _) | (_, at @ Self::At(_)) => at,
            (Self::Fates, _) | (_, Self::Fates) => Self::Fates,
            (Self::Nothing, Self::Nothing) => Self::Nothing,
        }
    }
}

/// Lets each replay go on as far as it may now.
async fn round(lead: &Lead, paces: &mut BTreeMap<String, Pace>) -> Result<Next, Trouble> {
    let running = lead.parts.store.read().running_replays().await?;
    paces.retain(|id, _| running.iter().any(|replay| replay.asked.id == *id));
    let (mut next, mut trouble) = (Next::Nothing, None);
    for replay in &running {
        let pace = paces.entry(replay.asked.id.clone()).or_insert_with(Pace::new);
        match go_on(lead, replay, pace).await {
            Ok(waits_for) => next = next.first(waits_for),
            // What one needs may be away while the others go on.
            Err(Trouble::Fault(fault)) => trouble = Some(fault),
            Err(error) => return Err(error),
        }
    }
    trouble.map_or(Ok(next), |fault| Err(Trouble::Fault(fault)))
}

/// Sends the letters of one replay that may go now.
async fn go_on(lead: &Lead, replay: &Replay, pace: &mut Pace) -> Result<Next, Trouble> {
    let asked = &replay.asked;
    let canary = u64::from(asked.canary);
    loop {
        let counts = lead.parts.store.read().replay_counts(&asked.id).await?;
        if counts.waiting == 0 {
            end(lead, replay, counts, None).await?;
            return Ok(Next::Nothing);
        }
        if let Some(why) = too_many_back(&counts, canary) {
            end(lead, replay, counts, Some(&why)).await?;
            return Ok(Next::Nothing);
        }
        let mut most = GROUP;
        if counts.sent < canary {
            most = most.min(canary - counts.sent);
        } else if canary > 0 && counts.sent == canary {
            let since = *pace.watched.get_or_insert_with(Instant::now);
            // The time that the canary took is not made up for.
            *pace = Pace { watched: Some(since), ..Pace::new() };
            if !fates_are_known(lead, replay).await? {
                if since.elapsed() > CANARY_KNOWN {
                    let why = format!("what became of the first {canary} is not known after {CANARY_KNOWN:?}");
                    end(lead, replay, counts, Some(&why)).await?;
                    return Ok(Next::Nothing);
                }
                return Ok(Next::Fates);
            }
        }
        if asked.rate > 0.0 {
            most = most.min(pace.due(asked.rate, Instant::now()));
            if most == 0 {
                return Ok(Next::At(pace.next(asked.rate)));
            }
        }
        pace.sent += send_some(lead, replay, most).await?;
    }
}

async fn end(lead: &Lead, replay: &Replay, counts: ReplayCounts, stopped: Option<&str>) -> Result<(), StoreError> {
    let asked = &replay.asked;
    let tx = lead.begin().await?;
    if tx.end_replay(&asked.id, stopped).await?
        && let Some(why) = stopped
    {
        let detail = json!({ "why": why, "sent": counts.sent, "came_back": counts.back, "left": counts.waiting });
        tx.audit(&asked.actor, "replay stopped", &asked.id, &detail.to_string()).await?;
        tracing::warn!(replay = asked.id, why, "a replay is stopped");
    }
    tx.commit().await
}

/// Why the rest must not be sent.
fn too_many_back(counts: &ReplayCounts, canary: u64) -> Option<String> {
    let ReplayCounts { sent, back, .. } = *counts;
    let too_many = sent >= JUDGED_FROM && back * 100 > sent * MOST_BACK_PERCENT;
    let canary = canary > 0 && back > 0 && sent <= canary;
    (too_many || canary).then(|| format!("{back} of {sent} letters came back"))
}

/// Sends the next letters, at most so many, in one transaction. Returns how many were sent or refused.
async fn send_some(lead: &Lead, replay: &Replay, most: u64) -> Result<u64, Trouble> {
    let asked = &replay.asked;
    let read = lead.parts.store.read();
    let waiting = read.waiting_letters(&asked.id, most).await?;
    // Object storage is asked before the transaction, not inside it.
    let mut gone = BTreeMap::new();
    if !asked.forced {
        for (ordinal, id) in &waiting {
            if let Some(letter) = read.letter(id).await?
                && let Some(why) = input_gone(lead, replay, &letter).await.map_err(Trouble::Fault)?
            {
                gone.insert(*ordinal, why);
            }
        }
    }
    let tx = lead.begin().await?;
    let mut changes = Changes::default();
    for (ordinal, id) in &waiting {
        let outcome = match (tx.read().letter(id).await?, gone.remove(ordinal)) {
            (None, _) => Err("there is no such letter".to_owned()),
            (Some(letter), why) => match (letter.stays(asked.from_index), why) {
                (None, Some(why)) => Err(why),
                _ => send(&lead.parts, &tx, asked, &letter).await?,
            },
        };
        let refused = match outcome {
            Ok(more) => {
                changes.merge(more);
                None
            }
            Err(why) => {
                tracing::warn!(letter = id, actor = asked.actor, why, "a letter is not replayed");
                let detail = json!({ "request": asked.id, "reason": why }).to_string();
                tx.audit(&asked.actor, "replay refused", id, &detail).await?;
                Some(why)
            }
        };
        tx.replay_letter_done(&asked.id, *ordinal, refused.as_deref()).await?;
    }
    lead.commit(tx, &changes).await?;
    lead.leaving.notify_one();
    Ok(waiting.len() as u64)
}

/// What the letter's work needs and object storage no longer has.
async fn input_gone(lead: &Lead, replay: &Replay, letter: &DeadLetter) -> Result<Option<String>, Fault> {
    let Ok(content) = content(replay, letter) else { return Ok(None) };
    for key in content.inputs() {
        let Ok(key) = Key::parse(key) else { return Ok(Some(format!("`{key}` is no object of Warren"))) };
        if lead.parts.blobs.head(&key).await.map_err(|error| error.fault())?.is_none() {
            return Ok(Some(format!("its input {} is gone from object storage", key.as_str())));
        }
    }
    Ok(None)
}

fn content(replay: &Replay, letter: &DeadLetter) -> Result<Content, warren_fault::Cause> {
    let body = replay.asked.edited_body.as_deref().unwrap_or(&letter.letter.body);
    Content::read(&letter.letter.queue, body)
}

/// The letters sent so far have done their work, or failed in another way than before.
async fn fates_are_known(lead: &Lead, replay: &Replay) -> Result<bool, StoreError> {
    let read = lead.parts.store.read();
    for sent in read.replay_letters(&replay.asked.id).await? {
        if sent.state != ReplayLetterState::Sent {
            continue;
        }
        let Some(letter) = read.letter(&sent.letter).await? else { continue };
        let known = match content(replay, &letter) {
            Ok(Content::Command(command)) => is_planned(lead, &command).await?,
            Ok(content) => match content.task() {
                Some(task) => {
                    let state = read.task(task).await?.map(|task| task.state);
                    !matches!(state, Some(TaskState::Released | TaskState::Unreleased | TaskState::Dead))
                }
                None => true,
            },
            Err(_) => true,
        };
        if !known {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a command has had its effect, as far as one can see.
async fn is_planned(lead: &Lead, command: &Command) -> Result<bool, StoreError> {
    let Some(What::Submitted(submitted)) = &command.command else { return Ok(true) };
    let Ok(JobId(id)) = submitted.job.parse() else { return Ok(true) };
    let read = lead.parts.store.read();
    let Some(job) = read.job(id).await? else { return Ok(true) };
    Ok(matches!(job.state, JobState::Succeeded | JobState::Cancelled) || planner::is_planned(&read, &job).await?)
}

/// When letters may go.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    sent: u64,
    /// Since when the canary's fate is waited for.
    watched: Option<Instant>,
}

impl Pace {
    fn new() -> Self {
        Self { begun: Instant::now(), sent: 0, watched: None }
    }

    /// How many may go now. Who was held up does not make up for more than a second.
    fn due(&mut self, rate: f64, now: Instant) -> u64 {
        let due = |begun: Instant| (now.duration_since(begun).as_secs_f64() * rate).floor() as u64 + 1;
        let most = (rate.ceil() as u64).max(1);
        if due(self.begun).saturating_sub(self.sent) > most {
            self.begun = now.checked_sub(spent(self.sent, rate)).unwrap_or(now);
        }
        due(self.begun).saturating_sub(self.sent)
    }

    /// When the next one may go.
    fn next(&self, rate: f64) -> Instant {
        self.begun + spent(self.sent, rate)
    }
}

/// The time that so many letters take; a rate that is next to nothing is once a day.
fn spent(letters: u64, rate: f64) -> Duration {
    Duration::from_secs_f64((letters as f64 / rate).min(86_400.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_go_at_their_rate_and_without_bursts() {
        let mut pace = Pace::new();
        let begun = pace.begun;
        let mut at = |ms: u64| {
            let due = pace.due(5.0, begun + Duration::from_millis(ms));
            pace.sent += due;
            due
        };
        assert_eq!([at(0), at(100), at(200), at(390), at(400), at(1_000)], [1, 0, 1, 0, 1, 3]);
        // Held up for a minute.
        assert_eq!([at(61_000), at(61_100), at(61_200)], [1, 0, 1]);
        assert_eq!(pace.next(5.0), begun + Duration::from_millis(61_400));
        let mut slow = Pace::new();
        let now = slow.begun;
        assert_eq!((slow.due(1e-300, now), slow.next(1e-300)), (1, now));
    }

    #[test]
    fn a_replay_stops_when_its_canary_or_more_than_a_fifth_come_back() {
        let counts = |sent, back| ReplayCounts { waiting: 9, sent, back };
        assert!(too_many_back(&counts(1, 1), 1).is_some());
        assert!(too_many_back(&counts(1, 1), 0).is_none(), "one says nothing");
        assert!(too_many_back(&counts(1, 0), 1).is_none());
        assert!(too_many_back(&counts(10, 2), 1).is_none());
        assert_eq!(too_many_back(&counts(10, 3), 1).as_deref(), Some("3 of 10 letters came back"));
    }

    #[test]
    fn what_comes_first_is_waited_for() {
        let now = Instant::now();
        let later = Next::At(now + Duration::from_secs(1));
        assert_eq!(Next::At(now).first(later), Next::At(now));
        assert_eq!(Next::Fates.first(Next::Nothing), Next::Fates);
        assert_eq!(Next::Nothing.first(later), later);
    }
}
