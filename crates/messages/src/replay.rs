//! What a dead letter holds, and whether sending it again makes sense: decided here alone, for whoever asks and for the
//! leader, who does it.

use std::mem;

use uuid::Uuid;
use warren_fault::{Cause, Code};
use warren_jobs::{JobState, TaskKind, TaskState, state::Standing};

use crate::{
    envelope::decode,
    ids::{JobId, TaskId},
    routes::{self, COMMANDS, REPORTS},
    wire::{self, Command, Task, TaskReport},
};

/// The actor of a replay that somebody began by moving a letter in RabbitMQ's page.
pub const BY_HAND: &str = "by hand";
/// Most letters that one request replays or discards.
pub const MOST: usize = 1_000;

/// Letters a second that a rate may name; 0 is as fast as it goes.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=10_000.0;

/// What is wrong with a rate of so many letters a second; `None`: nothing.
pub fn wrong_rate(rate: f64) -> Option<String> {
    let (least, most) = (RATES.start(), RATES.end());
    let fits = rate == 0.0 || RATES.contains(&rate);
    (!fits).then(|| format!("must be {least} to {most} letters a second, is {rate}"))
}

const GONE_OUT: &str = "its task has gone out again since";

/// What the store calls a caller's request to replay letters.
pub fn request(caller: &str, request_id: &str) -> String {
    format!("{caller} {request_id}")
}

/// Why nobody needs a letter that did not end its task, by the state that the task is in.
pub const fn needless(task: TaskState) -> &'static str {
    match task {
        TaskState::Done => "its task is done",
        TaskState::Failed => "its task has failed by its input",
        TaskState::Cancelled => "its task is cancelled",
        TaskState::Unreleased => "its task waits to be released and will go out by itself",
        TaskState::Dead => "its task has another dead letter",
        TaskState::Released => GONE_OUT,
    }
}

/// A letter's body, as the consumers of its queue understand it.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Of `warren.task.<kind>`.
    Task(TaskKind, Task),
    /// Of `warren.result`.
    Report(TaskReport),
    /// Of `warren.job`.
    Command(Box<Command>),
}

impl Content {
    /// Reads what `queue` would be sent.
    ///
    /// # Errors
    /// [`Cause`] with code `Malformed`: no consumer would understand it, or there is no way back to that queue.
    pub fn read(queue: &str, body: &[u8]) -> Result<Self, Cause> {
        let unfit = |message: String| Cause::new(Code::Malformed, message);
        if let Some(kind) = TaskKind::ALL.iter().copied().find(|kind| routes::tasks(*kind).queue == queue) {
            let task: Task = decode(None, body)?;
            return match task.kind() {
                Some(other) if other != kind => {
                    Err(unfit(format!("is work for `{other}`, and `{queue}` is for `{kind}`")))
                }
                _ => Ok(Self::Task(kind, task)),
            };
        }
        if queue == COMMANDS.queue {
            return decode(None, body).map(|command| Self::Command(Box::new(command)));
        }
        if queue == REPORTS.queue {
            return decode(None, body).map(Self::Report);
        }
        Err(unfit(format!("`{queue}` is no work queue of Warren; the letter cannot go back there")))
    }

    /// The task that it is about; `None` for a command.
    pub fn task(&self) -> Option<Uuid> {
        let id = match self {
            Self::Task(_, task) => &task.id,
            Self::Report(report) => &report.task,
            Self::Command(_) => return None,
        };
        id.parse::<TaskId>().ok().map(|id| id.0)
    }

    /// Keys of the objects without which it comes to nothing.
    pub fn inputs(&self) -> Vec<&str> {
        use crate::wire::{embed_task::Input, embedded::Vectors, task::Work, task_report::Report};
        match self {
            Self::Task(_, task) => match &task.work {
                Some(Work::Prepare(work)) => vec![&work.media_key],
                Some(Work::Transcribe(work)) => vec![&work.pcm_key],
                Some(Work::Embed(work)) => match &work.input {
                    Some(Input::Lines(lines)) => vec![&lines.key],
                    Some(Input::Texts(_)) | None => Vec::new(),
                },
                None => Vec::new(),
            },
            Self::Report(report) => match &report.report {
                Some(Report::Embedded(embedded)) => match &embedded.vectors {
                    Some(Vectors::Object(object)) => vec![&object.key],
                    Some(Vectors::Inline(_)) | None => Vec::new(),
                },
                _ => Vec::new(),
            },
            Self::Command(_) => Vec::new(),
        }
    }

    /// It is a report after which nothing more comes of its task.
    pub const fn ends_its_task(&self) -> bool {
        let Self::Report(report) = self else { return false };
        report.ends_its_task()
    }

    /// The field in which `edited` would do another's work in place of this one's: a task's message stands for the same
    /// texts or stretch of sound of the same job, read from the same object, a report for the same run of its task, a
    /// command for the same job. `None`: it may stand for this one.
    fn misplaced(&self, edited: &Self) -> Option<&'static str> {
        use crate::wire::task::Work;
        let differs = match (self, edited) {
            (Self::Task(_, was), Self::Task(_, is)) => vec![
                ("id", was.id != is.id),
                ("job", was.job != is.job),
                match (&was.work, &is.work) {
                    (Some(Work::Embed(was)), Some(Work::Embed(is))) => {
                        let place = |work: &wire::EmbedTask| (work.first, texts(work));
                        ("embed: its first text, or the number of its texts", place(was) != place(is))
                    }
                    (Some(Work::Transcribe(was)), Some(Work::Transcribe(is))) => {
                        let other = (was.part_first_sample, &was.windows) != (is.part_first_sample, &is.windows);
                        ("transcribe: its windows, or the part that they are of", other)
                    }
                    (was, is) => ("the kind of its work", kind(was) != kind(is)),
                },
                ("the object that it reads", self.inputs() != edited.inputs()),
            ],
            (Self::Report(was), Self::Report(is)) => vec![
                ("task", was.task != is.task),
                ("job", was.job != is.job),
                ("dispatch", was.dispatch != is.dispatch),
            ],
            (Self::Command(was), Self::Command(is)) => vec![
                ("the kind of the command", kind(&was.command) != kind(&is.command)),
                ("job", was.job() != is.job()),
            ],
            _ => vec![("its queue", true)],
        };
        differs.into_iter().find_map(|(field, differs)| differs.then_some(field))
    }

    /// Why it would come to nothing to send this again; `None`: it makes sense. `now` is `None` when there is no such
    /// task.
    pub fn refused(&self, now: Option<Standing>) -> Option<&'static str> {
        let dispatch = match self {
            Self::Command(_) => return None,
            Self::Task(_, task) => task.dispatch,
            Self::Report(report) => report.dispatch,
        };
        let Some(now) = now else { return Some("its task is not known") };
        match now.task {
            TaskState::Done | TaskState::Failed | TaskState::Cancelled | TaskState::Unreleased => {
                Some(needless(now.task))
            }
            TaskState::Dead | TaskState::Released if now.job == JobState::Cancelled => Some("its job is cancelled"),
            // A dead task goes out anew, whatever the number. A report is of the one dispatch that it names.
            TaskState::Dead if matches!(self, Self::Task(..)) => None,
            // A released task never knew that this message was damaged on its way.
            TaskState::Dead | TaskState::Released => (dispatch != now.dispatch).then_some(GONE_OUT),
        }
    }
}

/// What is known of a letter besides what its body says, which may be what is damaged.
#[derive(Clone, Copy, Debug)]
pub struct Original<'a> {
    /// Where it was when it died.
    pub queue: &'a str,
    /// Its body.
    pub body: &'a [u8],
    /// The task, job and dispatch that its headers named, or else its body.
    pub task: Option<Uuid>,
    /// See `task`.
    pub job: Option<Uuid>,
    /// See `task`.
    pub dispatch: Option<i64>,
    /// The payload of that task's row: its work, as it was sent out.
    pub payload: Option<&'a str>,
}

impl Original<'_> {
    /// Why `edited` cannot stand for it; `None`: it does the same work in another way.
    pub fn misplaced(&self, edited: &Content) -> Option<String> {
        let was = self.of_row().or_else(|| Content::read(self.queue, self.body).ok());
        let field = self.not_its_own(edited).or_else(|| was?.misplaced(edited));
        field.map(|field| format!("{field} must stay as it was: the body would do another's work"))
    }

    fn not_its_own(&self, edited: &Content) -> Option<&'static str> {
        let (job, dispatch) = match edited {
            Content::Task(_, task) => (Some(task.job.as_str()), None),
            Content::Report(report) => (Some(report.job.as_str()), Some(i64::from(report.dispatch))),
            Content::Command(command) => (command.job(), None),
        };
        let job = job.and_then(|job| job.parse::<JobId>().ok()).map(|job| job.0);
        let other = |known: Option<Uuid>, named: Option<Uuid>| known.is_some() && known != named;
        if !matches!(edited, Content::Command(_)) && other(self.task, edited.task()) {
            Some("its task")
        } else if other(self.job, job) {
            Some("its job")
        } else if dispatch.is_some() && self.dispatch.is_some() && dispatch != self.dispatch {
            Some("dispatch")
        } else {
            None
        }
    }

    /// A task's message as it was sent out, however its letter looks.
    fn of_row(&self) -> Option<Content> {
        let kind = *TaskKind::ALL.iter().find(|kind| routes::tasks(**kind).queue == self.queue)?;
        let work: Task = serde_json::from_str(self.payload?).ok().filter(|task: &Task| task.work.is_some())?;
        let (id, job) = (TaskId(self.task?).to_string(), JobId(self.job?).to_string());
        Some(Content::Task(kind, Task { id, job, ..work }))
    }
}

fn kind<T>(content: &Option<T>) -> Option<mem::Discriminant<T>> {
    content.as_ref().map(mem::discriminant)
}

fn texts(work: &wire::EmbedTask) -> Option<usize> {
    use wire::embed_task::Input;
    work.input.as_ref().map(|input| match input {
        Input::Texts(texts) => texts.texts.len(),
        Input::Lines(lines) => lines.count as usize,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000-0000-0000-0000-000000000001";

    fn task() -> Content {
        let body = format!(
            r#"{{"id":"task_{ID}","job":"job_{ID}","dispatch":2,"prepare":{{"mediaKey":"media/{ID}","sizeBytes":"9"}}}}"#
        );
        Content::read("warren.task.prepare", body.as_bytes()).expect("a task")
    }

    fn report() -> Content {
        let body = format!(
            r#"{{"task":"task_{ID}","job":"job_{ID}","dispatch":2,"preparedAll":{{"parts":1,"samples":"9"}}}}"#
        );
        Content::read("warren.result", body.as_bytes()).expect("a report")
    }

    fn command() -> Content {
        let body = format!(r#"{{"cancel":{{"job":"job_{ID}"}}}}"#);
        Content::read("warren.job", body.as_bytes()).expect("a command")
    }

    #[test]
    fn a_body_must_suit_its_queue() {
        let cause = Content::read("warren.task.embed", b"not json").expect_err("no task");
        assert!(cause.message.contains("warren.v1.Task"), "{cause}");
        let Content::Task(TaskKind::Prepare, prepare) = task() else { panic!("{:?}", task()) };
        let body = serde_json::to_vec(&prepare).expect("JSON");
        let cause = Content::read("warren.task.embed", &body).expect_err("another kind");
        assert!(cause.message.contains("`prepare`") && cause.message.contains("`embed`"), "{cause}");
        assert!(Content::read("elsewhere", b"{}").is_err());
        assert_eq!((task().task(), report().task(), command().task()), (Some(Uuid::from_u128(1)), task().task(), None));
    }

    #[test]
    fn a_part_does_not_end_a_task_and_the_whole_does() {
        let part = format!(r#"{{"task":"task_{ID}","job":"job_{ID}","dispatch":2,"preparedPart":{{"ordinal":1}}}}"#);
        let part = Content::read("warren.result", part.as_bytes()).expect("a report");
        assert_eq!(
            [part, report(), task(), command()].map(|content| content.ends_its_task()),
            [false, true, false, false]
        );
    }

    #[test]
    fn the_input_of_work_is_named() {
        assert_eq!(task().inputs(), [format!("media/{ID}")]);
        assert!(report().inputs().is_empty() && command().inputs().is_empty());
    }

    #[test]
    fn an_edited_body_does_the_same_work_in_another_way() {
        let embed = |id: &str, first: u32, texts: &str| {
            let body = format!(
                r#"{{"id":"task_{id}","job":"job_{ID}","dispatch":2,"embed":{{"model":"m","first":{first},"texts":{{"texts":{texts}}}}}}}"#
            );
            Content::read("warren.task.embed", body.as_bytes()).expect("a task")
        };
        let was = embed(ID, 4, r#"["a","b"]"#);
        assert_eq!(was.misplaced(&embed(ID, 4, r#"["a","mended"]"#)), None);
        assert_eq!(was.misplaced(&embed(&ID.replace('1', "2"), 4, r#"["a","b"]"#)), Some("id"));
        for other in [embed(ID, 5, r#"["a","b"]"#), embed(ID, 4, r#"["a"]"#)] {
            assert!(was.misplaced(&other).is_some_and(|field| field.starts_with("embed")), "{other:?}");
        }
        assert_eq!(command().misplaced(&command()), None);
        assert_eq!(report().misplaced(&task()), Some("its queue"));
    }

    #[test]
    fn an_edited_body_is_its_letters_own_even_where_that_cannot_be_read() {
        let ids = |task: u128, job: u128| {
            (TaskId(Uuid::from_u128(task)).to_string(), JobId(Uuid::from_u128(job)).to_string())
        };
        let prepare = |task: u128, job: u128, media: u128| {
            let ((id, job), media) = (ids(task, job), Uuid::from_u128(media));
            let body =
                format!(r#"{{"id":"{id}","job":"{job}","dispatch":2,"prepare":{{"mediaKey":"media/{media}"}}}}"#);
            Content::read("warren.task.prepare", body.as_bytes()).expect("a task")
        };
        let payload = format!(r#"{{"prepare":{{"mediaKey":"media/{}"}}}}"#, Uuid::from_u128(9));
        let letter = Original {
            queue: "warren.task.prepare",
            body: b"torn",
            task: Some(Uuid::from_u128(1)),
            job: Some(Uuid::from_u128(2)),
            dispatch: Some(2),
            payload: Some(&payload),
        };
        assert_eq!(letter.misplaced(&prepare(1, 2, 9)), None);
        for (other, says) in
            [(prepare(3, 2, 9), "its task"), (prepare(1, 3, 9), "its job"), (prepare(1, 2, 8), "the object")]
        {
            assert!(letter.misplaced(&other).is_some_and(|why| why.starts_with(says)), "{says}: {other:?}");
        }
        // What its own body says is damage, where the row knows better.
        let damaged = serde_json::to_vec(&wire::Task { id: ids(1, 2).0, job: ids(1, 2).1, ..Task::default() });
        let damaged = damaged.expect("JSON");
        assert_eq!(Original { body: &damaged, ..letter }.misplaced(&prepare(1, 2, 9)), None);

        let report = |task: u128, dispatch: u32| {
            let (task, job) = ids(task, 2);
            Content::Report(TaskReport { task, job, dispatch, ..TaskReport::default() })
        };
        let letter = Original { queue: REPORTS.queue, ..letter };
        assert_eq!(letter.misplaced(&report(1, 2)), None);
        assert!(letter.misplaced(&report(3, 2)).is_some() && letter.misplaced(&report(1, 3)).is_some());
    }

    #[test]
    fn only_what_can_still_have_an_effect_is_sent_again() {
        use JobState::{Cancelled, Failed, Running};
        let at = |task, dispatch, job| Some(Standing { task, dispatch, job });
        // (what the rows say, a task's letter is sent, a report's letter is sent); both are of dispatch 2.
        for (now, task_goes, report_goes) in [
            (None, false, false),
            (at(TaskState::Dead, 2, Failed), true, true),
            (at(TaskState::Dead, 3, Failed), true, false),
            (at(TaskState::Dead, 2, Cancelled), false, false),
            (at(TaskState::Released, 2, Running), true, true),
            (at(TaskState::Released, 3, Running), false, false),
            (at(TaskState::Unreleased, 2, Running), false, false),
            (at(TaskState::Done, 2, Running), false, false),
            (at(TaskState::Failed, 2, Failed), false, false),
            (at(TaskState::Cancelled, 2, Failed), false, false),
        ] {
            assert_eq!(task().refused(now).is_none(), task_goes, "task, {now:?}: {:?}", task().refused(now));
            assert_eq!(report().refused(now).is_none(), report_goes, "report, {now:?}: {:?}", report().refused(now));
            assert_eq!(command().refused(now), None);
        }
        assert_eq!(task().refused(at(TaskState::Dead, 2, Cancelled)), Some("its job is cancelled"));
    }
}
