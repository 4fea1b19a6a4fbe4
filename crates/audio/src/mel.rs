//! The log-mel spectrum that Whisper reads.

use std::{f64::consts::PI, sync::Arc};

use realfft::{RealFftPlanner, RealToComplex};

use crate::{MAX_WINDOW, SAMPLE_RATE};

/// Frames of one spectrum: 30 s, one each 10 ms.
pub const MEL_FRAMES: usize = 3000;

const FFT: usize = 400;
const BINS: usize = FFT / 2 + 1;
const HOP: usize = 160;
/// The power below which everything counts as silence, and its logarithm.
const FLOOR: f32 = 1e-10;
const LOG_FLOOR: f32 = -10.0;

/// The weights of one mel band: where its triangle starts, and its non-zero part.
struct Band {
    first_bin: usize,
    weights: Vec<f32>,
}

/// Computes log-mel spectra; made once per model and shared between threads.
///
/// Source: `log_mel_spectrogram` of openai/whisper (audio.py): reflected edges, periodic Hann window of 400, hop 160,
/// power, Slaney mel bands over 0–8000 Hz, log10, and a floor 8 below the loudest value. The transform runs in f64, as
/// in f32 its own rounding is visible next to a loud tone.
pub struct MelSpectrogram {
    n_mels: usize,
    fft: Arc<dyn RealToComplex<f64>>,
    hann: Vec<f64>,
    bands: Vec<Band>,
}

impl MelSpectrogram {
    /// `n_mels`: 80 for most Whisper models, 128 for large-v3 and later.
    pub fn new(n_mels: usize) -> Self {
        Self {
            n_mels,
            fft: RealFftPlanner::new().plan_fft_forward(FFT),
            hann: (0..FFT).map(|i| 0.5 - 0.5 * (2.0 * PI * i as f64 / FFT as f64).cos()).collect(),
            bands: slaney_bands(n_mels),
        }
    }

    /// The number of bands.
    pub fn n_mels(&self) -> usize {
        self.n_mels
    }

    /// The spectrum of up to 30 s of 16 kHz mono, as if followed by zeros up to 30 s; later samples are ignored.
    ///
    /// Returns `[n_mels, 3000]`, row by row.
    pub fn compute(&self, samples: &[f32]) -> Vec<f32> {
        let samples = &samples[..samples.len().min(MAX_WINDOW)];
        let mut out = vec![LOG_FLOOR; self.n_mels * MEL_FRAMES];
        let mut frame = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let mut power = [0f32; BINS];
        let mut loudest = LOG_FLOOR;
        // Frames past the last sample see zeros alone, and the buffer holds their value already.
        let sounding = ((samples.len() + FFT / 2).div_ceil(HOP)).min(MEL_FRAMES);
        for t in 0..sounding {
            self.window(samples, t, &mut frame);
            self.fft.process_with_scratch(&mut frame, &mut spectrum, &mut scratch).expect("buffers come from the plan");
            for (p, bin) in power.iter_mut().zip(&spectrum) {
                *p = bin.norm_sqr() as f32;
            }
            for (m, band) in self.bands.iter().enumerate() {
                let energy: f32 = band.weights.iter().zip(&power[band.first_bin..]).map(|(w, p)| w * p).sum();
                let value = energy.max(FLOOR).log10();
                loudest = loudest.max(value);
                out[m * MEL_FRAMES + t] = value;
            }
        }
        let floor = loudest - 8.0;
        for value in &mut out {
            *value = (value.max(floor) + 4.0) / 4.0;
        }
        out
    }

    /// Frame `t` of the recording under the window; the frame's centre is sample `t * HOP`.
    fn window(&self, samples: &[f32], t: usize, frame: &mut [f64]) {
        let first = (t * HOP) as isize - (FFT / 2) as isize;
        let inside = first >= 0 && first as usize + FFT <= samples.len();
        if inside {
            let heard = &samples[first as usize..first as usize + FFT];
            for ((out, sample), weight) in frame.iter_mut().zip(heard).zip(&self.hann) {
                *out = f64::from(*sample) * weight;
            }
            return;
        }
        let last = MAX_WINDOW as isize - 1;
        for (i, (out, weight)) in frame.iter_mut().zip(&self.hann).enumerate() {
            let at = first + i as isize;
            let mirrored = if at > last { 2 * last - at } else { at.abs() };
            *out = samples.get(mirrored as usize).map_or(0.0, |sample| f64::from(*sample) * weight);
        }
    }
}

/// Triangular bands, equally spaced on Slaney's mel scale from 0 to 8000 Hz, each of unit area.
///
/// Source: librosa `filters.mel(htk=False, norm="slaney")` after M. Slaney, Auditory Toolbox, 1998: linear below
/// 1000 Hz, logarithmic above.
fn slaney_bands(n_mels: usize) -> Vec<Band> {
    const HZ_PER_MEL: f64 = 200.0 / 3.0;
    const KNEE_HZ: f64 = 1000.0;
    const KNEE_MEL: f64 = KNEE_HZ / HZ_PER_MEL;
    let log_step = 6.4f64.ln() / 27.0;
    let top_hz = f64::from(SAMPLE_RATE) / 2.0;
    let top_mel = KNEE_MEL + (top_hz / KNEE_HZ).ln() / log_step;
    let edge = |i: usize| {
        let mel = top_mel * i as f64 / (n_mels + 1) as f64;
        if mel < KNEE_MEL { mel * HZ_PER_MEL } else { KNEE_HZ * (log_step * (mel - KNEE_MEL)).exp() }
    };
    let bin_hz = f64::from(SAMPLE_RATE) / FFT as f64;
    (0..n_mels)
        .map(|m| {
            let (low, centre, high) = (edge(m), edge(m + 1), edge(m + 2));
            let weight = |bin: usize| {
                let hz = bin as f64 * bin_hz;
                let rising = (hz - low) / (centre - low);
                let falling = (high - hz) / (high - centre);
                (rising.min(falling).max(0.0) * 2.0 / (high - low)) as f32
            };
            let first_bin = (0..BINS).find(|bin| weight(*bin) > 0.0).unwrap_or(0);
            let weights = (first_bin..BINS).map(weight).take_while(|w| *w > 0.0).collect();
            Band { first_bin, weights }
        })
        .collect()
}
