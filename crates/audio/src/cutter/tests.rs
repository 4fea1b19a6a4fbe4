use proptest::prelude::*;

use super::*;

const RATE: usize = SAMPLE_RATE as usize;

/// Something like speech: bursts of noise, `level` dBFS on average, four a second.
fn speech(seconds: f64, level: f64, seed: u32) -> Vec<f32> {
    let mut state = seed | 1;
    let scale = 10f64.powf(level / 20.0) * 2.8;
    (0..(seconds * RATE as f64) as usize)
        .map(|i| {
            let swell = (std::f64::consts::PI * (i % (RATE / 4)) as f64 / (RATE / 4) as f64).sin();
            (f64::from(noise(&mut state)) * swell * scale) as f32
        })
        .collect()
}

fn hiss(seconds: f64, level: f64, seed: u32) -> Vec<f32> {
    let (mut state, scale) = (seed | 1, 10f64.powf(level / 20.0) * 1.732 * 2.0);
    (0..(seconds * RATE as f64) as usize).map(|_| (f64::from(noise(&mut state)) * scale) as f32).collect()
}

/// Uniform in −0.5…0.5.
fn noise(state: &mut u32) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    (f64::from(*state) / 4_294_967_296.0 - 0.5) as f32
}

fn silence(seconds: f64) -> Vec<f32> {
    vec![0.0; (seconds * RATE as f64) as usize]
}

fn cut(samples: &[f32], step: usize) -> Vec<Window> {
    let (mut cutter, mut windows) = (Cutter::new(), Vec::new());
    for block in samples.chunks(step.max(1)) {
        windows.extend(cutter.push(block));
        assert!(cutter.held.len() <= MAX_WINDOW && cutter.frames.len() <= MAX_FRAMES);
    }
    windows.extend(cutter.finish());
    windows
}

/// What must hold of all windows of any recording.
fn check(samples: &[f32], windows: &[Window]) {
    let mut end = 0;
    for window in windows {
        let first = window.first_sample as usize;
        assert!(first >= end, "windows overlap");
        end = first + window.samples.len();
        assert!((1..=MAX_WINDOW).contains(&window.samples.len()));
        assert_eq!(window.samples, samples[first..end]);
        assert!(window.samples.iter().any(|s| *s != 0.0), "a silent window");
    }
}

fn spans(windows: &[Window]) -> Vec<(f64, f64)> {
    let seconds = |samples: u64| samples as f64 / RATE as f64;
    windows.iter().map(|w| (seconds(w.first_sample), seconds(w.first_sample + w.samples.len() as u64))).collect()
}

#[test]
fn a_short_recording_is_one_window() {
    let samples = speech(7.013, -20.0, 1);
    let windows = cut(&samples, 4096);
    check(&samples, &windows);
    assert_eq!(windows.len(), 1);
    assert!(samples.len() - windows[0].samples.len() < RATE / 10);
}

#[test]
fn silence_costs_nothing() {
    assert!(cut(&silence(100.0), 4096).is_empty());
    assert!(cut(&[], 1).is_empty());
    assert!(cut(&hiss(100.0, -75.0, 5), 4096).is_empty(), "the noise of a quiet line is silence");
}

#[test]
fn edges_are_trimmed_and_long_gaps_left_out() {
    let samples = [silence(5.0), speech(6.0, -25.0, 2), silence(4.0), speech(3.0, -25.0, 3), silence(9.0)].concat();
    let windows = cut(&samples, 1000);
    check(&samples, &windows);
    let spans = spans(&windows);
    assert_eq!(spans.len(), 2, "{spans:?}");
    for ((from, to), (first, last)) in spans.iter().zip([(4.8, 11.2), (14.8, 18.2)]) {
        assert!((from - first).abs() < 0.05 && (to - last).abs() < 0.05, "{from}–{to} is not {first}–{last}");
    }
}

#[test]
fn a_short_pause_stays_inside() {
    let samples = [speech(5.0, -25.0, 2), silence(1.5), speech(5.0, -25.0, 3)].concat();
    assert_eq!(cut(&samples, 1000).len(), 1);
}

#[test]
fn a_long_recording_is_cut_in_its_pauses() {
    let mut samples = Vec::new();
    let mut pauses = Vec::new();
    for i in 0..10 {
        samples.extend(speech(22.0 + f64::from(i % 3), -20.0, i + 1));
        pauses.push(samples.len() + RATE / 4);
        samples.extend(silence(0.5));
    }
    let windows = cut(&samples, 5000);
    check(&samples, &windows);
    assert_eq!(windows.len(), 10);
    for (window, pause) in windows.iter().zip(pauses) {
        let end = window.first_sample as usize + window.samples.len();
        assert!(end.abs_diff(pause) <= RATE / 4, "cut at {end}, the pause is at {pause}");
    }
}

#[test]
fn sound_without_pauses_is_covered_whole() {
    let samples = hiss(200.0, -20.0, 9);
    let windows = cut(&samples, 16_000);
    check(&samples, &windows);
    let covered: usize = windows.iter().map(|w| w.samples.len()).sum();
    assert!(samples.len() - covered < RATE, "{covered} of {}", samples.len());
    assert!(windows[..windows.len() - 1].iter().all(|w| w.samples.len() >= 18 * RATE));
}

#[test]
fn quiet_speech_is_never_lost() {
    for (level, room) in [(-40.0, -90.0), (-40.0, -55.0), (-55.0, -90.0), (-20.0, -45.0)] {
        let voice = [silence(20.0), speech(10.0, level, 7), silence(20.0)].concat();
        let samples: Vec<f32> = voice.iter().zip(hiss(50.0, room, 8)).map(|(a, b)| a + b).collect();
        let windows = cut(&samples, 16_000);
        check(&samples, &windows);
        let covered = (20 * RATE..30 * RATE)
            .filter(|i| spans(&windows).iter().any(|(a, b)| (*a..*b).contains(&(*i as f64 / RATE as f64))))
            .step_by(100)
            .count();
        let all = 10 * RATE / 100;
        assert!(covered * 100 >= all * 97, "{level} dBFS over {room} dBFS: {covered} of {all}");
    }
}

#[test]
fn the_noise_of_a_room_is_left_out_once_it_is_known() {
    let voice = [speech(20.0, -20.0, 7), silence(60.0), speech(5.0, -20.0, 7)].concat();
    let samples: Vec<f32> = voice.iter().zip(hiss(85.0, -58.0, 8)).map(|(a, b)| a + b).collect();
    let covered: usize = cut(&samples, 16_000).iter().map(|w| w.samples.len()).sum();
    assert!(covered < 32 * RATE, "{} s of 25 s of speech", covered / RATE);
}

#[test]
fn what_is_no_number_is_silence() {
    assert!(cut(&[f32::NAN; 50_000], 777).is_empty());
}

#[test]
fn memory_stays_bounded_for_hours() {
    let (voice, pause) = (speech(41.0, -20.0, 3), silence(3.0));
    let (mut cutter, mut windows, mut end) = (Cutter::new(), 0, 0);
    let mut largest = 0;
    for _ in 0..3 * 3600 / 44 {
        for part in [&voice, &pause] {
            for window in cutter.push(part) {
                assert!(window.first_sample >= end);
                end = window.first_sample + window.samples.len() as u64;
                windows += 1;
            }
            largest = largest.max(cutter.held.capacity() + cutter.frames.capacity());
        }
    }
    assert!(windows > 400);
    assert!(largest <= 4 * MAX_WINDOW, "{largest} samples of room");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_size_of_pushes_does_not_matter(
        parts in prop::collection::vec((0u8..3, 0.0f64..40.0, 1u32..1000), 1..5),
        step in 1usize..50_000,
    ) {
        let samples: Vec<f32> = parts
            .iter()
            .flat_map(|(kind, seconds, seed)| match kind {
                0 => speech(*seconds, -25.0, *seed),
                1 => silence(*seconds / 5.0),
                _ => hiss(*seconds / 4.0, -60.0, *seed),
            })
            .collect();
        let whole = cut(&samples, usize::MAX);
        check(&samples, &whole);
        prop_assert_eq!(cut(&samples, step), whole);
    }
}
