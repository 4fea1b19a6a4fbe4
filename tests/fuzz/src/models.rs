//! Weights and what describes them.

use std::{cell::OnceCell, fs, path::Path};

use tempfile::TempDir;
use warren_inference::{Device, Embedder, EmbedderOptions, InferenceError, Whisper, WhisperOptions};
use warren_models::testing;

/// `model.bin` of CTranslate2.
pub fn ctranslate2_model(data: &[u8]) {
    in_folder(|folder| {
        fs::write(folder.join("model.bin"), data).expect("written");
        fs::write(folder.join("config.json"), br#"{"suppress_ids":[1],"alignment_heads":[[0,1]]}"#).expect("written");
        let weights = folder.join("model.safetensors");
        match testing::converted(folder) {
            Ok(()) => {
                assert!(fs::metadata(&weights).expect("there").len() <= 2 * data.len() as u64 + 65_536);
                assert!(!testing::tensors(&weights).expect("what is written is read").is_empty());
            }
            Err(why) => assert!(why.starts_with("model.bin: ") && why.len() < 2_000, "{why:.300}"),
        }
    });
}

/// A safetensors file, before a model is published.
pub fn safetensors_header(data: &[u8]) {
    in_folder(|folder| {
        let file = folder.join("model.safetensors");
        fs::write(&file, data).expect("written");
        match testing::tensors(&file) {
            Ok(names) => assert!(names.len() <= data.len()),
            Err(why) => assert!(!why.is_empty()),
        }
    });
}

/// A Whisper model: the length of `config.json` in two bytes, that file, and the weights.
pub fn whisper_model(data: &[u8]) {
    loaded(data, SPEECH_TOKENS, |[weights, config, tokenizer]| {
        let options = WhisperOptions { threads: Some(1), ..WhisperOptions::default() };
        let whisper = Whisper::load(weights, config, tokenizer, Device::Cpu, options)?;
        assert!(whisper.memory_estimate() > 0 && !whisper.languages().is_empty());
        Ok(())
    });
}

/// An encoder of texts, in the same form.
pub fn embedding_model(data: &[u8]) {
    loaded(data, TEXT_TOKENS, |[weights, config, tokenizer]| {
        let options = EmbedderOptions { threads: Some(1), ..EmbedderOptions::default() };
        let embedder = Embedder::load(weights, config, tokenizer, Device::Cpu, options)?;
        assert!(embedder.memory_estimate() > 0 && embedder.dimensions() > 0);
        Ok(())
    });
}

fn loaded(data: &[u8], tokens: &str, load: impl Fn([&Path; 3]) -> Result<(), InferenceError>) {
    let [high, low, rest @ ..] = data else { return };
    let Some((config, weights)) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))) else { return };
    in_folder(|folder| {
        let files = ["model.safetensors", "config.json", "tokenizer.json"].map(|name| folder.join(name));
        for (file, content) in files.iter().zip([weights, config, tokens.as_bytes()]) {
            fs::write(file, content).expect("written");
        }
        match load(files.each_ref().map(|file| file.as_path())) {
            Ok(()) => {}
            Err(error @ InferenceError::ModelCorrupt { .. }) => {
                let message = error.to_string();
                assert!(message.contains(".safetensors") || message.contains(".json"), "{message:.300}");
            }
            Err(error) => panic!("a wrong file is to be named: {error}"),
        }
    });
}

fn in_folder(work: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
    }
    FOLDER.with(|folder| work(folder.get_or_init(|| tempfile::tempdir().expect("a folder")).path()));
}

macro_rules! tokenizer {
    ($($vocabulary:literal),+) => {
        concat!(
            r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"#,
            r#""pre_tokenizer":null,"post_processor":null,"decoder":null,"#,
            r#""model":{"type":"WordLevel","unk_token":"a","vocab":"#,
            $($vocabulary,)+
            "}}"
        )
    };
}

const SPEECH_TOKENS: &str = tokenizer!(
    r#"{"a":0,"<|endoftext|>":1,"<|startoftranscript|>":2,"<|translate|>":3,"<|transcribe|>":4,"#,
    r#""<|nospeech|>":5,"<|notimestamps|>":6}"#
);
const TEXT_TOKENS: &str = tokenizer!(r#"{"a":0,"b":1}"#);

const WIDTH: u32 = 4;
const INNER: u32 = 6;

/// The smallest Whisper, as CTranslate2 writes it.
pub fn ctranslate2() -> Vec<Vec<u8>> {
    let mut variables: Vec<(String, Vec<u32>)> = Vec::new();
    let mut add = |name: String, shape: &[u32]| variables.push((name, shape.to_vec()));
    for side in ["decoder", "encoder"] {
        for norm in ["layer_norm", "layer_0/self_attention/layer_norm", "layer_0/ffn/layer_norm"] {
            add(format!("{side}/{norm}/gamma"), &[WIDTH]);
            add(format!("{side}/{norm}/beta"), &[WIDTH]);
        }
        for (linear, rows, columns) in [
            ("self_attention/linear_0", 3 * WIDTH, WIDTH),
            ("self_attention/linear_1", WIDTH, WIDTH),
            ("ffn/linear_0", INNER, WIDTH),
            ("ffn/linear_1", WIDTH, INNER),
        ] {
            add(format!("{side}/layer_0/{linear}/weight"), &[rows, columns]);
            add(format!("{side}/layer_0/{linear}/bias"), &[rows]);
        }
    }
    add("decoder/layer_0/attention/layer_norm/gamma".to_owned(), &[WIDTH]);
    add("decoder/layer_0/attention/layer_norm/beta".to_owned(), &[WIDTH]);
    for (linear, rows) in [("linear_0", WIDTH), ("linear_1", 2 * WIDTH), ("linear_2", WIDTH)] {
        add(format!("decoder/layer_0/attention/{linear}/weight"), &[rows, WIDTH]);
        add(format!("decoder/layer_0/attention/{linear}/bias"), &[rows]);
    }
    for (conv, inputs) in [("conv1", 2), ("conv2", WIDTH)] {
        add(format!("encoder/{conv}/weight"), &[WIDTH, inputs, 3]);
        add(format!("encoder/{conv}/bias"), &[WIDTH]);
    }
    add("encoder/position_encodings/encodings".to_owned(), &[5, WIDTH]);
    add("decoder/position_encodings/encodings".to_owned(), &[3, WIDTH]);
    add("decoder/embeddings/weight".to_owned(), &[9, WIDTH]);

    let mut bytes = 6_u32.to_le_bytes().to_vec();
    let name = |bytes: &mut Vec<u8>, name: &str| {
        bytes.extend((name.len() as u16 + 1).to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.push(0);
    };
    name(&mut bytes, "WhisperSpec");
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend((variables.len() as u32 + 2).to_le_bytes());
    for side in ["decoder", "encoder"] {
        name(&mut bytes, &format!("{side}/num_heads"));
        // No dimensions, a whole number of one byte: 2.
        bytes.extend([0, 1, 1, 0, 0, 0, 2]);
    }
    for (own, shape) in &variables {
        name(&mut bytes, own);
        bytes.push(shape.len() as u8);
        bytes.extend(shape.iter().flat_map(|dim| dim.to_le_bytes()));
        let size = shape.iter().product::<u32>() * 2;
        // Half-precision numbers.
        bytes.push(4);
        bytes.extend(size.to_le_bytes());
        bytes.extend((0..size).map(|at| at as u8));
    }
    bytes.extend(0_u32.to_le_bytes());
    vec![bytes]
}

/// The same model after conversion.
pub fn whispers() -> Vec<Vec<u8>> {
    let config = concat!(
        r#"{"encoder_attention_heads":2,"max_source_positions":5,"#,
        r#""suppress_tokens":[0,-1],"begin_suppress_tokens":[1]}"#
    );
    vec![described(config, &converted())]
}

/// The weights alone.
pub fn weights() -> Vec<Vec<u8>> {
    vec![converted(), bert()]
}

fn converted() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("model.bin"), ctranslate2().swap_remove(0)).expect("written");
    fs::write(folder.path().join("config.json"), "{}").expect("written");
    testing::converted(folder.path()).expect("a whole model");
    fs::read(folder.path().join("model.safetensors")).expect("written")
}

/// The smallest encoder.
pub fn berts() -> Vec<Vec<u8>> {
    let config = concat!(
        r#"{"vocab_size":2,"hidden_size":4,"num_hidden_layers":1,"num_attention_heads":2,"intermediate_size":6,"#,
        r#""hidden_act":"gelu","hidden_dropout_prob":0.1,"max_position_embeddings":8,"type_vocab_size":1,"#,
        r#""initializer_range":0.02,"layer_norm_eps":1e-12,"pad_token_id":0,"model_type":"bert"}"#
    );
    vec![described(config, &bert())]
}

fn described(config: &str, weights: &[u8]) -> Vec<u8> {
    [&(config.len() as u16).to_be_bytes()[..], config.as_bytes(), weights].concat()
}

fn bert() -> Vec<u8> {
    let mut tensors: Vec<(String, Vec<u32>)> = Vec::new();
    for (table, rows) in [("word", 2), ("position", 8), ("token_type", 1)] {
        tensors.push((format!("embeddings.{table}_embeddings.weight"), vec![rows, WIDTH]));
    }
    let layer = "encoder.layer.0";
    for norm in ["embeddings", &format!("{layer}.attention.output"), &format!("{layer}.output")] {
        for part in ["weight", "bias"] {
            tensors.push((format!("{norm}.LayerNorm.{part}"), vec![WIDTH]));
        }
    }
    for (linear, rows, columns) in [
        ("attention.self.query", WIDTH, WIDTH),
        ("attention.self.key", WIDTH, WIDTH),
        ("attention.self.value", WIDTH, WIDTH),
        ("attention.output.dense", WIDTH, WIDTH),
        ("intermediate.dense", INNER, WIDTH),
        ("output.dense", WIDTH, INNER),
    ] {
        tensors.push((format!("{layer}.{linear}.weight"), vec![rows, columns]));
        tensors.push((format!("{layer}.{linear}.bias"), vec![rows]));
    }
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, shape) in &tensors {
        let end = at + shape.iter().product::<u32>() * 4;
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] });
        header.insert(name.clone(), entry);
        at = end;
    }
    let header = serde_json::Value::Object(header).to_string().into_bytes();
    let data = (0..at / 4).flat_map(|value| (value as f32).to_le_bytes());
    [&(header.len() as u64).to_le_bytes()[..], &header].concat().into_iter().chain(data).collect()
}
