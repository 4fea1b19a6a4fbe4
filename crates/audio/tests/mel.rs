//! The log-mel spectrum against values made with OpenAI's own filters; `fixtures/mel_reference.py` says how.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::f64::consts::PI;

use warren_audio::{MEL_FRAMES, MelSpectrogram, SAMPLE_RATE};

const STRIDE: usize = 37;

fn log_mel(samples: &[f32], n_mels: usize) -> Vec<f32> {
    MelSpectrogram::new(n_mels).compute(samples)
}

/// The signal of `fixtures/mel_reference.py`.
fn signal(count: usize) -> Vec<f32> {
    let rate = f64::from(SAMPLE_RATE);
    let mut state = 12_345u32;
    (0..count)
        .map(|i| {
            let t = i as f64 / rate;
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f64::from(state) / 4_294_967_296.0 - 0.5;
            if (3.0..4.0).contains(&t) {
                return 0.0;
            }
            let chirp = 0.4 * (2.0 * PI * (100.0 * t + 60.0 * t * t)).sin();
            let tone = 0.2 * (2.0 * PI * 1234.5 * t).sin();
            (chirp + tone + 0.02 * noise) as f32
        })
        .collect()
}

fn agrees(bytes: &[u8], n_mels: usize, count: usize) {
    let wanted = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let values = log_mel(&signal(count), n_mels);
    assert_eq!(values.len(), n_mels * MEL_FRAMES);
    assert_eq!(bytes.len() / 4, values.len().div_ceil(STRIDE));
    let worst = values.iter().step_by(STRIDE).zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("worst difference {worst:e}");
    assert!(worst < 1e-4, "off by {worst}");
}

#[test]
fn eighty_bands_agree_with_whisper() {
    agrees(include_bytes!("fixtures/mel_80_short.f32"), 80, 84_321);
}

#[test]
fn a_hundred_and_twenty_eight_bands_agree_with_whisper() {
    agrees(include_bytes!("fixtures/mel_128_short.f32"), 128, 84_321);
}

#[test]
fn a_full_window_agrees_up_to_its_mirrored_end() {
    agrees(include_bytes!("fixtures/mel_80_full.f32"), 80, 480_000);
}

#[test]
fn one_plan_serves_many_windows() {
    let (plan, long) = (MelSpectrogram::new(80), signal(200_000));
    let first = plan.compute(&long);
    plan.compute(&signal(1234));
    assert_eq!(plan.compute(&long), first);
    assert_eq!(plan.n_mels(), 80);
}

#[test]
fn silence_and_too_much_are_no_trouble() {
    let silent = log_mel(&[], 80);
    assert!(silent.iter().all(|value| *value == -1.5), "log10(1e-10) scaled");
    assert_eq!(log_mel(&[0.0; 16_000], 80), silent);
    let long = signal(500_000);
    assert_eq!(log_mel(&long, 80), log_mel(&long[..480_000], 80));
}
