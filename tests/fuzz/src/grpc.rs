//! What callers send to ingest.

use std::{cell::RefCell, time::Duration};

use prost::Message as _;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tonic::{Code, Status};
use warren_ingest::testing::{Door, KNOWN};
use warren_messages::{from_millis, wire};

/// All methods of all services, see `proto/`. The first byte of an input chooses one.
const METHODS: [&str; 30] = [
    "Media/Upload",
    "Jobs/Submit",
    "Jobs/Get",
    "Jobs/List",
    "Jobs/Events",
    "Jobs/Watch",
    "Jobs/Cancel",
    "Jobs/Resubmit",
    "Jobs/Delete",
    "Jobs/Explain",
    "Transcripts/Get",
    "Embeddings/Get",
    "Search/Query",
    "DeadLetters/List",
    "DeadLetters/Groups",
    "DeadLetters/Stats",
    "DeadLetters/Show",
    "DeadLetters/Replay",
    "DeadLetters/Discard",
    "DeadLetters/Import",
    "Operations/Queues",
    "Operations/Workers",
    "Operations/Diagnose",
    "Operations/Errors",
    "Operations/Audit",
    "Operations/Pause",
    "Operations/Resume",
    "Operations/Purge",
    "Operations/Recover",
    "Operations/FailStale",
];
/// Whatever passed all checks waits for a coordinator that is not there: nobody stays for that.
const PATIENCE: Duration = Duration::from_millis(25);
/// Calls on one database; what they leave behind must not grow without end.
const CALLS: u32 = 500;
/// Longest message of a status, which travels in a header, bytes.
const MAX_STATUS: usize = 4_000;

/// A byte that chooses the method, and the protobuf message; for an upload several, each after its length in two bytes.
pub fn grpc_body(data: &[u8]) {
    let Some((method, message)) = data.split_first() else { return };
    let method = METHODS[usize::from(*method) % METHODS.len()];
    let body = if method == "Media/Upload" { several(message) } else { framed(message) };
    WORLD.with_borrow_mut(|world| {
        if world.as_ref().is_none_or(|world| world.calls == CALLS) {
            *world = Some(World::new());
        }
        let world = world.as_mut().expect("just made");
        world.calls += 1;
        let call = async { tokio::time::timeout(PATIENCE, world.door.call(method, body)).await };
        if let Ok(Err(status)) = world.runtime.block_on(call) {
            refused(method, &status);
        }
    });
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

struct World {
    door: Door,
    runtime: Runtime,
    calls: u32,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let door = runtime.block_on(Door::open(folder.path())).expect("a database");
        Self { door, runtime, calls: 0, _folder: folder }
    }
}

fn refused(method: &str, status: &Status) {
    let message = status.message();
    let undecodable = message.contains("failed to decode") || message.contains("Missing request message");
    match status.code() {
        Code::Internal => assert!(undecodable, "{method}: {status}"),
        Code::Unknown | Code::Unauthenticated | Code::Unimplemented => panic!("{method}: {status}"),
        _ => {}
    }
    assert!(!message.is_empty(), "{method}: {status:?}");
    assert!(message.len() <= MAX_STATUS, "{method}: a status of {} bytes", message.len());
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

fn several(mut messages: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let [high, low, rest @ ..] = messages {
        let (message, later) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()));
        body.extend(framed(message));
        messages = later;
    }
    body
}

/// One call of every method that says something.
pub fn calls() -> Vec<Vec<u8>> {
    let uuid = format!("{KNOWN:032x}");
    let uuid = [&uuid[..8], &uuid[8..12], &uuid[12..16], &uuid[16..20], &uuid[20..]].join("-");
    let job = format!("job_{uuid}");
    let at = || Some(from_millis(1_700_000_000_000));
    let call = |method: &str, message: Vec<u8>| {
        let index = METHODS.iter().position(|known| *known == method).expect("a method");
        [vec![index as u8], message].concat()
    };
    let long = |message: Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    let header = wire::UploadHeader { name: "a.wav".to_owned(), size_bytes: 300, ..Default::default() };
    let header = wire::UploadRequest { part: Some(wire::upload_request::Part::Header(header)) };
    let sound = super::audio::waves().swap_remove(0);
    let sound = wire::UploadRequest { part: Some(wire::upload_request::Part::Chunk(sound.into())) };
    let limits = wire::JobLimits { timeout_s: 60, soft_timeout_s: 30, max_memory_mb: 600, max_disk_mb: 1 };
    let transcribe = wire::TranscribeSpec {
        media: format!("media_{uuid}"),
        model: "tiny.en".to_owned(),
        language: "en".to_owned(),
        index: true,
        ..Default::default()
    };
    let submit = |spec| wire::SubmitJobRequest {
        request_id: "once".to_owned(),
        class: 1,
        limits: Some(limits),
        spec: Some(spec),
    };
    let embed = wire::EmbedSpec { texts: vec!["one".to_owned(), "two".to_owned()], ..Default::default() };
    let filter = wire::DeadLetterFilter {
        job: job.clone(),
        queue: "warren.job".to_owned(),
        before: at(),
        since: at(),
        ..Default::default()
    };
    let letter = wire::DeadLetter {
        id: uuid.replace("0001", "0002"),
        queue: "warren.job".to_owned(),
        class: "Malformed".to_owned(),
        fingerprint: "00".to_owned(),
        job: job.clone(),
        first_seen: at(),
        last_seen: at(),
        body: b"{}".to_vec(),
        headers: [("a".to_owned(), "b".to_owned())].into(),
        ..Default::default()
    };
    let replay = wire::ReplayDeadLettersRequest {
        ids: vec![uuid.clone()],
        edited_body: format!(r#"{{"cancel":{{"job":"{job}"}}}}"#).into_bytes(),
        dry_run: true,
        rate: 2.0,
        ..Default::default()
    };
    vec![
        call("Media/Upload", [long(header.encode_to_vec()), long(sound.encode_to_vec())].concat()),
        call("Jobs/Submit", submit(wire::submit_job_request::Spec::Transcribe(transcribe)).encode_to_vec()),
        call("Jobs/Submit", submit(wire::submit_job_request::Spec::Embed(embed)).encode_to_vec()),
        call("Jobs/Get", wire::GetJobRequest { id: job.clone() }.encode_to_vec()),
        call(
            "Jobs/List",
            wire::ListJobsRequest { kind: "embed".to_owned(), page_size: 1, ..Default::default() }.encode_to_vec(),
        ),
        call("Jobs/Events", wire::JobEventsRequest { id: job.clone(), limit: 5 }.encode_to_vec()),
        call("Jobs/Watch", wire::WatchJobRequest { id: job.clone(), after_sequence: 1 }.encode_to_vec()),
        call("Jobs/Cancel", wire::CancelJobRequest { id: job.clone(), reason: "why not".to_owned() }.encode_to_vec()),
        call("Jobs/Resubmit", wire::ResubmitJobRequest { id: job.clone(), request_id: "r".to_owned() }.encode_to_vec()),
        call("Jobs/Delete", wire::DeleteJobRequest { id: job.clone() }.encode_to_vec()),
        call("Jobs/Explain", wire::ExplainJobRequest { id: job.clone() }.encode_to_vec()),
        call("Transcripts/Get", wire::GetJobRequest { id: job.clone() }.encode_to_vec()),
        call("Embeddings/Get", wire::GetJobRequest { id: job.clone() }.encode_to_vec()),
        call(
            "Search/Query",
            wire::SearchRequest { query: "\"one two\" OR three*".to_owned(), limit: 3 }.encode_to_vec(),
        ),
        call(
            "DeadLetters/List",
            wire::ListDeadLettersRequest { filter: Some(filter.clone()), page_size: 2, ..Default::default() }
                .encode_to_vec(),
        ),
        call("DeadLetters/Groups", wire::DeadLetterGroupsRequest { filter: Some(filter) }.encode_to_vec()),
        call("DeadLetters/Stats", Vec::new()),
        call("DeadLetters/Show", wire::ShowDeadLetterRequest { id: uuid.clone() }.encode_to_vec()),
        call("DeadLetters/Replay", replay.encode_to_vec()),
        call(
            "DeadLetters/Discard",
            wire::DiscardDeadLettersRequest {
                ids: vec![uuid],
                reason: "r".to_owned(),
                dry_run: true,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        call(
            "DeadLetters/Import",
            wire::ImportDeadLettersRequest { letters: vec![letter], dry_run: false }.encode_to_vec(),
        ),
        call("Operations/Queues", Vec::new()),
        call("Operations/Workers", Vec::new()),
        call("Operations/Diagnose", Vec::new()),
        call("Operations/Errors", Vec::new()),
        call("Operations/Audit", wire::AuditRequest { limit: 3 }.encode_to_vec()),
        call(
            "Operations/Pause",
            wire::PauseRequest { kind: "embed".to_owned(), dry_run: true, ..Default::default() }.encode_to_vec(),
        ),
        call(
            "Operations/Resume",
            wire::ResumeRequest { kind: "embed".to_owned(), dry_run: true, ..Default::default() }.encode_to_vec(),
        ),
        call(
            "Operations/Purge",
            wire::PurgeRequest { kind: "embed".to_owned(), dry_run: true, ..Default::default() }.encode_to_vec(),
        ),
        call("Operations/Recover", wire::RecoverRequest { job, dry_run: true, ..Default::default() }.encode_to_vec()),
        call(
            "Operations/FailStale",
            wire::FailStaleRequest { older_s: 60, dry_run: true, ..Default::default() }.encode_to_vec(),
        ),
    ]
}
