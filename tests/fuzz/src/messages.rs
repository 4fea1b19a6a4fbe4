//! What lies on RabbitMQ's queues, and the bodies that operators put in its place.

use std::thread;

use warren_broker::testing::taken;
use warren_fault::Code;
use warren_jobs::{JobState, TaskKind, TaskState, fingerprint::fingerprint, state::Standing};
use warren_messages::{
    edits,
    envelope::{Envelope, Message, decode},
    replay::Content,
    routes::{COMMANDS, EVENT_EXCHANGE, REPORTS, TASK_EXCHANGE, tasks},
    wire::{Command, Notice, Task, TaskReport},
};

/// As the services have it for tables in tables: each level of them is a level of recursion.
const STACK: usize = 256 << 20;
/// All headers of a message have to fit into one AMQP frame.
const FRAME: usize = 128 << 10;
/// Most bytes of the record of an edit: a hundred fields, two values each.
const MAX_RECORD: usize = 3_000_000;

/// A whole delivery: a byte that chooses the queue, the length of the properties in two bytes, the properties as in an
/// AMQP content header, and the body.
pub fn amqp_delivery(data: &[u8]) {
    let Some((queue, properties, body)) = parts(data) else { return };
    let read = || match queue % 4 {
        0 => delivery::<Task>(tasks(TaskKind::Embed).queue, TASK_EXCHANGE, properties, body),
        1 => delivery::<TaskReport>(REPORTS.queue, EVENT_EXCHANGE, properties, body),
        2 => delivery::<Command>(COMMANDS.queue, EVENT_EXCHANGE, properties, body),
        _ => delivery::<Notice>("notices", EVENT_EXCHANGE, properties, body),
    };
    thread::scope(|scope| {
        let deep = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, read).expect("a thread");
        deep.join().expect("it returns");
    });
}

fn delivery<M: Message>(queue: &'static str, exchange: &str, properties: &[u8], body: &[u8]) {
    let Some(read) = taken::<M>(queue, exchange, properties, body) else { return };
    assert!(read.delivery.attempt >= 1);
    assert!(read.delivery.headers.values().all(|text| !text.contains('\0')), "PostgreSQL cannot hold it");
    assert!(read.header_bytes < FRAME, "{} bytes of headers", read.header_bytes);
    let letter = &read.letter;
    assert!(!fingerprint(&letter.class, &letter.key, &letter.cause).is_empty());
    let again = taken::<M>(queue, exchange, properties, body).expect("read once");
    assert_eq!(again.letter, *letter, "a letter is the same each time it is read");
    assert_eq!(again.delivery.message_id, read.delivery.message_id);
    match read.message {
        Ok(message) => returns(&message),
        Err(cause) => assert!(cause.code == Code::Malformed && !cause.message.is_empty(), "{cause}"),
    }
}

/// A body alone: a byte that chooses the queue, and the body.
pub fn amqp_body(data: &[u8]) {
    let Some((queue, body)) = data.split_first() else { return };
    match Content::read(queue_of(*queue), body) {
        Ok(content) => understood(&content),
        Err(cause) => assert!(cause.code == Code::Malformed && !cause.message.is_empty(), "{cause}"),
    }
    if let Ok(notice) = decode::<Notice>(None, body) {
        returns(&notice);
    }
}

/// The body that `dead-letters replay --edit` sends: a byte that chooses the queue, the length of the letter's own body
/// in two bytes, that body, and the new one.
pub fn dead_letter_edit(data: &[u8]) {
    let Some((queue, before, after)) = parts(data) else { return };
    if let Ok(content) = Content::read(queue_of(queue), after) {
        understood(&content);
    }
    let record = edits::changes(before, after).to_string();
    assert!(record.len() <= MAX_RECORD, "{} bytes of record", record.len());
    if serde_json::from_slice::<serde_json::Value>(after).is_ok() {
        assert_eq!(edits::changes(after, after).to_string(), "{}");
    }
}

fn parts(data: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [queue, high, low, rest @ ..] = data else { return None };
    let (first, second) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((*queue, first, second))
}

fn queue_of(byte: u8) -> &'static str {
    match byte % 6 {
        0 => tasks(TaskKind::Prepare).queue,
        1 => tasks(TaskKind::Transcribe).queue,
        2 => tasks(TaskKind::Embed).queue,
        3 => REPORTS.queue,
        4 => COMMANDS.queue,
        _ => "elsewhere",
    }
}

fn understood(content: &Content) {
    match content {
        Content::Task(kind, task) => {
            assert_eq!(task.kind(), Some(*kind));
            returns(task);
        }
        Content::Report(report) => returns(report),
        Content::Command(command) => returns(&**command),
    }
    assert_eq!(content.task().is_none(), matches!(content, Content::Command(_)), "checked ids can be read");
    assert!(content.inputs().len() <= 1);
    for task in [TaskState::Dead, TaskState::Released, TaskState::Done] {
        for dispatch in [0, 1, u32::MAX] {
            let _ = content.refused(Some(Standing { task, dispatch, job: JobState::Running }));
        }
    }
}

/// What was understood once is understood the same when it is sent on.
fn returns<M: Message>(message: &M) {
    let sent = Envelope::new(Default::default(), message);
    let again: M = decode(Some(M::TYPE), &sent.body).expect("what is sent can be read");
    assert_eq!(Envelope::new(Default::default(), &again), sent);
}

const ID: &str = "00000000-0000-0000-0000-000000000001";

/// Bodies of every kind, with a queue before each.
pub fn bodies() -> Vec<Vec<u8>> {
    let task = |work: &str| {
        format!(r#"{{"id":"task_{ID}","job":"job_{ID}","dispatch":2,"deadline":"2026-01-02T03:04:05.678Z",{work}}}"#)
    };
    let report = |what: &str| format!(r#"{{"task":"task_{ID}","job":"job_{ID}","dispatch":1,{what}}}"#);
    let command = |what: &str| format!(r#"{{"actor":"anna","{what}}}"#);
    let all = [
        (0, task(r#""prepare":{"mediaKey":"media/1","sizeBytes":"9","model":"base"}"#)),
        (
            1,
            task(concat!(
                r#""transcribe":{"pcmKey":"pcm/1","windows":[{"firstSample":"0","samples":"480000"},"#,
                r#"{"firstSample":"480000","samples":"5"}],"model":"base","language":"de","translate":true}"#
            )),
        ),
        (2, task(r#""embed":{"model":"minilm","texts":{"texts":["one","two"]}}"#)),
        (2, task(r#""embed":{"model":"minilm","lines":{"key":"texts/1","first":"0","count":7}}"#)),
        (3, report(r#""preparedPart":{"ordinal":1,"firstSample":"0","samples":"9"}"#)),
        (3, report(r#""preparedAll":{"parts":1,"samples":"9"}"#)),
        (
            3,
            report(concat!(
                r#""transcribed":{"language":"de","segments":["#,
                r#"{"start":0.5,"end":"NaN","text":"a","avgLogprob":-1e3}]}"#
            )),
        ),
        (3, report(r#""embedded":{"model":"minilm","dims":2,"inline":"AACAPwAAAAA="}"#)),
        (3, report(r#""failed":{"code":"InputInvalid","message":"no"}"#)),
        (3, report(r#""retry":{"attempt":3,"until":"2026-01-02T03:04:05Z","cause":"x"}"#)),
        (4, command(&format!(r#"submitted":{{"job":"job_{ID}"}}"#))),
        (4, command(&format!(r#"cancel":{{"job":"job_{ID}","reason":"r"}}"#))),
        (4, command(&format!(r#"delete":{{"job":"job_{ID}","media":"media_{ID}"}}"#))),
        (
            4,
            command(&format!(
                r#"replay":{{"requestId":"r","letters":["{ID}"],"editedBody":"e30=","rate":0.5,"canary":2,"force":true}}"#
            )),
        ),
        (4, command(&format!(r#"discard":{{"letters":["{ID}"],"reason":"r"}}"#))),
        (
            4,
            command(&format!(
                r#"putBack":{{"letter":{{"id":"{ID}","queue":"q","body":"e30=","headers":{{"a":"b"}}}}}}"#
            )),
        ),
        (4, command(r#"operate":{"request":"r","pause":{"kind":"embed","paused":true}}"#)),
        (4, command(r#"operate":{"request":"r","purge":{"kind":"embed","tasks":"3"}}"#)),
        (4, command(&format!(r#"operate":{{"request":"r","recover":{{"job":"job_{ID}"}}}}"#))),
        (4, command(r#"operate":{"request":"r","failStale":{"olderMs":"3"}}"#)),
        (5, format!(r#"{{"job":"job_{ID}","ended":true}}"#)),
    ];
    all.into_iter().map(|(queue, body)| [&[queue], body.as_bytes()].concat()).collect()
}

/// The same bodies as whole deliveries, fresh, retried and dead.
pub fn deliveries() -> Vec<Vec<u8>> {
    let text = |name: &str, value: &str| {
        let mut field = vec![name.len() as u8];
        field.extend(name.as_bytes());
        field.push(b'S');
        field.extend((value.len() as u32).to_be_bytes());
        field.extend(value.as_bytes());
        field
    };
    let framed = |fields: Vec<u8>| [(fields.len() as u32).to_be_bytes().to_vec(), fields].concat();
    let death = [
        text("queue", "warren.task.embed"),
        text("reason", "delivery_limit"),
        text("exchange", "warren.task"),
        b"\x05countl\0\0\0\0\0\0\0\x01\x04timeT\0\0\0\0\x65\x53\xf1\x00".to_vec(),
        [b"\x0crouting-keysA".to_vec(), framed([b"S".to_vec(), framed(b"embed".to_vec())].concat())].concat(),
    ]
    .concat();
    let deaths = [b"\x07x-deathA".to_vec(), framed([b"F".to_vec(), framed(death)].concat())].concat();
    let fresh = text("x-warren-first-ts", "1700000000000");
    let retried = [fresh.clone(), text("x-warren-attempt", "3"), text("x-warren-err-class", "Internal")].concat();
    let letter =
        [text("x-warren-letter", ID), text("x-warren-source", "warren.job"), text("x-warren-err-cause", "why")];
    let nested = (0..1_000).fold(Vec::new(), |inner, _| [b"A".to_vec(), framed(inner)].concat());
    let nested = [b"\x01x".to_vec(), nested].concat();
    let tables = [Vec::new(), nested, fresh, retried, letter.concat(), deaths];
    let short = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let mut all = Vec::new();
    for (index, body) in bodies().into_iter().enumerate() {
        let (chosen, kind) = match body[0] {
            0..=2 => (0, "warren.v1.Task"),
            3 => (1, "warren.v1.TaskReport"),
            4 => (2, "warren.v1.Command"),
            _ => (3, "warren.v1.Notice"),
        };
        let properties = [
            vec![0xb0, 0xe0],
            short("application/json"),
            framed(tables[index % tables.len()].clone()),
            vec![2],
            short(ID),
            1_700_000_000_u64.to_be_bytes().to_vec(),
            short(kind),
        ]
        .concat();
        all.push([&[chosen], &(properties.len() as u16).to_be_bytes()[..], &properties, &body[1..]].concat());
    }
    all
}

/// Each body beside the next one of its queue.
pub fn edits() -> Vec<Vec<u8>> {
    let bodies = bodies();
    let pairs = bodies.iter().zip(bodies.iter().cycle().skip(1));
    pairs
        .map(|(before, after)| {
            let (queue, before) = (after[0], &before[1..]);
            [&[queue], &(before.len() as u16).to_be_bytes()[..], before, &after[1..]].concat()
        })
        .collect()
}
