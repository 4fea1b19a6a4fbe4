//! Our encoder and decoder against those of candle-transformers, with random weights.

use std::{collections::HashMap, path::Path};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::whisper::{Config as ReferenceConfig, model::Whisper as Reference};

use super::{
    decoder::{Decoder, Row},
    dimensions::{Config, Dimensions},
    encoder::Encoder,
};
use crate::{Ungated, weights::Weights};

const WIDTH: usize = 64;
const HEADS: usize = 4;
const POSITIONS: usize = 50;
const VOCABULARY: usize = 200;
const TEXT_POSITIONS: usize = 20;
const LAYERS: usize = 2;
const MELS: usize = 80;

/// The reference's GELU is the tanh form, which is up to 5e-4 off the exact one that Whisper was trained with.
const TOLERANCE: f32 = 5e-3;

fn weights() -> HashMap<String, Tensor> {
    let mut weights = HashMap::new();
    let mut put = |name: String, shape: &[usize]| {
        // As a trained model: norms near one, everything else small.
        let norm = name.contains("norm") && name.ends_with("weight");
        let spread = if norm { 0.1 } else { 0.3 / (*shape.last().unwrap() as f32).sqrt() };
        weights.insert(name, Tensor::randn(f32::from(u8::from(norm)), spread, shape, &Device::Cpu).unwrap());
    };
    put("model.encoder.conv1.weight".into(), &[WIDTH, MELS, 3]);
    put("model.encoder.conv2.weight".into(), &[WIDTH, WIDTH, 3]);
    put("model.encoder.conv1.bias".into(), &[WIDTH]);
    put("model.encoder.conv2.bias".into(), &[WIDTH]);
    put("model.decoder.embed_tokens.weight".into(), &[VOCABULARY, WIDTH]);
    put("model.decoder.embed_positions.weight".into(), &[TEXT_POSITIONS, WIDTH]);
    for side in ["encoder", "decoder"] {
        put(format!("model.{side}.layer_norm.weight"), &[WIDTH]);
        put(format!("model.{side}.layer_norm.bias"), &[WIDTH]);
        for layer in 0..LAYERS {
            let name = |part: &str| format!("model.{side}.layers.{layer}.{part}");
            let attentions: &[&str] = if side == "encoder" { &["self_attn"] } else { &["self_attn", "encoder_attn"] };
            for attention in attentions {
                for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                    put(name(&format!("{attention}.{projection}.weight")), &[WIDTH, WIDTH]);
                    if projection != "k_proj" {
                        put(name(&format!("{attention}.{projection}.bias")), &[WIDTH]);
                    }
                }
                put(name(&format!("{attention}_layer_norm.weight")), &[WIDTH]);
                put(name(&format!("{attention}_layer_norm.bias")), &[WIDTH]);
            }
            put(name("fc1.weight"), &[4 * WIDTH, WIDTH]);
            put(name("fc1.bias"), &[4 * WIDTH]);
            put(name("fc2.weight"), &[WIDTH, 4 * WIDTH]);
            put(name("fc2.bias"), &[WIDTH]);
            put(name("final_layer_norm.weight"), &[WIDTH]);
            put(name("final_layer_norm.bias"), &[WIDTH]);
        }
    }
    weights
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
    difference.max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn agrees_with_candle_transformers() {
    let tensors = weights();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = Weights::parse(&bytes, Path::new("model.safetensors"), Device::Cpu, DType::F32).unwrap();
    let config: Config = serde_json::from_value(serde_json::json!({
        "encoder_attention_heads": HEADS, "max_source_positions": POSITIONS, "suppress_ids": [1],
    }))
    .unwrap();
    assert_eq!(config.suppress_tokens, Some(vec![1]));
    let dimensions = Dimensions::of(&file, &config).unwrap();
    assert_eq!((dimensions.encoder_layers, dimensions.decoder_layers, dimensions.mels), (LAYERS, LAYERS, MELS));
    let encoder = Encoder::load(&file, &dimensions).unwrap();
    let decoder = Decoder::load(&file, &dimensions).unwrap();

    let reference = ReferenceConfig {
        num_mel_bins: MELS,
        max_source_positions: POSITIONS,
        d_model: WIDTH,
        encoder_attention_heads: HEADS,
        encoder_layers: LAYERS,
        vocab_size: VOCABULARY,
        max_target_positions: TEXT_POSITIONS,
        decoder_attention_heads: HEADS,
        decoder_layers: LAYERS,
        suppress_tokens: Vec::new(),
    };
    let variables = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let mut reference = Reference::load(&variables, reference).unwrap();

    let mels = [0.0_f32, 0.5].map(|mean| Tensor::randn(mean, 1.0, (MELS, 2 * POSITIONS), &Device::Cpu).unwrap());
    let encoded = mels.each_ref().map(|mel| encoder.forward(mel, &Ungated).unwrap());
    let expected = mels.map(|mel| reference.encoder.forward(&mel.unsqueeze(0).unwrap(), true).unwrap());
    for (ours, theirs) in encoded.iter().zip(&expected) {
        assert_eq!(ours.dims(), [POSITIONS, WIDTH]);
        let worst = worst(ours, &theirs.squeeze(0).unwrap());
        assert!(worst < TOLERANCE, "encoder: {worst}");
    }

    // Two rows decoded together, token by token, against the reference on each whole prefix.
    let said: [[u32; 12]; 2] =
        std::array::from_fn(|row| std::array::from_fn(|i| ((7 + row) * 31 * (i + 1) % 200) as u32));
    let heard = encoded.each_ref().map(|encoded| decoder.hear(encoded).unwrap());
    let mut states = [0, 1].map(|_| decoder.start(TEXT_POSITIONS).unwrap());
    for position in 0..said[0].len() {
        let mut rows: Vec<Row<'_>> = states
            .iter_mut()
            .enumerate()
            .map(|(row, state)| Row { heard: &heard[row], said: state, token: said[row][position] })
            .collect();
        let logits = decoder.logits(&decoder.step(&mut rows).unwrap()).unwrap();
        for (row, logits) in logits.iter().enumerate() {
            let prefix = Tensor::new(&said[row][..=position], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
            let hidden = reference.decoder.forward(&prefix, &expected[row], true).unwrap();
            let last = hidden.narrow(1, position, 1).unwrap();
            let theirs = reference.decoder.final_linear(&last).unwrap().flatten_all().unwrap();
            let worst = worst(&Tensor::new(logits.as_slice(), &Device::Cpu).unwrap(), &theirs);
            assert!(worst < TOLERANCE, "decoder, row {row}, position {position}: {worst}");
        }
    }
}
