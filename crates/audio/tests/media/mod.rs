//! Recordings made for the tests: a generated voice-like signal, and ffmpeg to put it into every format.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of it")]

use std::{
    f64::consts::TAU,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use warren_audio::{AudioError, DecodeOptions, Decoder};

pub const RATE: u32 = 16_000;

/// Syllables with a gliding pitch and a few overtones, all below 3.4 kHz.
pub fn voice(seconds: f64, rate: u32) -> Vec<f32> {
    let mut phase = 0.0;
    (0..(seconds * f64::from(rate)) as usize)
        .map(|i| {
            let t = i as f64 / f64::from(rate);
            let pitch = 180.0 + 60.0 * (t * 1.7).sin() + 25.0 * (t * 5.3).sin();
            phase += TAU * pitch / f64::from(rate);
            let loudness = 0.05 + 0.25 * (t * 7.1).sin().max(0.0) * (0.6 + 0.4 * (t * 0.9).cos());
            let tones: f64 = (1..=8).map(|n| (phase * f64::from(n)).sin() / f64::from(n)).sum();
            (tones * loudness) as f32
        })
        .collect()
}

/// A plain 16-bit wav; every channel carries the same.
pub fn wav(samples: &[f32], rate: u32, channels: u16) -> Vec<u8> {
    let data = samples.len() as u32 * u32::from(channels) * 2;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + data).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate.to_le_bytes());
    bytes.extend((rate * u32::from(channels) * 2).to_le_bytes());
    bytes.extend((channels * 2).to_le_bytes());
    bytes.extend(b"\x10\0data");
    bytes.extend(data.to_le_bytes());
    for sample in samples {
        for _ in 0..channels {
            bytes.extend(((sample * 32_767.0) as i16).to_le_bytes());
        }
    }
    bytes
}

/// A folder of test media, gone when dropped.
pub struct Media {
    folder: TempDir,
}

impl Media {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// `from`, converted by ffmpeg into a file called `name`.
    pub fn convert(&self, from: &Path, name: &str, arguments: &[&str]) -> PathBuf {
        let to = self.path(name);
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-nostdin", "-y", "-loglevel", "error", "-i"]).arg(from).args(arguments).arg(&to);
        let output = ffmpeg.output().expect("these tests need ffmpeg: install the package `ffmpeg`");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        to
    }
}

pub fn options() -> DecodeOptions {
    DecodeOptions::default()
}

pub fn open(path: &Path) -> Result<Decoder, AudioError> {
    Decoder::open(File::open(path).unwrap(), &options())
}

/// All samples, and what the recording said it was.
pub fn decode(path: &Path) -> Result<(Vec<f32>, String), AudioError> {
    drain(open(path)?)
}

pub fn drain(mut decoder: Decoder) -> Result<(Vec<f32>, String), AudioError> {
    let mut samples = Vec::new();
    while let Some(block) = decoder.next_block()? {
        assert!((1..=warren_audio::BLOCK).contains(&block.len()));
        samples.extend(block);
    }
    assert_eq!(decoder.delivered_samples(), samples.len() as u64);
    Ok((samples, decoder.format().to_string()))
}

/// The best normalised correlation of one second of two recordings when one may lag by up to 0.1 s.
pub fn likeness(a: &[f32], b: &[f32]) -> f64 {
    const LAG: usize = RATE as usize / 10;
    let from = (a.len().min(b.len()) / 2).saturating_sub(RATE as usize / 2).max(LAG);
    let middle = &a[from..from + RATE as usize];
    (0..=2 * LAG)
        .map(|lag| {
            let other = &b[from + lag - LAG..][..RATE as usize];
            dot(middle, other) / (dot(middle, middle) * dot(other, other)).sqrt().max(1e-9)
        })
        .fold(0.0, f64::max)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0f32; 16];
    for (x, y) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    f64::from(lanes.iter().sum::<f32>())
}
