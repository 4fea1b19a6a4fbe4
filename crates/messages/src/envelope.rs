//! How a message looks on the wire: its type's full name, a JSON body, and a short list of headers.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;
use warren_fault::{Cause, Code};
use warren_jobs::TaskKind;

use crate::{
    ids::{JobId, TaskId},
    replay, wire, wrong_time,
};

/// The content type of every body.
pub const CONTENT_TYPE: &str = "application/json";

/// Names of the headers that travel with a message; all others are dropped when it is published again.
pub mod headers {
    /// The task, for operators and filters.
    pub const TASK: &str = "x-warren-task";
    /// The job.
    pub const JOB: &str = "x-warren-job";
    /// Release number of the task.
    pub const DISPATCH: &str = "x-warren-dispatch";
    /// Attempts spent so far.
    pub const ATTEMPT: &str = "x-warren-attempt";
    /// Stays on the retry ladder since then that spent none.
    pub const WAITS: &str = "x-warren-waits";
    /// Unix milliseconds of the first publish.
    pub const FIRST_TS: &str = "x-warren-first-ts";
    /// Error code of the last failure.
    pub const ERR_CLASS: &str = "x-warren-err-class";
    /// The last cause, in words; at most 2000 characters.
    pub const ERR_CAUSE: &str = "x-warren-err-cause";
    /// Fingerprint of the last failure.
    pub const ERR_FP: &str = "x-warren-err-fp";
    /// Id given to a dead letter when it was made.
    pub const LETTER: &str = "x-warren-letter";
    /// Queue that the message was on when it died.
    pub const SOURCE: &str = "x-warren-source";
    /// Letter that this message replays.
    pub const REPLAY_OF: &str = "x-warren-replay-of";
    /// How often it was replayed.
    pub const REPLAY_GEN: &str = "x-warren-replay-gen";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";

    /// What survives a publish.
    pub const KEPT: [&str; 14] = [
        TASK,
        JOB,
        DISPATCH,
        ATTEMPT,
        WAITS,
        FIRST_TS,
        ERR_CLASS,
        ERR_CAUSE,
        ERR_FP,
        LETTER,
        SOURCE,
        REPLAY_OF,
        REPLAY_GEN,
        TRACEPARENT,
    ];
}

/// A message type: its full name in the `type` property.
pub trait Message: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// E.g. `warren.v1.Task`.
    const TYPE: &'static str;

    /// Headers that describe the content, for operators and filters.
    fn headers(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Says which required field is missing or out of range.
    ///
    /// # Errors
    /// The name of the field and what is wrong with it.
    fn check(&self) -> Result<(), String>;
}

/// A message ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Identity for deduplication; the same when a publish is repeated.
    pub message_id: Uuid,
    /// Full name of the message type.
    pub kind: String,
    /// JSON.
    pub body: Vec<u8>,
    /// Whitelisted headers only.
    pub headers: BTreeMap<String, String>,
}

impl Envelope {
    /// Wraps `message`.
    pub fn new<M: Message>(message_id: Uuid, message: &M) -> Self {
        let body = serde_json::to_vec(message).expect("generated messages always serialise");
        Self { message_id, kind: M::TYPE.to_owned(), body, headers: message.headers() }
    }
}

/// Decodes and checks a body.
///
/// # Errors
/// A [`Cause`] with code `Malformed` that says where the body is wrong.
pub fn decode<M: Message>(kind: Option<&str>, body: &[u8]) -> Result<M, Cause> {
    let malformed = |message: String| Cause::new(Code::Malformed, message);
    if let Some(kind) = kind.filter(|kind| !kind.is_empty() && *kind != M::TYPE) {
        return Err(malformed(format!("type is `{kind}`, this queue carries `{}`", M::TYPE)));
    }
    let message: M =
        serde_json::from_slice(body).map_err(|error| malformed(format!("body is not a {}: {error}", M::TYPE)))?;
    message.check().map_err(|what| malformed(format!("{}: {what}", M::TYPE)))?;
    Ok(message)
}

fn valid<T: std::str::FromStr>(field: &str, text: &str) -> Result<(), String>
where
    T::Err: std::fmt::Display,
{
    text.parse::<T>().map(drop).map_err(|error| format!("`{field}`: {error}"))
}

impl Message for wire::Task {
    const TYPE: &'static str = "warren.v1.Task";

    fn headers(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (headers::TASK.to_owned(), self.id.clone()),
            (headers::JOB.to_owned(), self.job.clone()),
            (headers::DISPATCH.to_owned(), self.dispatch.to_string()),
        ])
    }

    fn check(&self) -> Result<(), String> {
        valid::<TaskId>("id", &self.id)?;
        valid::<JobId>("job", &self.job)?;
        if self.dispatch == 0 {
            return Err("`dispatch`: must be at least 1".to_owned());
        }
        right("deadline", wrong_time(self.deadline.as_ref()))?;
        match &self.work {
            None => Err("one of `prepare`, `transcribe`, `embed` is required".to_owned()),
            Some(wire::task::Work::Prepare(work)) if work.media_key.is_empty() => {
                Err("`prepare.mediaKey`: is required".to_owned())
            }
            Some(wire::task::Work::Transcribe(work)) => check_windows(work),
            Some(wire::task::Work::Embed(work)) if work.input.is_none() => {
                Err("`embed`: one of `texts`, `lines` is required".to_owned())
            }
            Some(_) => Ok(()),
        }
    }
}

/// Most windows in one transcribe task.
pub const MAX_WINDOWS: usize = 4;
/// Most samples in one window: 30 s at 16 kHz.
pub const MAX_WINDOW_SAMPLES: i64 = 30 * 16_000;

fn check_windows(work: &wire::TranscribeTask) -> Result<(), String> {
    if work.pcm_key.is_empty() {
        return Err("`transcribe.pcmKey`: is required".to_owned());
    }
    if work.windows.is_empty() || work.windows.len() > MAX_WINDOWS {
        return Err(format!("`transcribe.windows`: must be 1 to {MAX_WINDOWS}, is {}", work.windows.len()));
    }
    let mut end = work.part_first_sample;
    for (index, window) in work.windows.iter().enumerate() {
        if window.first_sample < end || !(1..=MAX_WINDOW_SAMPLES).contains(&window.samples) {
            return Err(format!(
                "`transcribe.windows[{index}]`: must follow the one before and hold 1 to {MAX_WINDOW_SAMPLES} samples"
            ));
        }
        end = window
            .first_sample
            .checked_add(window.samples)
            .ok_or_else(|| format!("`transcribe.windows[{index}]`: out of range"))?;
    }
    Ok(())
}

impl wire::Task {
    /// Which queue the task belongs on; `None` without work.
    pub fn kind(&self) -> Option<TaskKind> {
        self.work.as_ref().map(|work| match work {
            wire::task::Work::Prepare(_) => TaskKind::Prepare,
            wire::task::Work::Transcribe(_) => TaskKind::Transcribe,
            wire::task::Work::Embed(_) => TaskKind::Embed,
        })
    }
}

impl Message for wire::TaskReport {
    const TYPE: &'static str = "warren.v1.TaskReport";

    fn headers(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (headers::TASK.to_owned(), self.task.clone()),
            (headers::JOB.to_owned(), self.job.clone()),
            (headers::DISPATCH.to_owned(), self.dispatch.to_string()),
        ])
    }

    fn check(&self) -> Result<(), String> {
        valid::<TaskId>("task", &self.task)?;
        valid::<JobId>("job", &self.job)?;
        finite("busySeconds", self.busy_seconds)?;
        finite("inferenceSeconds", self.inference_seconds)?;
        match &self.report {
            None => Err("`report`: one of its fields is required".to_owned()),
            Some(wire::task_report::Report::PreparedAll(all)) => {
                finite("preparedAll.damagedAt", all.damaged_at.unwrap_or(0.0))
            }
            Some(wire::task_report::Report::Retry(retry)) => right("retry.until", wrong_time(retry.until.as_ref())),
            Some(wire::task_report::Report::Transcribed(transcribed)) => check_segments(&transcribed.segments),
            Some(_) => Ok(()),
        }
    }
}

fn check_segments(segments: &[wire::TranscribedSegment]) -> Result<(), String> {
    let numbers = |segment: &wire::TranscribedSegment| {
        let wire::TranscribedSegment { start, end, avg_logprob, no_speech_prob, .. } = *segment;
        [("start", start), ("end", end), ("avgLogprob", avg_logprob.into()), ("noSpeechProb", no_speech_prob.into())]
    };
    for (index, segment) in segments.iter().enumerate() {
        for (field, number) in numbers(segment) {
            finite(&format!("transcribed.segments[{index}].{field}"), number)?;
        }
    }
    Ok(())
}

/// JSON has no other numbers: what is read as text, such as `"NaN"`, could not be sent on.
fn finite(field: &str, number: f64) -> Result<(), String> {
    if number.is_finite() { Ok(()) } else { Err(format!("`{field}`: must be a finite number, is {number}")) }
}

impl Message for wire::Command {
    const TYPE: &'static str = "warren.v1.Command";

    fn headers(&self) -> BTreeMap<String, String> {
        self.job().map(|job| (headers::JOB.to_owned(), job.to_owned())).into_iter().collect()
    }

    fn check(&self) -> Result<(), String> {
        match &self.command {
            None => {
                Err("one of `submitted`, `cancel`, `replay`, `discard`, `putBack`, `delete`, `operate` is required"
                    .to_owned())
            }
            Some(wire::command::Command::Submitted(command)) => valid::<JobId>("submitted.job", &command.job),
            Some(wire::command::Command::Cancel(command)) => valid::<JobId>("cancel.job", &command.job),
            Some(wire::command::Command::Delete(command)) => valid::<JobId>("delete.job", &command.job),
            Some(wire::command::Command::Replay(command))
                if command.letters.is_empty() && command.edited_body.is_empty() =>
            {
                Err("`replay.letters`: is empty".to_owned())
            }
            Some(wire::command::Command::Replay(command)) => right("replay.rate", replay::wrong_rate(command.rate)),
            Some(wire::command::Command::Discard(command)) if command.letters.is_empty() => {
                Err("`discard.letters`: is empty".to_owned())
            }
            Some(wire::command::Command::PutBack(command)) => match &command.letter {
                Some(letter) => check_letter(letter),
                None => Err("`putBack.letter`: is required".to_owned()),
            },
            Some(wire::command::Command::Discard(_)) => Ok(()),
            Some(wire::command::Command::Operate(command)) => command.check(),
        }
    }
}

fn check_letter(letter: &wire::DeadLetter) -> Result<(), String> {
    valid::<Uuid>("putBack.letter.id", &letter.id)?;
    right("putBack.letter.firstSeen", wrong_time(letter.first_seen.as_ref()))?;
    right("putBack.letter.lastSeen", wrong_time(letter.last_seen.as_ref()))?;
    letter.history.iter().try_for_each(|event| right("putBack.letter.history.at", wrong_time(event.at.as_ref())))
}

fn right(field: &str, wrong: Option<impl std::fmt::Display>) -> Result<(), String> {
    match wrong {
        None => Ok(()),
        Some(problem) => Err(format!("`{field}`: {problem}")),
    }
}

impl wire::TaskReport {
    /// After it, nothing more comes of its task.
    pub const fn ends_its_task(&self) -> bool {
        use crate::wire::task_report::Report;
        matches!(
            &self.report,
            Some(Report::PreparedAll(_) | Report::Transcribed(_) | Report::Embedded(_) | Report::Failed(_))
        )
    }
}

impl wire::Command {
    /// The job that it is about; `None` when it is about dead letters, or about more than one job.
    pub fn job(&self) -> Option<&str> {
        match &self.command {
            Some(wire::command::Command::Submitted(command)) => Some(&command.job),
            Some(wire::command::Command::Cancel(command)) => Some(&command.job),
            Some(wire::command::Command::Delete(command)) => Some(&command.job),
            Some(
                wire::command::Command::Replay(_)
                | wire::command::Command::Discard(_)
                | wire::command::Command::PutBack(_)
                | wire::command::Command::Operate(_),
            )
            | None => None,
        }
    }
}

impl wire::Operate {
    fn check(&self) -> Result<(), String> {
        use wire::operate::Deed;
        if self.request.is_empty() {
            return Err("`operate.request`: is empty".to_owned());
        }
        let kind = |field: &str, kind: &str| {
            kind.parse::<TaskKind>().map(|_| ()).map_err(|error| format!("`operate.{field}.kind`: {error}"))
        };
        match &self.deed {
            None => Err("`operate`: one of `pause`, `purge`, `recover`, `fail_stale` is required".to_owned()),
            Some(Deed::Pause(pause)) => kind("pause", &pause.kind),
            Some(Deed::Purge(purge)) => kind("purge", &purge.kind),
            Some(Deed::Recover(recover)) if recover.job.is_empty() => Ok(()),
            Some(Deed::Recover(recover)) => valid::<JobId>("operate.recover.job", &recover.job),
            Some(Deed::FailStale(_)) => Ok(()),
        }
    }
}

impl Message for wire::Notice {
    const TYPE: &'static str = "warren.v1.Notice";

    fn check(&self) -> Result<(), String> {
        valid::<JobId>("job", &self.job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> wire::Task {
        wire::Task {
            id: TaskId(Uuid::from_u128(1)).to_string(),
            job: JobId(Uuid::from_u128(2)).to_string(),
            dispatch: 1,
            deadline: None,
            work: Some(wire::task::Work::Prepare(wire::PrepareTask {
                media_key: "media/1".to_owned(),
                media_name: "talk.mp3".to_owned(),
                size_bytes: 9,
                ..Default::default()
            })),
        }
    }

    #[test]
    fn a_task_survives_the_round_trip_and_reads_well() {
        let envelope = Envelope::new(Uuid::from_u128(3), &task());
        let text = std::str::from_utf8(&envelope.body).expect("JSON is UTF-8");
        assert!(text.contains(r#""prepare":{"mediaKey":"media/1""#), "{text}");
        assert_eq!(decode::<wire::Task>(Some("warren.v1.Task"), &envelope.body), Ok(task()));
        assert_eq!(envelope.headers[headers::DISPATCH], "1");
    }

    #[test]
    fn commands_name_their_job_beside_the_body() {
        use wire::command::Command as What;
        let job = JobId(Uuid::from_u128(2)).to_string();
        let headers =
            |what| wire::Command { actor: "ada".to_owned(), command: Some(what) }.headers().remove(headers::JOB);
        assert_eq!(headers(What::Submitted(wire::JobSubmitted { job: job.clone() })), Some(job.clone()));
        assert_eq!(headers(What::Cancel(wire::CancelJob { job: job.clone(), ..Default::default() })), Some(job));
        assert_eq!(headers(What::Replay(wire::ReplayLetters::default())), None);
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let mut value = serde_json::to_value(task()).expect("a value");
        value["colour"] = "green".into();
        let body = serde_json::to_vec(&value).expect("JSON");
        assert_eq!(decode::<wire::Task>(None, &body), Ok(task()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, word) in [
            ("not json", "not a warren.v1.Task"),
            ("{}", "`id`"),
            (r#"{"id":"task_00000000-0000-0000-0000-000000000001","job":"x"}"#, "`job`"),
        ] {
            let cause = decode::<wire::Task>(None, body.as_bytes()).expect_err("malformed");
            assert_eq!(cause.code, Code::Malformed);
            assert!(cause.message.contains(word), "{cause}");
        }
        let wrong = decode::<wire::Task>(Some("warren.v1.Command"), b"{}").expect_err("wrong type");
        assert!(wrong.message.contains("warren.v1.Command"), "{wrong}");
    }

    #[test]
    fn numbers_that_json_cannot_carry_are_refused() {
        let report = |report: &str| {
            let head = r#""task":"task_00000000-0000-0000-0000-000000000001""#;
            let body = format!(r#"{{{head},"job":"job_00000000-0000-0000-0000-000000000001",{report}}}"#);
            decode::<wire::TaskReport>(None, body.as_bytes()).expect_err("no number").message
        };
        let segment = report(r#""transcribed":{"segments":[{},{"end":"NaN"}]}"#);
        assert!(segment.contains("`transcribed.segments[1].end`"), "{segment}");
        let damage = report(r#""preparedAll":{"damagedAt":"Infinity"}"#);
        assert!(damage.contains("`preparedAll.damagedAt`"), "{damage}");
        let seconds = report(r#""preparedAll":{},"busySeconds":"-Infinity""#);
        assert!(seconds.contains("`busySeconds`"), "{seconds}");
        for rate in [r#""Infinity""#, r#""NaN""#, "-1", "1e300"] {
            let body = format!(r#"{{"replay":{{"letters":["a"],"rate":{rate}}}}}"#);
            let rate = decode::<wire::Command>(None, body.as_bytes()).expect_err("no rate").message;
            assert!(rate.contains("`replay.rate`"), "{rate}");
        }
    }

    #[test]
    fn windows_out_of_order_or_too_long_are_refused() {
        let mut message = task();
        let window = |first_sample, samples| wire::Window { first_sample, samples };
        for windows in [
            vec![],
            vec![window(0, MAX_WINDOW_SAMPLES + 1)],
            vec![window(0, 100), window(50, 100)],
            vec![window(i64::MAX, 5)],
            vec![window(0, 1); 5],
        ] {
            message.work = Some(wire::task::Work::Transcribe(wire::TranscribeTask {
                pcm_key: "pcm/1".to_owned(),
                windows,
                ..Default::default()
            }));
            assert!(message.check().is_err());
        }
    }
}
