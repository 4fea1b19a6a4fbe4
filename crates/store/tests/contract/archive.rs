use uuid::Uuid;
use warren_jobs::JobState;
use warren_store::{EventLevel, Hit, NewEvent, NewJob, NewPassage, StoreError};

use crate::world::World;

const MODEL: &str = "all-MiniLM-L6-v2";
/// Whose the jobs of [`World`] are.
const CALLER: &str = "ada";

fn passage(job_id: Uuid, ordinal: i64, text: &str, vector: Option<[f32; 3]>) -> NewPassage {
    NewPassage {
        job_id,
        ordinal,
        name: "talk.wav".into(),
        start_s: ordinal as f64,
        end_s: ordinal as f64 + 1.0,
        text: text.into(),
        vector: vector.map(|vector| (MODEL.into(), vector.to_vec())),
    }
}

async fn add(world: &World, generation: i64, passages: &[NewPassage]) -> Result<(), StoreError> {
    world.store.write(async |tx| tx.upsert_passages(generation, passages).await).await
}

fn texts(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.passage.text.as_str()).collect()
}

pub(crate) async fn words_and_vectors_find_passages(world: World) {
    let (job, archive) = (world.job().await, world.store.archive());
    assert!(archive.vector_top_k(CALLER, MODEL, &[1.0, 0.0, 0.0], 5).await.unwrap().is_empty());
    assert!(archive.text_top_k(CALLER, "ships", 5).await.unwrap().is_empty());
    let harbour = passage(job, 0, "The ship left the harbour at dawn.", Some([1.0, 0.0, 0.0]));
    let bread = passage(job, 1, "Knead the dough until it is smooth.", Some([0.0, 1.0, 0.0]));
    let words_only = passage(job, 2, "A ship in a bottle, and another ship.", None);
    add(&world, 1, &[harbour.clone(), bread.clone(), words_only.clone()]).await.unwrap();

    let hits = archive.text_top_k(CALLER, "ships of the harbour", 5).await.unwrap();
    assert_eq!(hits[0].passage.text, harbour.text, "two of its words are rare");
    assert!(hits.is_sorted_by(|a, b| a.score >= b.score));
    assert!(texts(&hits).contains(&words_only.text.as_str()), "one word is enough, in another form");
    assert_eq!(texts(&archive.text_top_k(CALLER, "SMOOTH!", 5).await.unwrap()), [&bread.text]);
    assert_eq!(archive.text_top_k(CALLER, "ship", 1).await.unwrap().len(), 1);

    let hits = archive.vector_top_k(CALLER, MODEL, &[0.6, 0.8, 0.0], 5).await.unwrap();
    assert_eq!(texts(&hits), [&bread.text, &harbour.text]);
    assert!((hits[0].score - 0.8).abs() < 1e-6 && (hits[1].score - 0.6).abs() < 1e-6);
    assert_eq!((hits[0].passage.job_id, hits[0].passage.start_s, hits[0].passage.end_s), (job, 1.0, 2.0));

    // Added by another process after this one has read the vectors.
    let other = world.another().await;
    let late = passage(job, 3, "Bread rises overnight.", Some([0.6, 0.8, 0.0]));
    other.write(async |tx| tx.upsert_passages(1, std::slice::from_ref(&late)).await).await.unwrap();
    let hits = archive.vector_top_k(CALLER, MODEL, &[0.6, 0.8, 0.0], 1).await.unwrap();
    assert_eq!(texts(&hits), [&late.text]);
    let stats = archive.stats(CALLER).await.unwrap();
    assert_eq!((stats.generation, stats.passages, stats.vectors), (1, 4, vec![(MODEL.into(), 3, 3)]));
}

pub(crate) async fn what_was_deleted_takes_nobodys_place(world: World) {
    let (old, kept, archive) = (world.job().await, world.job().await, world.store.archive());
    let better: Vec<_> = (0..9).map(|n| passage(old, n, "ship", Some([1.0, 0.0, 0.0]))).collect();
    add(&world, 1, &better).await.unwrap();
    add(&world, 1, &[passage(kept, 0, "harbour", Some([0.6, 0.8, 0.0]))]).await.unwrap();
    let nearest = async || archive.vector_top_k(CALLER, MODEL, &[1.0, 0.0, 0.0], 3).await.unwrap();
    assert_eq!(texts(&nearest().await), ["ship"; 3]);
    let event = NewEvent::new(EventLevel::Info, "job.succeeded", "over");
    let delete = async |tx: &warren_store::Tx| {
        tx.set_job_state(old, JobState::Queued, JobState::Succeeded, &event).await?;
        tx.delete_job(old).await
    };
    assert!(world.store.write(async |tx| delete(&tx).await).await.unwrap());
    assert_eq!(texts(&nearest().await), ["harbour"]);
    assert!(archive.text_top_k(CALLER, "ship", 3).await.unwrap().is_empty());
}

pub(crate) async fn reindexed_passages_replace(world: World) {
    let (job, archive) = (world.job().await, world.store.archive());
    let query = [0.0, 0.0, 1.0];
    add(&world, 1, &[passage(job, 0, "old words", Some([1.0, 0.0, 0.0]))]).await.unwrap();
    assert_eq!(archive.vector_top_k(CALLER, MODEL, &query, 5).await.unwrap()[0].score, 0.0);
    add(&world, 1, &[passage(job, 0, "new speech", Some([0.0, 0.0, 1.0]))]).await.unwrap();
    assert!(archive.text_top_k(CALLER, "old words", 5).await.unwrap().is_empty());
    assert_eq!(archive.text_top_k(CALLER, "speech", 5).await.unwrap().len(), 1);
    let hits = archive.vector_top_k(CALLER, MODEL, &query, 5).await.unwrap();
    assert_eq!((hits.len(), hits[0].score), (1, 1.0));

    add(&world, 2, &[passage(job, 0, "third words", Some([0.0, 0.0, -1.0]))]).await.unwrap();
    assert!(archive.text_top_k(CALLER, "third", 5).await.unwrap().is_empty(), "not active");
    assert_eq!(archive.vector_top_k(CALLER, MODEL, &query, 5).await.unwrap()[0].score, 1.0);
}

pub(crate) async fn a_small_caller_is_not_crowded_out(world: World) {
    let (crowd, archive) = (world.job().await, world.store.archive());
    let small = world.submit(NewJob { caller: "bob".into(), ..world.new_job() }).await;
    // Every one of the crowd's passages is a better match, by words and by meaning.
    let better: Vec<_> = (0..50).map(|n| passage(crowd, n, "ship ship ship", Some([1.0, 0.0, 0.0]))).collect();
    add(&world, 1, &better).await.unwrap();
    let own = passage(small, 0, "One ship passed the old harbour on its way to the sea.", Some([0.6, 0.8, 0.0]));
    add(&world, 1, std::slice::from_ref(&own)).await.unwrap();

    for _ in 0..2 {
        let by_words = archive.text_top_k("bob", "ship", 3).await.unwrap();
        let by_meaning = archive.vector_top_k("bob", MODEL, &[1.0, 0.0, 0.0], 3).await.unwrap();
        assert_eq!((texts(&by_words), texts(&by_meaning)), (vec![own.text.as_str()], vec![own.text.as_str()]));
    }
    assert_eq!(archive.text_top_k(CALLER, "ship", 3).await.unwrap().len(), 3);
    let stats = archive.stats("bob").await.unwrap();
    assert_eq!((stats.passages, stats.vectors), (1, vec![(MODEL.into(), 3, 1)]));
    let nobody = archive.stats("eve").await.unwrap();
    assert_eq!((nobody.passages, nobody.vectors.len()), (0, 0));
    assert!(archive.vector_top_k("eve", MODEL, &[1.0, 0.0, 0.0], 3).await.unwrap().is_empty());
}

pub(crate) async fn vectors_of_another_model_or_dimension_are_refused(world: World) {
    let (job, archive) = (world.job().await, world.store.archive());
    add(&world, 1, &[passage(job, 0, "a", Some([1.0, 0.0, 0.0]))]).await.unwrap();
    let mut shorter = passage(job, 1, "b", None);
    shorter.vector = Some((MODEL.into(), vec![1.0, 0.0]));
    let refused = [
        add(&world, 1, &[shorter]).await.unwrap_err(),
        archive.vector_top_k(CALLER, MODEL, &[1.0, 0.0], 5).await.unwrap_err(),
        archive.vector_top_k(CALLER, "another", &[1.0, 0.0, 0.0], 5).await.unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, StoreError::Mismatch { .. }), "{error}");
        assert!(error.to_string().contains("all-MiniLM-L6-v2 (3 dimensions)"), "{error}");
    }
    assert_eq!(archive.stats(CALLER).await.unwrap().passages, 1);
}

pub(crate) async fn hostile_queries_find_something_or_nothing_but_never_fail(world: World) {
    let job = world.job().await;
    add(&world, 1, &[passage(job, 0, "it's a \"quoted\" word: NEAR text, Straße, 北京", None)]).await.unwrap();
    let archive = world.store.archive();
    let long = "\"*^~ ".repeat(5_000);
    for query in [
        "",
        " ",
        "\"",
        "'",
        "\\",
        "''''",
        "\"\"\"",
        "*",
        "a*",
        "^a",
        "-a",
        "NOT",
        "AND OR NOT",
        "NEAR(",
        "NEAR(a b, 2)",
        "text:word",
        "{text}:x",
        "(((",
        ")",
        "a AND",
        "a | ",
        "!",
        "!!!",
        "a & !b",
        "<->",
        "a <-> b",
        ":*",
        "a:ABCD",
        "\0",
        "a\0b",
        "%",
        "_",
        ";DROP TABLE passage",
        "'; --",
        "½ ² ™",
        "🦀",
        "\u{202e}txt",
        "ﬁ",
        long.as_str(),
    ] {
        archive.text_top_k(CALLER, query, 10).await.unwrap_or_else(|error| panic!("{query:?}: {error}"));
    }
    for query in ["quoted", "it's quoted", "NEAR", "straße", "\"word\" -nothing", "北京"] {
        assert_eq!(archive.text_top_k(CALLER, query, 10).await.unwrap().len(), 1, "{query}");
    }
}
