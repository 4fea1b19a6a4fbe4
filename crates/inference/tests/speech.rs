//! Whisper with real weights on real speech.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{
    Mutex, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use warren_fault::Code;
use warren_inference::{
    Device, Gate, InferenceError, Interrupted, SpeechOptions, SpeechOutput, Ungated, Whisper, WhisperOptions,
};

const INAUGURAL: &str = "And so, my fellow Americans, ask not what your country can do for you, ask what you can do \
                         for your country.";

fn tiny() -> &'static Whisper {
    static MODEL: OnceLock<Whisper> = OnceLock::new();
    MODEL.get_or_init(|| Whisper::open(&support::model("tiny.en"), Device::Cpu, WhisperOptions::default()).unwrap())
}

fn base() -> &'static Whisper {
    static MODEL: OnceLock<Whisper> = OnceLock::new();
    MODEL.get_or_init(|| Whisper::open(&support::model("base"), Device::Cpu, WhisperOptions::default()).unwrap())
}

fn text(output: &SpeechOutput, window: usize) -> String {
    output.windows[window].iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(" ")
}

fn run(model: &Whisper, windows: &[&[f32]], options: &SpeechOptions) -> SpeechOutput {
    model.transcribe(windows, options, &Ungated, &|_| ()).unwrap()
}

#[test]
fn a_human_voice_is_written_down_word_for_word() {
    let samples = support::inaugural();
    let seconds = samples.len() as f64 / 16_000.0;
    let heard = Mutex::new(Vec::new());
    let output = tiny()
        .transcribe(&[&samples], &SpeechOptions::default(), &Ungated, &|seconds| heard.lock().unwrap().push(seconds))
        .unwrap();

    assert_eq!(support::words(&text(&output, 0)), support::words(INAUGURAL));
    assert_eq!((output.language.as_str(), output.language_probability), ("en", 1.0));
    let mut before = 0.0;
    for segment in &output.windows[0] {
        assert!(before <= segment.start && segment.start < segment.end && segment.end <= seconds, "{segment:?}");
        assert!(segment.avg_logprob > -0.5 && segment.no_speech_prob < 0.2, "{segment:?}");
        assert!(segment.compression_ratio < 2.4 && segment.temperature == 0.0, "{segment:?}");
        before = segment.end;
    }
    let heard = heard.into_inner().unwrap();
    assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "progress fell: {heard:?}");
    assert!((heard.last().unwrap() - seconds).abs() < 1e-6, "{heard:?}");
}

#[test]
fn a_window_s_text_does_not_depend_on_its_company() {
    let voice = support::inaugural();
    let (counting, _) = support::clip("en/counting");
    let silence = vec![0.0; 32_000];
    let windows: [&[f32]; 5] = [&voice[..60_000], &counting, &voice, &silence, &voice[50_000..]];
    let together = run(tiny(), &windows, &SpeechOptions::default());
    let alone = run(tiny(), &[&voice], &SpeechOptions::default());
    assert_eq!(alone.windows[0], together.windows[2], "to the last bit");
    // Groups of one: the memory allowed for a batch changes nothing either.
    let options = WhisperOptions { batch_memory: 1, threads: Some(1) };
    let narrow = Whisper::open(&support::model("tiny.en"), Device::Cpu, options).unwrap();
    assert!(narrow.memory_estimate() < tiny().memory_estimate());
    assert_eq!(run(&narrow, &windows, &SpeechOptions::default()), together);
}

#[test]
fn nothing_is_invented_where_nobody_speaks() {
    let silence = vec![0.0; 10 * 16_000];
    let noise = support::in_noise(&[0.0; 5 * 16_000], 1e-3);
    let gate = ShutAfter::new(1000);
    let output = tiny().transcribe(&[&silence, &noise, &[]], &SpeechOptions::default(), &gate, &|_| ()).unwrap();
    assert_eq!(output.windows, vec![Vec::new(); 3]);
    let encoded = gate.steps.into_inner().unwrap().iter().filter(|step| **step == "encode").count();
    assert_eq!(encoded, 1, "digital silence costs nothing");
}

#[test]
fn the_language_is_detected_and_can_be_translated() {
    for (name, language) in [("fr/comptage", "fr"), ("ja/konnichiwa_sekai", "ja"), ("en/quick_brown_fox", "en")] {
        let (samples, said) = support::clip(name);
        let silence = vec![0.0; 16_000];
        let output = run(base(), &[&silence, &samples], &SpeechOptions::default());
        assert_eq!(output.language, language, "{name}");
        assert!(output.language_probability > 0.5 && output.language_probability <= 1.0, "{name}");
        assert!(!text(&output, 1).is_empty(), "{name}: {said}");
        // Given instead of detected, the text is the same.
        let options = SpeechOptions { language: Some(language.into()), ..SpeechOptions::default() };
        let given = run(base(), &[&silence, &samples], &options);
        assert_eq!((given.windows, given.language_probability), (output.windows, 1.0), "{name}");
    }

    let (samples, _) = support::clip("es/conteo");
    let options = SpeechOptions { translate: true, ..SpeechOptions::default() };
    let english = support::words(&text(&run(base(), &[&samples], &options), 0));
    let numbers = ["one", "two", "three", "four", "five", "1", "2", "3", "4", "5"];
    let found = english.iter().filter(|word| numbers.contains(&word.as_str())).count();
    assert!(found >= 4, "{english:?}");
}

#[test]
fn several_hypotheses_find_a_likelier_text_whatever_their_company() {
    let voice = support::inaugural();
    let (fox, _) = support::clip("en/quick_brown_fox");
    let windows: [&[f32]; 3] = [&voice, &fox, &voice[60_000..]];
    let five = SpeechOptions { beam_size: 5, ..SpeechOptions::default() };
    let (greedy, best) = (run(tiny(), &windows, &SpeechOptions::default()), run(tiny(), &windows, &five));
    assert_eq!(support::words(&text(&best, 0)), support::words(INAUGURAL));
    let likely = |output: &SpeechOutput| output.windows.iter().flatten().map(|s| s.avg_logprob).sum::<f32>();
    assert!(likely(&best) >= likely(&greedy), "{} < {}", likely(&best), likely(&greedy));
    assert_eq!(run(tiny(), &[&fox], &five).windows[0], best.windows[1], "to the last bit");
    let one = SpeechOptions { beam_size: 1, single_pass: true, ..SpeechOptions::default() };
    assert_eq!(run(tiny(), &windows, &one), greedy, "where the first pass is good, it is the last");
}

#[test]
fn what_is_poor_is_tried_again_unless_one_pass_is_all_that_is_wanted() {
    // Speech so far under noise that the first pass only guesses.
    let samples = support::in_noise(&support::inaugural(), 0.7);
    let passes = |single_pass| {
        let gate = ShutAfter::new(10_000);
        let options = SpeechOptions { single_pass, ..SpeechOptions::default() };
        let output = tiny().transcribe(&[&samples], &options, &gate, &|_| ()).unwrap();
        (output, gate.steps.into_inner().unwrap().len())
    };
    let ((first, once), (_, again)) = (passes(true), passes(false));
    assert!(first.windows[0].iter().all(|segment| segment.temperature == 0.0), "{first:?}");
    assert!(again > 2 * once, "{once} steps, and {again}");
}

#[test]
fn what_the_model_cannot_do_is_refused() {
    let samples = vec![0.0; 16_000];
    let refused = |model: &Whisper, language: Option<&str>, translate| {
        let language = language.map(str::to_owned);
        let options = SpeechOptions { language, translate, ..SpeechOptions::default() };
        model.transcribe(&[&samples], &options, &Ungated, &|_| ()).unwrap_err().code()
    };
    assert_eq!(refused(tiny(), Some("fr"), false), Code::Unsupported);
    assert_eq!(refused(tiny(), None, true), Code::Unsupported);
    assert_eq!(refused(base(), Some("xx"), false), Code::Unsupported);

    let long = vec![0.0; 480_001];
    let error = tiny().transcribe(&[&samples, &long], &SpeechOptions::default(), &Ungated, &|_| ()).unwrap_err();
    assert!(matches!(&error, InferenceError::InputInvalid(message) if message.contains("window 1")), "{error}");
}

/// Lets a number of passes in, then shuts.
struct ShutAfter {
    left: AtomicUsize,
    inside: AtomicUsize,
    steps: Mutex<Vec<&'static str>>,
}

impl ShutAfter {
    fn new(left: usize) -> Self {
        Self { left: left.into(), inside: 0.into(), steps: Mutex::default() }
    }
}

impl Gate for ShutAfter {
    fn enter(&self, step: &'static str) -> Result<(), Interrupted> {
        assert_eq!(self.inside.load(Ordering::SeqCst), 0, "one pass at a time");
        if self.left.load(Ordering::SeqCst) == 0 {
            return Err(Interrupted::LeaseLost);
        }
        self.left.fetch_sub(1, Ordering::SeqCst);
        self.inside.fetch_add(1, Ordering::SeqCst);
        self.steps.lock().unwrap().push(step);
        Ok(())
    }

    fn leave(&self, _: &'static str) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn every_pass_asks_the_gate_and_a_shut_gate_ends_the_work() {
    let samples = support::inaugural();

    let open = ShutAfter::new(1000);
    tiny().transcribe(&[&samples, &samples], &SpeechOptions::default(), &open, &|_| ()).unwrap();
    let steps = open.steps.into_inner().unwrap();
    assert_eq!(steps.iter().filter(|step| **step == "encode").count(), 2);
    // Two equal windows decode together: as many steps as tokens of one.
    let decoded = steps.iter().filter(|step| **step == "decode").count();
    assert!((25..40).contains(&decoded), "{decoded} steps");

    let shut = ShutAfter::new(7);
    let error = tiny().transcribe(&[&samples], &SpeechOptions::default(), &shut, &|_| ()).unwrap_err();
    assert!(matches!(error, InferenceError::Interrupted(Interrupted::LeaseLost)), "{error}");
    assert_eq!(shut.steps.into_inner().unwrap().len(), 7);
}

#[test]
fn damaged_files_are_named() {
    let files = support::model("tiny.en");
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("model.safetensors");
    std::fs::write(&broken, b"not a tensor in sight").unwrap();
    let load = |weights: &std::path::Path| {
        Whisper::load(weights, &files.config, &files.tokenizer, Device::Cpu, WhisperOptions::default()).err().unwrap()
    };
    let error = load(&broken);
    assert_eq!(error.code(), Code::ModelCorrupt);
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    assert_eq!(load(&folder.path().join("absent")).code(), Code::ModelMissing);
}
