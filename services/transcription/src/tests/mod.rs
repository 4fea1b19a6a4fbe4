//! The service's two handlers on a real broker and object store, with a coordinator that grants everything.

mod coordinator;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warren_blob::{BlobSettings, Blobs, Key};
use warren_broker::{Broker, BrokerSettings, GroupHandler, Letter, Received};
use warren_clock::Clock;
use warren_fault::Fault;
use warren_inference::Device;
use warren_jobs::{TaskKind, retry::RetryPolicy};
use warren_leases::{LeaseSettings, Leases};
use warren_local::{rabbitmq::TestBroker, s3::TestS3};
use warren_messages::{
    envelope::{Envelope, headers},
    ids::{JobId, TaskId},
    routes,
    wire::{self, task::Work, task_report::Report},
};
use warren_models::ModelsSettings;
use warren_settings::Secret;
use warren_worker::{Desk, Engine, Pace, Shelf, Watermark, WorkSettings};

use crate::{
    prepare::Prepare,
    settings::{PrepareSettings, Settings},
    speech::Speech,
    transcribe::Transcribe,
};

const RATE: u32 = warren_audio::SAMPLE_RATE;

/// A wav of 16 kHz mono, 16 bits: a hum in the seconds that are `loud`, silence in the others.
pub(crate) fn wav(seconds: u32, loud: impl Fn(u32) -> bool) -> Vec<u8> {
    let bytes = seconds * RATE * 2;
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + bytes).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    for field in [16, 1 | 1 << 16, RATE, RATE * 2, 2 | 16 << 16] {
        wav.extend(field.to_le_bytes());
    }
    wav.extend(b"data");
    wav.extend(bytes.to_le_bytes());
    for sample in 0..seconds * RATE {
        let hum = ((sample % 80) as i16 - 40) * 200;
        wav.extend((if loud(sample / RATE) { hum } else { 0 }).to_le_bytes());
    }
    wav
}

struct Service {
    broker: Broker,
    blobs: Blobs,
    clock: Clock,
    reports: mpsc::UnboundedReceiver<wire::TaskReport>,
    stopping: CancellationToken,
    // Kept alive for the test.
    _parts: (TestBroker, TestS3, Leases),
}

/// Passes on the tasks of dead letters.
struct Died(mpsc::UnboundedSender<String>);

impl GroupHandler<Letter> for Died {
    async fn handle(&self, group: &[Letter]) -> Result<(), Fault> {
        for letter in group {
            let _ = self.0.send(letter.headers.get(headers::TASK).cloned().unwrap_or_default());
        }
        Ok(())
    }
}

struct Heard(mpsc::UnboundedSender<wire::TaskReport>);

impl GroupHandler<Received<wire::TaskReport>> for Heard {
    async fn handle(&self, group: &[Received<wire::TaskReport>]) -> Result<(), Fault> {
        for received in group {
            let _ = self.0.send(received.message.clone());
        }
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl Service {
    async fn start() -> Self {
        let rabbitmq = warren_local::rabbitmq::for_tests();
        let s3 = warren_local::s3::for_tests().await;
        let (clock, stopping) = (Clock::system(), CancellationToken::new());
        let broker_settings = BrokerSettings {
            url: Secret::new(rabbitmq.amqp_url.clone()),
            management_url: String::new(),
            ..BrokerSettings::default()
        };
        let blob_settings = BlobSettings {
            endpoint: s3.endpoint.clone(),
            bucket: s3.bucket.clone(),
            access_key: s3.access_key.clone(),
            secret_key: Secret::new(s3.secret_key.clone()),
            ..BlobSettings::default()
        };
        let lease_settings = LeaseSettings {
            coordinators: vec![coordinator::start().await],
            worker: "transcription-1".to_owned(),
            ..LeaseSettings::default()
        };
        let identity = Settings::default().identity(&Pace::new(1));
        let leases = Leases::start(&lease_settings, identity, &clock, stopping.clone()).expect("started");
        let broker = Broker::start(broker_settings, clock.clone(), "transcription-1", stopping.clone());
        let blobs = Blobs::connect(&blob_settings);
        let models = Shelf::<Speech>::new(&ModelsSettings::default(), &WorkSettings::default(), Device::Cpu);
        let policy = RetryPolicy::default();
        let desk = Desk::new(broker.clone(), leases.clone(), clock.clone(), policy, Watermark::none());
        let engine = Engine::new(leases.clone(), models, Pace::new(1), stopping.clone());
        let prepare = Prepare::new(desk.clone(), blobs.clone(), &PrepareSettings::default());
        let transcribe = Transcribe::new(desk, blobs.clone(), engine);

        let (heard, reports) = mpsc::unbounded_channel();
        let (consuming, stop) = (broker.clone(), stopping.clone());
        tokio::spawn(async move {
            tokio::join!(
                consuming.consume(routes::tasks(TaskKind::Prepare), 1, prepare, stop.clone()),
                consuming.consume(routes::tasks(TaskKind::Transcribe), 1, transcribe, stop.clone()),
                consuming.consume_group(routes::REPORTS, 8, Heard(heard), stop.clone()),
            )
        });
        assert!(broker.ready().await);
        Self { broker, blobs, clock, reports, stopping, _parts: (rabbitmq, s3, leases) }
    }

    /// Stores a recording and asks for its preparation; returns the job's id.
    async fn prepare(&self, recording: Vec<u8>, name: &str) -> Uuid {
        self.prepare_within(wire::PrepareTask::default(), recording, name).await
    }

    /// The same, with the job's own limits.
    async fn prepare_within(&self, limits: wire::PrepareTask, recording: Vec<u8>, name: &str) -> Uuid {
        let size_bytes = i64::try_from(recording.len()).expect("small");
        let key = Key::media(self.clock.new_id());
        self.blobs.put_bytes(&key, recording.into()).await.expect("stored");
        let (media_key, media_name) = (key.to_string(), name.to_owned());
        let job = self.clock.new_id();
        let work = wire::PrepareTask { media_key, media_name, size_bytes, ..limits };
        self.ask(TaskKind::Prepare, job, Work::Prepare(work)).await;
        job
    }

    async fn ask(&self, kind: TaskKind, job: Uuid, work: Work) {
        self.ask_as(1, kind, job, work).await;
    }

    /// Asks under a dispatch; returns the task's id.
    async fn ask_as(&self, dispatch: u32, kind: TaskKind, job: Uuid, work: Work) -> String {
        let task = wire::Task {
            id: TaskId(self.clock.new_id()).to_string(),
            job: JobId(job).to_string(),
            dispatch,
            deadline: None,
            work: Some(work),
        };
        let envelope = Envelope::new(self.clock.new_id(), &task);
        self.broker.send(routes::tasks(kind), &envelope).await.expect("sent");
        task.id
    }

    async fn report(&mut self) -> (wire::TaskReport, Report) {
        let report = self.reports.recv().await.expect("the service lives");
        let inner = report.report.clone().expect("a report");
        (report, inner)
    }
}

#[tokio::test]
async fn a_recording_becomes_windows_and_windows_become_segments() {
    let mut service = Service::start().await;
    let job = service.prepare(wav(20, |second| (5..8).contains(&second)), "hum.wav").await;
    let (_, Report::PreparedPart(part)) = service.report().await else { panic!("the part comes first") };
    assert_eq!((part.ordinal, part.windows.len()), (0, 1));
    assert_eq!(part.pcm_key, Key::pcm(job, 0).to_string());
    let stored = service.blobs.head(&Key::pcm(job, 0)).await.expect("reached").expect("stored");
    assert_eq!(stored.size, u64::try_from(part.samples).expect("positive") * 2);
    let (report, Report::PreparedAll(all)) = service.report().await else { panic!("then the whole") };
    assert_eq!((all.parts, all.samples), (1, i64::from(20 * RATE)));
    assert_eq!((report.worker.as_str(), report.dispatch), ("transcription-1", 1));

    let work = Work::Transcribe(wire::TranscribeTask {
        pcm_key: part.pcm_key,
        part_first_sample: part.first_sample,
        windows: part.windows,
        model: "tiny.en".to_owned(),
        language: String::new(),
        ..Default::default()
    });
    service.ask(TaskKind::Transcribe, job, work).await;
    let (report, Report::Transcribed(transcribed)) = service.report().await else { panic!("segments") };
    assert_eq!(transcribed.language, "en");
    assert!(transcribed.segments.iter().all(|s| s.start >= 4.5 && s.end <= 8.5), "{transcribed:?}");
    assert!(report.inference_seconds > 0.0 && report.busy_seconds >= report.inference_seconds, "{report:?}");
}

#[tokio::test]
async fn a_bad_recording_and_an_unknown_model_are_reported_to_the_caller() {
    let mut service = Service::start().await;
    service.prepare(b"Dear Sir or Madam, this is no recording at all.".to_vec(), "letter.mp3").await;
    let (_, Report::Failed(fault)) = service.report().await else { panic!("a fault") };
    assert_eq!(fault.code, "InputInvalid");
    assert!(fault.message.contains("letter.mp3"), "{fault:?}");

    let work = Work::Transcribe(wire::TranscribeTask {
        pcm_key: Key::pcm(service.clock.new_id(), 0).to_string(),
        windows: vec![wire::Window { first_sample: 0, samples: 16_000 }],
        model: "tiny.xx".to_owned(),
        ..Default::default()
    });
    service.ask(TaskKind::Transcribe, service.clock.new_id(), work).await;
    let (_, Report::Failed(fault)) = service.report().await else { panic!("a fault") };
    assert_eq!(fault.code, "ModelUnknown");
}

#[tokio::test]
async fn a_silent_recording_has_no_parts() {
    let mut service = Service::start().await;
    service.prepare(wav(3, |_| false), "silence.wav").await;
    let (_, Report::PreparedAll(all)) = service.report().await else { panic!("only the whole") };
    assert_eq!((all.parts, all.samples), (0, i64::from(3 * RATE)));
}

#[tokio::test]
async fn a_late_message_of_a_task_that_has_ended_is_dropped_also_when_it_fails() {
    let service = Service::start().await;
    let (sender, mut died) = mpsc::unbounded_channel();
    let (broker, stopping) = (service.broker.clone(), service.stopping.clone());
    tokio::spawn(async move { broker.consume_dead_index(8, Died(sender), stopping).await });
    // It fails before anything is asked of anybody. One task at a time is in hand, in order.
    let hopeless = || {
        let media_key = "no key".to_owned();
        Work::Prepare(wire::PrepareTask { media_key, media_name: "talk.wav".to_owned(), ..Default::default() })
    };
    service.ask_as(coordinator::STALE, TaskKind::Prepare, service.clock.new_id(), hopeless()).await;
    let current = service.ask_as(1, TaskKind::Prepare, service.clock.new_id(), hopeless()).await;
    assert_eq!(died.recv().await, Some(current), "the other one left nothing behind");
}
