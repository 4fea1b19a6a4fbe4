use std::{fs, io::Cursor, path::Path};

use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};

use super::*;

const WIDTH: u32 = 4;
const MELS: u32 = 2;
const WORDS: u32 = 7;
const INNER: u32 = 6;

/// Writes the format as CTranslate2 does, for a Whisper so small that its bytes can be counted.
#[derive(Default)]
struct Writer {
    variables: Vec<(String, Vec<u32>, u8, Vec<u8>)>,
    next: u16,
}

impl Writer {
    fn weight(&mut self, name: &str, shape: &[u32]) {
        let count = shape.iter().product::<u32>();
        // Every element differs, so that a wrong split shows.
        let bytes = (0..count).flat_map(|_| {
            self.next += 1;
            self.next.to_le_bytes()
        });
        let bytes = bytes.collect();
        self.variables.push((name.to_owned(), shape.to_vec(), 4, bytes));
    }

    fn number(&mut self, name: &str, value: i8) {
        self.variables.push((name.to_owned(), Vec::new(), 1, vec![value.cast_unsigned()]));
    }

    fn linear(&mut self, name: &str, rows: u32, columns: u32) {
        self.weight(&format!("{name}/weight"), &[rows, columns]);
        self.weight(&format!("{name}/bias"), &[rows]);
    }

    fn norm(&mut self, name: &str) {
        self.weight(&format!("{name}/gamma"), &[WIDTH]);
        self.weight(&format!("{name}/beta"), &[WIDTH]);
    }

    fn layer(&mut self, name: &str, cross: bool) {
        self.norm(&format!("{name}/self_attention/layer_norm"));
        self.linear(&format!("{name}/self_attention/linear_0"), 3 * WIDTH, WIDTH);
        self.linear(&format!("{name}/self_attention/linear_1"), WIDTH, WIDTH);
        if cross {
            self.norm(&format!("{name}/attention/layer_norm"));
            self.linear(&format!("{name}/attention/linear_0"), WIDTH, WIDTH);
            self.linear(&format!("{name}/attention/linear_1"), 2 * WIDTH, WIDTH);
            self.linear(&format!("{name}/attention/linear_2"), WIDTH, WIDTH);
        }
        self.norm(&format!("{name}/ffn/layer_norm"));
        self.linear(&format!("{name}/ffn/linear_0"), INNER, WIDTH);
        self.linear(&format!("{name}/ffn/linear_1"), WIDTH, INNER);
    }

    fn whisper() -> Self {
        let mut writer = Self::default();
        for side in ["decoder", "encoder"] {
            writer.number(&format!("{side}/num_heads"), 2);
            writer.number(&format!("{side}/activation"), 3);
            writer.norm(&format!("{side}/layer_norm"));
            writer.layer(&format!("{side}/layer_0"), side == "decoder");
        }
        writer.layer("encoder/layer_1", false);
        writer.weight("encoder/conv1/weight", &[WIDTH, MELS, 3]);
        writer.weight("encoder/conv1/bias", &[WIDTH]);
        writer.weight("encoder/conv2/weight", &[WIDTH, WIDTH, 3]);
        writer.weight("encoder/conv2/bias", &[WIDTH]);
        writer.weight("encoder/position_encodings/encodings", &[5, WIDTH]);
        writer.weight("decoder/position_encodings/encodings", &[3, WIDTH]);
        writer.weight("decoder/embeddings/weight", &[WORDS, WIDTH]);
        writer
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = 6_u32.to_le_bytes().to_vec();
        let name = |bytes: &mut Vec<u8>, name: &str| {
            bytes.extend_from_slice(&(name.len() as u16 + 1).to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
        };
        name(&mut bytes, "WhisperSpec");
        bytes.extend_from_slice(&3_u32.to_le_bytes());
        bytes.extend_from_slice(&(self.variables.len() as u32).to_le_bytes());
        for (own, shape, kind, data) in &self.variables {
            name(&mut bytes, own);
            bytes.push(shape.len() as u8);
            shape.iter().for_each(|dim| bytes.extend_from_slice(&dim.to_le_bytes()));
            bytes.push(*kind);
            bytes.extend_from_slice(&(data.len() as u32).to_le_bytes());
            bytes.extend_from_slice(data);
        }
        bytes.extend_from_slice(&1_u32.to_le_bytes());
        name(&mut bytes, "decoder/projection/weight");
        name(&mut bytes, "decoder/embeddings/weight");
        bytes
    }

    fn data(&self, name: &str) -> &[u8] {
        &self.variables.iter().find(|variable| variable.0 == name).expect(name).3
    }

    fn change(&mut self, name: &str, with: impl FnOnce(&mut (String, Vec<u32>, u8, Vec<u8>))) {
        with(self.variables.iter_mut().find(|variable| variable.0 == name).expect(name));
    }
}

fn converted(bytes: &[u8]) -> Result<(Whisper, Vec<u8>), ConvertError> {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("model.bin"), folder.path().join("model.safetensors"));
    fs::write(&from, bytes).expect("written");
    let whisper = convert(Path::new(&from), &to)?;
    Ok((whisper, fs::read(&to).expect("read")))
}

#[test]
fn tensors_get_their_names_and_keep_their_bytes() {
    let writer = Writer::whisper();
    let (whisper, bytes) = converted(&writer.bytes()).expect("converted");
    assert_eq!(
        whisper,
        Whisper {
            width: 4,
            mel_bins: 2,
            vocabulary: 7,
            source_positions: 5,
            target_positions: 3,
            encoder_layers: 2,
            encoder_heads: 2,
            encoder_inner: 6,
            decoder_layers: 1,
            decoder_heads: 2,
            decoder_inner: 6
        }
    );
    let read = SafeTensors::deserialize(&bytes).expect("the reference reader takes it");
    let tensor = |name: &str| read.tensor(name).expect(name);
    assert_eq!(tensor("model.encoder.conv1.weight").shape(), [4, 2, 3]);
    assert_eq!(tensor("model.encoder.conv1.weight").dtype(), Dtype::F16);
    assert_eq!(tensor("model.encoder.conv1.weight").data(), writer.data("encoder/conv1/weight"));

    let joined = writer.data("decoder/layer_0/self_attention/linear_0/weight");
    for (part, name) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
        let tensor = tensor(&format!("model.decoder.layers.0.self_attn.{name}.weight"));
        assert_eq!(tensor.shape(), [4, 4]);
        assert_eq!(tensor.data(), &joined[part * 32..(part + 1) * 32], "{name}");
    }
    let biases = writer.data("decoder/layer_0/attention/linear_1/bias");
    assert_eq!(tensor("model.decoder.layers.0.encoder_attn.v_proj.bias").data(), &biases[8..]);
    assert!(read.tensor("model.decoder.layers.0.encoder_attn.k_proj.bias").is_err(), "k has no bias");
}

#[test]
fn what_is_no_plain_whisper_is_refused_with_its_reason() {
    let check = |says: &str, with: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::whisper();
        with(&mut writer);
        let error = converted(&writer.bytes()).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    };
    check("is missing", &|writer| writer.variables.retain(|variable| variable.0 != "encoder/conv2/bias"));
    check("belongs to no Whisper model", &|writer| writer.weight("decoder/layer_7/extra/weight", &[2, 2]));
    check("activation", &|writer| writer.change("decoder/activation", |variable| variable.3 = vec![0]));
    check("heads", &|writer| writer.change("encoder/num_heads", |variable| variable.3 = vec![3]));
    check("heads", &|writer| writer.change("encoder/num_heads", |variable| variable.3 = vec![0]));
    check("quantised", &|writer| {
        writer.change("encoder/conv2/weight", |variable| (variable.2, variable.3) = (1, vec![0; 48]));
    });
    check("shape", &|writer| writer.change("decoder/layer_norm/beta", |variable| variable.1 = vec![2, 2]));
    check("contradicts", &|writer| writer.change("decoder/layer_norm/beta", |variable| variable.1 = vec![u32::MAX; 4]));
    check("element type", &|writer| writer.change("decoder/layer_norm/beta", |variable| variable.2 = 9));
    check("a second", &|writer| writer.norm("decoder/layer_norm"));
}

#[test]
fn another_version_or_kind_is_refused() {
    let mut bytes = Writer::whisper().bytes();
    bytes[0] = 9;
    assert!(converted(&bytes).expect_err("version").to_string().contains("version 9"));
    bytes[0] = 6;
    bytes[6] = b'X';
    assert!(converted(&bytes).expect_err("kind").to_string().contains("XhisperSpec"));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = Writer::whisper().bytes();
    // The aliases at the end are not needed.
    let weights_end = bytes.len() - (4 + 2 + 26 + 2 + 26);
    for length in 0..weights_end {
        assert!(Index::read(Cursor::new(&bytes[..length]), length as u64).is_err(), "{length}");
    }
    assert!(Index::read(Cursor::new(&bytes), bytes.len() as u64).is_ok());
}

#[test]
fn counts_that_no_file_could_hold_are_refused_before_anything_is_allocated() {
    let mut bytes = Writer::default().bytes();
    let count_at = 4 + 2 + 12 + 4;
    bytes[count_at..count_at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = Index::read(Cursor::new(&bytes), bytes.len() as u64).err().expect("too many");
    assert!(error.to_string().contains("too many"), "{error}");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = Writer::default().bytes()[..18].to_vec();
        bytes.extend_from_slice(&tail);
        let size = bytes.len() as u64;
        if let Ok(index) = Index::read(Cursor::new(&bytes), size) {
            let _ = layout::plan(&index);
        }
    }

    #[test]
    fn no_damage_makes_it_panic_or_read_past_the_end(damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6)) {
        let mut bytes = Writer::whisper().bytes();
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let size = bytes.len() as u64;
        if let Ok(index) = Index::read(Cursor::new(&bytes), size)
            && let Ok((_, copies)) = layout::plan(&index)
        {
            for copy in copies {
                prop_assert!(copy.first + copy.tensor.bytes().unwrap_or(u64::MAX) <= size);
            }
        }
    }
}
