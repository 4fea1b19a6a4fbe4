//! Any rate to 16 kHz, with the length kept to the sample.

use rubato::{FftFixedInOut, Resampler as _};

use crate::SAMPLE_RATE;

/// Turns mono samples of any rate into 16 kHz.
///
/// The output holds `round(input * 16000 / rate)` samples and starts where the input starts: the filter's delay is
/// taken out, so times stay right after ten hours. A change of rate in mid-stream starts a new stretch.
pub(crate) struct Resampler {
    stretch: Option<Stretch>,
}

struct Stretch {
    rate: u32,
    /// `None` when the rate is right already.
    filter: Option<Filter>,
    taken: u64,
    given: u64,
}

struct Filter {
    fft: FftFixedInOut<f32>,
    pending: Vec<f32>,
    out: Vec<f32>,
    /// Samples of the filter's delay that still come out first and are dropped.
    delay: usize,
}

impl Resampler {
    pub(crate) fn new() -> Self {
        Self { stretch: None }
    }

    /// Adds `samples` of `rate` Hz and appends what is ready to `out`. `Err` names a rate that cannot be used.
    pub(crate) fn push(&mut self, samples: &[f32], rate: u32, out: &mut Vec<f32>) -> Result<(), String> {
        if self.stretch.as_ref().is_none_or(|stretch| stretch.rate != rate) {
            self.finish(out);
            self.stretch = Some(Stretch::new(rate)?);
        }
        if let Some(stretch) = &mut self.stretch {
            stretch.taken += samples.len() as u64;
            match &mut stretch.filter {
                None => out.extend_from_slice(samples),
                Some(filter) => stretch.given += filter.push(samples, u64::MAX, out),
            }
        }
        Ok(())
    }

    /// Appends what the filter still holds.
    pub(crate) fn finish(&mut self, out: &mut Vec<f32>) {
        let Some(Stretch { rate, filter: Some(mut filter), taken, mut given }) = self.stretch.take() else { return };
        let owed = (u128::from(taken) * u128::from(SAMPLE_RATE) + u128::from(rate) / 2) / u128::from(rate);
        let owed = u64::try_from(owed).unwrap_or(u64::MAX);
        let zeros = vec![0.0; filter.fft.input_frames_next()];
        while given < owed {
            given += filter.push(&zeros, owed - given, out);
        }
    }
}

/// Rates outside are headers gone wrong, not recordings.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=400_000;

impl Stretch {
    fn new(rate: u32) -> Result<Self, String> {
        if !RATES.contains(&rate) {
            return Err(format!("a sample rate of {rate} Hz is not possible"));
        }
        let filter = if rate == SAMPLE_RATE { None } else { Some(Filter::new(rate)?) };
        Ok(Self { rate, filter, taken: 0, given: 0 })
    }
}

/// Input samples per step of the filter. The filter is as long as a step: a tenth of a second is sharp and still small.
fn step(rate: u32) -> usize {
    // Steps are whole multiples of the rate's own share in the common divisor.
    let share = (rate / divisor(rate, SAMPLE_RATE)) as usize;
    let count = (rate as usize / 10).div_ceil(share).max(1);
    // An odd filter has its centre between two samples, which shifts the sound by half of one.
    if share * count % 2 == 1 && share < EXACT_UP_TO { share * (count + 1) } else { share * count }
}

/// Odd rates beyond this keep their half sample of shift: doubling the step would cost too much memory.
const EXACT_UP_TO: usize = 50_000;

fn divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { divisor(b, a % b) }
}

impl Filter {
    fn new(rate: u32) -> Result<Self, String> {
        let fft = FftFixedInOut::new(rate as usize, SAMPLE_RATE as usize, step(rate), 1)
            .map_err(|error| format!("a sample rate of {rate} Hz cannot be converted: {error}"))?;
        Ok(Self {
            pending: Vec::with_capacity(fft.input_frames_max()),
            out: vec![0.0; fft.output_frames_max()],
            delay: fft.output_delay(),
            fft,
        })
    }

    /// Returns the number of samples appended, at most `at_most`.
    fn push(&mut self, mut samples: &[f32], at_most: u64, out: &mut Vec<f32>) -> u64 {
        let step = self.fft.input_frames_next();
        let mut given = 0;
        while !samples.is_empty() {
            let (now, later) = samples.split_at(samples.len().min(step - self.pending.len()));
            self.pending.extend_from_slice(now);
            samples = later;
            if self.pending.len() < step {
                break;
            }
            let (_, made) = self
                .fft
                .process_into_buffer(&[&self.pending[..]], &mut [&mut self.out[..]], None)
                .expect("one channel, and buffers of the sizes the filter asked for");
            self.pending.clear();
            let dropped = self.delay.min(made);
            self.delay -= dropped;
            let room = usize::try_from(at_most - given).unwrap_or(usize::MAX);
            let kept = &self.out[dropped..made];
            let kept = &kept[..kept.len().min(room)];
            out.extend_from_slice(kept);
            given += kept.len() as u64;
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resampled(input: &[f32], rate: u32, step: usize) -> Vec<f32> {
        let (mut resampler, mut out) = (Resampler::new(), Vec::new());
        for block in input.chunks(step) {
            resampler.push(block, rate, &mut out).unwrap();
        }
        resampler.finish(&mut out);
        out
    }

    fn tone(hz: f64, rate: u32, seconds: f64) -> Vec<f32> {
        (0..(seconds * f64::from(rate)) as usize)
            .map(|i| (std::f64::consts::TAU * hz * i as f64 / f64::from(rate)).sin() as f32 * 0.5)
            .collect()
    }

    #[test]
    fn a_tone_keeps_its_length_place_and_shape_at_every_rate() {
        for rate in [8_000, 11_025, 16_000, 22_050, 44_100, 44_101, 48_000, 96_000, 192_000] {
            let out = resampled(&tone(440.0, rate, 3.21), rate, 777);
            let wanted = tone(440.0, SAMPLE_RATE, 3.21);
            assert!(out.len().abs_diff(wanted.len()) <= 1, "{rate}: {} of {}", out.len(), wanted.len());
            let error = out[4000..40_000].iter().zip(&wanted[4000..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 2e-3, "{rate} Hz: off by {error}");
        }
    }

    #[test]
    fn what_16_khz_cannot_carry_is_removed() {
        let out = resampled(&tone(11_000.0, 48_000, 2.0), 48_000, 4096);
        let loudest = out[2000..30_000].iter().fold(0f32, |m, s| m.max(s.abs()));
        assert!(loudest < 1e-3, "aliased at {loudest}");
    }

    #[test]
    fn a_change_of_rate_keeps_both_lengths() {
        let (mut resampler, mut out) = (Resampler::new(), Vec::new());
        resampler.push(&tone(300.0, 44_100, 1.0), 44_100, &mut out).unwrap();
        resampler.push(&tone(300.0, 22_050, 1.0), 22_050, &mut out).unwrap();
        resampler.finish(&mut out);
        assert_eq!(out.len(), 32_000);
    }

    #[test]
    fn impossible_rates_are_refused() {
        for rate in [0, 1, 999, u32::MAX] {
            assert!(Resampler::new().push(&[0.0], rate, &mut Vec::new()).is_err(), "{rate}");
        }
    }
}
