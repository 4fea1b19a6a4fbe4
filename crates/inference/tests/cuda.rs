//! The same models on a CUDA card, against the processor as the reference.
//!
//! Needs the feature `cuda` and a card; `./warren test cuda` builds and runs it where both are to be had.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use candle_core::Tensor;
use warren_fault::Code;
use warren_inference::{
    Device, Embedder, EmbedderOptions, MAX_BEAM_SIZE, Memory, Probe, SpeechOptions, SpeechOutput, Ungated, Whisper,
    WhisperOptions,
};

const CARD: Device = Device::Cuda(0);
/// What the driver may keep for itself between two looks at the card.
const DRIVER_BYTES: u64 = 64 << 20;

/// One test at a time: they measure what is left on the card.
fn card() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(probe: &Probe) -> Memory {
    probe.look().expect("the driver tells how much memory is left")
}

fn embedder(device: Device) -> Embedder {
    Embedder::open(&support::model("all-MiniLM-L6-v2"), device, EmbedderOptions::default()).unwrap()
}

fn whisper(name: &str, device: Device) -> Whisper {
    Whisper::open(&support::model(name), device, WhisperOptions::default()).unwrap()
}

fn run(model: &Whisper, windows: &[&[f32]], options: &SpeechOptions) -> SpeechOutput {
    model.transcribe(windows, options, &Ungated, &|_| ()).unwrap()
}

fn said(output: &SpeechOutput, window: usize) -> Vec<String> {
    let texts: Vec<_> = output.windows[window].iter().map(|segment| segment.text.as_str()).collect();
    support::words(&texts.join(" "))
}

#[test]
fn vectors_mean_the_same_as_the_processor_s() {
    let _one = card();
    let texts: Vec<String> = (0..200)
        .map(|i| format!("Report {i}: {}the tide came in at {}.", "the wind was light and ".repeat(i % 40), i % 24))
        .collect();
    let here = embedder(Device::Cpu).embed(&texts, &Ungated).unwrap();
    let there = embedder(CARD).embed(&texts, &Ungated).unwrap();
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    // Unlike `f64::min`, this keeps what is no number.
    let worst = here.iter().zip(&there).map(|(a, b)| cosine(a, b)).fold(1.0, |a, b| if b > a { a } else { b });
    println!("worst cosine of {} texts: {worst:.6}", texts.len());
    assert!(worst > 0.9999, "{worst}");
}

#[test]
fn a_voice_is_written_down_as_on_the_processor() {
    let _one = card();
    let voice = support::inaugural();
    let (counting, _) = support::clip("en/counting");
    let silence = vec![0.0; 32_000];
    let windows: [&[f32]; 3] = [&voice, &silence, &counting];
    let (here, there) = (whisper("tiny.en", Device::Cpu), whisper("tiny.en", CARD));
    for beam_size in [1, 5] {
        let options = SpeechOptions { beam_size, ..SpeechOptions::default() };
        let (expected, output) = (run(&here, &windows, &options), run(&there, &windows, &options));
        assert_eq!(said(&output, 0), said(&expected, 0), "{beam_size} hypotheses");
        assert_eq!(said(&output, 2), said(&expected, 2), "{beam_size} hypotheses");
        assert_eq!(output.windows[1], [], "silence");
        for (a, b) in output.windows[0].iter().zip(&expected.windows[0]) {
            assert!((a.avg_logprob - b.avg_logprob).abs() < 0.02, "{a:?}, and on the processor {b:?}");
            assert!((a.end - b.end).abs() < 0.1, "{a:?}, and on the processor {b:?}");
        }
    }
}

#[test]
fn languages_are_told_and_translated() {
    let _one = card();
    let model = whisper("base", CARD);
    for (name, language) in [("fr/comptage", "fr"), ("ja/konnichiwa_sekai", "ja"), ("en/quick_brown_fox", "en")] {
        let (samples, _) = support::clip(name);
        let output = run(&model, &[&samples], &SpeechOptions::default());
        assert_eq!(output.language, language, "{name}");
        assert!(!output.windows[0].is_empty(), "{name}");
    }
    let (samples, _) = support::clip("es/conteo");
    let english = said(&run(&model, &[&samples], &SpeechOptions { translate: true, ..SpeechOptions::default() }), 0);
    assert!(english.iter().any(|word| ["one", "two", "1", "2"].contains(&word.as_str())), "{english:?}");
}

#[test]
fn a_model_takes_no_more_than_it_said_and_leaves_nothing_behind() {
    let _one = card();
    let probe = Probe::open(CARD).unwrap();
    // The driver's own libraries load with the first work.
    embedder(CARD).embed(&["warm".to_owned()], &Ungated).unwrap();
    let before = look(&probe);
    assert!(before.free > 0 && before.free <= before.total, "{before:?}");

    let voice = support::inaugural();
    for name in ["tiny.en", "base"] {
        let model = whisper(name, CARD);
        let loaded = before.free.saturating_sub(look(&probe).free);
        let (watched, done) = (AtomicU64::new(before.free), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    watched.fetch_min(look(&probe).free, Ordering::SeqCst);
                }
            });
            for beam_size in [1, MAX_BEAM_SIZE] {
                run(&model, &[voice.as_slice(); 8], &SpeechOptions { beam_size, ..SpeechOptions::default() });
            }
            done.store(true, Ordering::SeqCst);
        });
        let peak = before.free - watched.into_inner();
        println!(
            "{name} says {} MiB; {} MiB when loaded, {} MiB at most",
            model.memory_estimate() >> 20,
            loaded >> 20,
            peak >> 20
        );
        assert!(loaded > 60 << 20, "its weights lie on the card: {loaded} bytes");
        assert!(peak <= model.memory_estimate(), "{peak} > {}", model.memory_estimate());

        drop(model);
        let left = before.free.saturating_sub(look(&probe).free);
        println!("{} MiB left behind", left >> 20);
        assert!(left <= DRIVER_BYTES, "{left} bytes are not given back");
    }
}

#[test]
fn a_full_card_is_told_from_a_defect_and_work_goes_on_once_there_is_room() {
    let _one = card();
    let probe = Probe::open(CARD).unwrap();
    let model = embedder(CARD);
    let texts = vec!["many words ".repeat(120); 16];
    let expected = model.embed(&texts, &Ungated).unwrap();

    let device = candle_core::Device::new_cuda(0).unwrap();
    let mut hoard = Vec::new();
    for chunk in [1 << 30, 64 << 20, 1 << 20] {
        while let Ok(block) = Tensor::zeros(chunk, candle_core::DType::U8, &device) {
            hoard.push(block);
        }
    }
    assert!(look(&probe).free < 64 << 20, "{:?}", look(&probe));
    let error = model.embed(&texts, &Ungated).unwrap_err();
    assert_eq!(error.code(), Code::OutOfMemory, "{error}");
    let options = WhisperOptions::default();
    let error = Whisper::open(&support::model("tiny.en"), CARD, options).err().expect("no room for it");
    assert_eq!(error.code(), Code::OutOfMemory, "{error}");

    drop(hoard);
    assert_eq!(model.embed(&texts, &Ungated).unwrap(), expected, "to the last bit");
}
