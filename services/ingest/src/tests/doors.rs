//! Who may come in, what is shown to operators, health and reflection.

use futures::stream;
use tonic::{Code as Grpc, Request};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use warren_jobs::TaskKind;
use warren_messages::wire::{GetJobRequest, ListDeadLettersRequest, QueuesRequest, WatchJobRequest, WorkersRequest};
use warren_settings::Secret;
use warren_store::Worker;

use super::world::{World, embed, eventually, transcribe, wav, within};
use crate::{api, auth::ApiKey};

const ANNA: &str = "the-long-key-of-anna";
const BERT: &str = "the-long-key-of-bert";

fn with_key<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().expect("a header"));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_see_only_what_is_theirs() {
    let key = |caller: &str, key: &str, operator| ApiKey {
        caller: caller.to_owned(),
        key: Secret::new(key.to_owned()),
        operator,
    };
    let world =
        World::with(|settings| settings.auth.keys = vec![key("anna", ANNA, false), key("bert", BERT, true)]).await;
    let status = world.jobs().submit(embed(&["a"])).await.expect_err("no key");
    assert_eq!(status.code(), Grpc::Unauthenticated);
    let status = world.jobs().submit(with_key("guessed", embed(&["a"]))).await.expect_err("a wrong key");
    assert_eq!(status.code(), Grpc::Unauthenticated);

    let job = world.jobs().submit(with_key(ANNA, embed(&["a"]))).await.expect("accepted").into_inner();
    let get = || GetJobRequest { id: job.id.clone() };
    assert!(world.jobs().get(with_key(ANNA, get())).await.is_ok());
    let status = world.jobs().get(with_key(BERT, get())).await.expect_err("not his");
    assert_eq!(status.code(), Grpc::NotFound);
    let watch = WatchJobRequest { id: job.id.clone(), after_sequence: 0 };
    assert_eq!(world.jobs().watch(with_key(BERT, watch)).await.expect_err("not his").code(), Grpc::NotFound);
    let upload = super::world::recording("a.wav", wav(1).into());
    let media = world.media().upload(with_key(ANNA, upload)).await.expect("taken").into_inner();
    let status = world.jobs().submit(with_key(BERT, transcribe(&media.id, ""))).await.expect_err("not his");
    assert_eq!(status.code(), Grpc::NotFound);

    let list = ListDeadLettersRequest::default;
    let status = world.letters().list(with_key(ANNA, list())).await.expect_err("no operator");
    assert_eq!(status.code(), Grpc::PermissionDenied);
    assert!(world.letters().list(with_key(BERT, list())).await.is_ok());
    assert!(world.operations().queues(with_key(ANNA, QueuesRequest {})).await.is_err());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_queues_and_workers() {
    let world = World::new().await;
    let worker = Worker {
        id: "transcription-1".to_owned(),
        boot: "b".to_owned(),
        service: "transcription".to_owned(),
        takes: vec![(TaskKind::Prepare, 2), (TaskKind::Transcribe, 16)],
        version: "0.1.0".to_owned(),
        live: true,
        heartbeat: world.parts.clock.now(),
        running: r#"[{"task":"task_1","job":"job_1","dispatch":1,"step":"decode","done_units":2.5}]"#.to_owned(),
        trouble: String::new(),
        last_error: None,
    };
    let tx = world.parts.store.begin().await.expect("begun");
    tx.upsert_workers(&[worker]).await.expect("written");
    tx.commit().await.expect("committed");
    let queues = world.operations().queues(QueuesRequest {}).await.expect("read").into_inner();
    let slots: Vec<_> = queues.queues.iter().map(|queue| (queue.queue.as_str(), queue.slots)).collect();
    assert_eq!(slots, [("warren.task.prepare", 2), ("warren.task.transcribe", 16), ("warren.task.embed", 0)]);
    let workers = world.operations().workers(WorkersRequest {}).await.expect("read").into_inner();
    assert_eq!((workers.workers[0].state.as_str(), workers.leader.as_str()), ("live", ""));
    assert_eq!((workers.workers[0].kinds.join(" "), workers.workers[0].slots), ("prepare transcribe".to_owned(), 18));
    assert_eq!(
        (workers.workers[0].running[0].step.as_str(), workers.workers[0].running[0].done_units),
        ("decode", 2.5)
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_readiness() {
    let world = World::new().await;
    let is = async |service: &str, wanted: ServingStatus| {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(world.channel.clone()).check(request).await;
        answer.is_ok_and(|answer| answer.into_inner().status() == wanted)
    };
    eventually("it serves", async || is("", ServingStatus::Serving).await).await;
    let rabbitmq = world.parts.readiness.part("rabbitmq", "gone");
    eventually("it does not", async || is("warren.v1.Jobs", ServingStatus::NotServing).await).await;
    rabbitmq.ready();
    eventually("it serves again", async || is("warren.v1.Media", ServingStatus::Serving).await).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_found_by_reflection() {
    let world = World::new().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(world.channel.clone());
    let mut answers = client.server_reflection_info(stream::iter([request])).await.expect("answered").into_inner();
    let answer = within("the services are listed", answers.message()).await.expect("an answer").expect("one");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in api::NAMES {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("Leases")), "it is served to workers, elsewhere: {names:?}");
    drop(answers);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_broker_connection_loses_no_command() {
    let world = World::new().await;
    // The management API shows a new connection only after a while.
    eventually("the broker closes its connections", async || {
        let rabbit = world.rabbit.clone();
        let closing = tokio::task::spawn_blocking(move || rabbit.close_connections());
        closing.await.expect("no panic").expect("the management API answers") > 0
    })
    .await;
    let job = world.submit_texts(&["a"]).await;
    let mut commands = world.coordinator(false);
    let command = within("the command comes", commands.recv()).await.expect("one");
    assert!(format!("{command:?}").contains(&job.id));
    world.stop().await;
}
