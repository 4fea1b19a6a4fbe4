//! Text vectors with real weights.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use warren_fault::Code;
use warren_inference::{Device, Embedder, EmbedderOptions, Gate, Interrupted, Ungated};

fn embedder() -> &'static Embedder {
    static MODEL: OnceLock<Embedder> = OnceLock::new();
    MODEL.get_or_init(|| {
        Embedder::open(&support::model("all-MiniLM-L6-v2"), Device::Cpu, EmbedderOptions::default()).unwrap()
    })
}

fn embed(texts: &[&str]) -> Vec<Vec<f32>> {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    embedder().embed(&texts, &Ungated).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn like_meanings_lie_close_and_unlike_ones_apart() {
    let vectors = embed(&[
        "A man is eating food.",
        "Somebody is having a meal.",
        "The stock market fell sharply on Monday.",
        "Share prices dropped at the start of the week.",
    ]);
    assert!(vectors.iter().all(|vector| vector.len() == embedder().dimensions()));
    let near = [cosine(&vectors[0], &vectors[1]), cosine(&vectors[2], &vectors[3])];
    let far = [cosine(&vectors[0], &vectors[2]), cosine(&vectors[1], &vectors[3])];
    assert!(near.iter().all(|c| *c > 0.5), "{near:?}");
    assert!(far.iter().all(|c| *c < 0.2), "{far:?}");
}

#[test]
fn vectors_have_length_one() {
    for vector in embed(&["a", "Two words.", &"many words ".repeat(700)]) {
        let norm: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        assert!((norm - 1.0).abs() < 1e-6, "{norm}");
    }
}

#[test]
fn a_text_in_a_padded_batch_agrees_with_itself_alone() {
    let long = "It was the best of times, it was the worst of times. ".repeat(8);
    let texts = ["Short.", "A somewhat longer sentence about nothing much.", &long, "Überraschung: 北京, naïve café"];
    for (together, text) in embed(&texts).iter().zip(texts) {
        let alone = &embed(&[text])[0];
        let worst = together.iter().zip(alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{text}: {worst}");
    }
}

#[test]
fn order_is_kept_and_batches_respect_the_budget() {
    struct Count(AtomicUsize);
    impl Gate for Count {
        fn enter(&self, step: &'static str) -> Result<(), Interrupted> {
            assert_eq!(step, "embed");
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        fn leave(&self, _: &'static str) {}
    }

    let texts: Vec<String> = (0..40).map(|i| format!("Number {i}{}", " and so on".repeat(i % 11))).collect();
    let small = EmbedderOptions { max_batch_tokens: 256, ..EmbedderOptions::default() };
    let small = Embedder::open(&support::model("all-MiniLM-L6-v2"), Device::Cpu, small).unwrap();
    assert!(small.memory_estimate() < embedder().memory_estimate());
    let (count, one) = (Count(0.into()), Count(0.into()));
    let batched = small.embed(&texts, &count).unwrap();
    let at_once = embedder().embed(&texts, &one).unwrap();
    assert_eq!(one.0.into_inner(), 1);
    assert!(count.0.into_inner() >= 3);
    for (index, (a, b)) in batched.iter().zip(&at_once).enumerate() {
        assert!(cosine(a, b) > 0.99999, "text {index}");
    }
}

#[test]
fn the_end_of_a_long_text_counts() {
    let start = "The committee discussed the budget for the coming year. ".repeat(40);
    let vectors = embed(&[&start, &format!("{start}{}", "Penguins swim under the ice to catch fish. ".repeat(40))]);
    let penguin = &embed(&["Penguins catch fish under the ice."])[0];
    assert!(cosine(&vectors[1], penguin) > cosine(&vectors[0], penguin) + 0.2);
}

#[test]
fn an_empty_text_is_refused_by_its_index() {
    let texts = ["fine".to_owned(), " \n".to_owned()];
    let error = embedder().embed(&texts, &Ungated).unwrap_err();
    assert_eq!(error.code(), Code::InputInvalid);
    assert!(error.to_string().contains("text 1"), "{error}");
    assert!(embedder().embed(&[], &Ungated).unwrap().is_empty());
}
