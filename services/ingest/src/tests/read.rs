//! Reading results, and searching them.

use tonic::Code as Grpc;
use warren_jobs::JobState as State;
use warren_messages::wire::{
    GetEmbeddingsRequest, GetTranscriptRequest, Job, ListJobsRequest, SearchRequest, TranscriptFormat,
    command::Command as What,
};
use warren_store::{EmbeddingRow, JobFilter, NewPassage, Segment};

use super::world::{World, transcribe, uuid, wav, within};

fn segment(task_ordinal: i64, start_s: f64, end_s: f64, text: &str) -> Segment {
    Segment { task_ordinal, idx: 0, start_s, end_s, text: text.to_owned(), avg_logprob: -0.25, no_speech_prob: 0.0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transcript_can_be_read_while_it_grows() {
    let world = World::new().await;
    let media = world.upload("talk.wav", wav(1)).await;
    let job = world.jobs().submit(transcribe(&media.id, "tiny.en")).await.expect("accepted").into_inner();
    let get = async |format: TranscriptFormat| {
        let request = GetTranscriptRequest { job: job.id.clone(), format: format.into() };
        world.transcripts().get(request).await.expect("read").into_inner()
    };
    assert!(get(TranscriptFormat::Unspecified).await.segments.is_empty());
    world.move_job(&job, State::Queued, State::Running).await;
    let tx = world.parts.store.begin().await.expect("begun");
    tx.replace_segments(uuid(&job), 4, &[segment(4, 2.0, 9.0, " world")]).await.expect("written");
    tx.replace_segments(uuid(&job), 0, &[segment(0, 0.0, 2.5, " Hello")]).await.expect("written");
    tx.commit().await.expect("committed");
    let partial = get(TranscriptFormat::Unspecified).await;
    assert_eq!((partial.complete, partial.text.as_str(), partial.duration_seconds), (false, "Hello world", 9.0));

    let tx = world.parts.store.begin().await.expect("begun");
    tx.set_duration(uuid(&job), 3.0).await.expect("written");
    tx.commit().await.expect("committed");
    world.move_job(&job, State::Running, State::Succeeded).await;
    let whole = get(TranscriptFormat::Srt).await;
    assert_eq!((whole.complete, whole.language.as_str(), whole.model.as_str()), (true, "en", "tiny.en"));
    assert_eq!((whole.segments[1].start, whole.segments[1].end), (2.5, 3.0));
    assert!(whole.rendered.starts_with("1\n00:00:00,000 --> 00:00:02,500\nHello\n"), "{}", whole.rendered);
    assert!(get(TranscriptFormat::Vtt).await.rendered.starts_with("WEBVTT"));
    assert_eq!(get(TranscriptFormat::Text).await.rendered, "Hello world\n");
    let json: serde_json::Value = serde_json::from_str(&get(TranscriptFormat::Json).await.rendered).expect("JSON");
    assert_eq!(json["segments"][0]["text"], "Hello");

    let status = world.embeddings().get(GetEmbeddingsRequest { job: job.id, first: 0 }).await.expect_err("no vectors");
    assert!(status.message().contains("Transcripts.Get"), "{status}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_come_in_order_and_in_batches() {
    let world = World::new().await;
    let job = world.submit_texts(&["a"]).await;
    let rows: Vec<_> = (0..600)
        .map(|ordinal| EmbeddingRow {
            job: uuid(&job),
            ordinal,
            model: "all-MiniLM-L6-v2".to_owned(),
            vector: vec![ordinal as f32, 1.0],
        })
        .collect();
    let tx = world.parts.store.begin().await.expect("begun");
    tx.upsert_embeddings(&rows).await.expect("written");
    tx.commit().await.expect("committed");
    let request = GetEmbeddingsRequest { job: job.id.clone(), first: 10 };
    let mut batches = world.embeddings().get(request).await.expect("read").into_inner();
    let (mut indexes, mut sizes) = (Vec::new(), Vec::new());
    while let Some(batch) = batches.message().await.expect("a batch") {
        assert_eq!(batch.model, "all-MiniLM-L6-v2");
        sizes.push(batch.embeddings.len());
        indexes.extend(batch.embeddings.iter().map(|embedding| embedding.index));
    }
    assert_eq!(sizes, [256, 256, 78]);
    assert_eq!(indexes, (10..600).collect::<Vec<_>>());
    let request = GetTranscriptRequest { job: job.id, format: 0 };
    assert!(world.transcripts().get(request).await.expect_err("no text").message().contains("Embeddings.Get"));
    world.stop().await;
}

/// Two passages: one has the words, the other the meaning of `ship`.
async fn archive(world: &World) -> Job {
    let job = world.submit_texts(&["a", "b"]).await;
    let passage = |ordinal, text: &str, vector: [f32; 2]| NewPassage {
        job_id: uuid(&job),
        ordinal,
        name: "notes".to_owned(),
        start_s: 0.0,
        end_s: 0.0,
        text: text.to_owned(),
        vector: Some(("all-MiniLM-L6-v2".to_owned(), vector.to_vec())),
    };
    let passages = [passage(0, "the ship of state", [0.0, 1.0]), passage(1, "a vessel at sea", [1.0, 0.0])];
    let tx = world.parts.store.begin().await.expect("begun");
    let generation = tx.read().active_generation().await.expect("read");
    tx.upsert_passages(generation, &passages).await.expect("written");
    tx.commit().await.expect("committed");
    job
}

fn query(text: &str) -> SearchRequest {
    SearchRequest { query: text.to_owned(), limit: 2 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_goes_by_words_and_meaning() {
    let world = World::new().await;
    let empty = world.search().query(query("ship")).await.expect("an empty archive").into_inner();
    assert_eq!((empty.hits.len(), empty.indexed), (0, 0));
    let mut commands = world.coordinator(true);
    let job = archive(&world).await;
    within("the texts are submitted", commands.recv()).await.expect("a command");

    let found = world.search().query(query("maritime boat")).await.expect("found").into_inner();
    assert_eq!((found.indexed, found.hits[0].text.as_str()), (2, "a vessel at sea"));
    assert_eq!((found.hits[0].job.as_str(), found.hits[0].similarity), (job.id.as_str(), 1.0));
    within("the query is submitted", commands.recv()).await.expect("a command");
    // Asked again, it needs no worker; and the query's job is nothing that a caller looks for.
    world.search().query(query(" maritime boat ")).await.expect("found");
    assert!(commands.try_recv().is_err());
    let listed = world.jobs().list(ListJobsRequest::default()).await.expect("listed").into_inner().jobs;
    let all = JobFilter { state: None, kind: None, caller: None };
    let all = world.parts.store.read().jobs(&all, None, 10).await.expect("read");
    assert_eq!((listed.len(), all.len()), (1, 2));

    for (wrong, field) in [(query(" "), "query"), (SearchRequest { limit: 101, ..query("a") }, "limit")] {
        let status = world.search().query(wrong).await.expect_err(field);
        assert_eq!(status.code(), Grpc::InvalidArgument);
        assert!(status.message().starts_with(field), "{status}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_workers_words_have_to_do() {
    let world = World::new().await;
    let mut commands = world.coordinator(false);
    archive(&world).await;
    let found = world.search().query(query("ship")).await.expect("found").into_inner();
    assert_eq!(found.hits.len(), 1);
    assert_eq!((found.hits[0].text.as_str(), found.hits[0].similarity), ("the ship of state", 0.0));
    // The query's job does not wait for a worker when nobody waits for it.
    for wanted in ["submitted", "submitted", "cancelled"] {
        let command = within(wanted, commands.recv()).await.expect("a command").command.expect("one");
        assert_eq!(matches!(command, What::Cancel(_)), wanted == "cancelled");
    }
    // Nor when its caller does not wait.
    let mut search = world.search();
    let call = tokio::spawn(async move { search.query(query("sea")).await });
    for wanted in ["submitted", "cancelled"] {
        let command = within(wanted, commands.recv()).await.expect("a command").command.expect("one");
        assert_eq!(matches!(command, What::Cancel(_)), wanted == "cancelled");
        call.abort();
    }
    world.stop().await;
}
