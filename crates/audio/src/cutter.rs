//! Windows of speech out of an endless stream.

use crate::SAMPLE_RATE;

/// Most samples in a window: Whisper hears 30 s at a time.
pub const MAX_WINDOW: usize = 30 * SAMPLE_RATE as usize;

/// Everything is decided per frame of 20 ms, so that the size of the pushes cannot matter.
const FRAME: usize = SAMPLE_RATE as usize / 50;
const MAX_FRAMES: usize = MAX_WINDOW / FRAME;
/// Windows are cut between here and their longest.
const CUT_FROM: usize = 18 * 50;
/// A longer silence belongs to no window.
const GAP: usize = 2 * 50;
/// Silence that is kept around sound: 0.2 s.
const PADDING: usize = 10;
/// The cut goes where 0.2 s together are quietest.
const SMOOTH: usize = 10;
/// Bounds of what may count as silence, in dBFS. Below the first everything does; above the second nothing does, so
/// that quiet speech is never lost.
const SURE_SILENCE: i32 = -65;
const SURE_SOUND: i32 = -45;
/// How far above the noise floor sound begins, in dB.
const ABOVE_FLOOR: i32 = 6;

/// A stretch of the recording with sound in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Its first sample, counted from the start of the recording.
    pub first_sample: u64,
    /// 16 kHz mono, 1 to [`MAX_WINDOW`] samples.
    pub samples: Vec<f32>,
}

/// Cuts a stream of 16 kHz mono into windows of at most 30 s.
///
/// A window ends at the quietest spot between its 18th and 30th second, or where more than 2 s of silence follow. Such
/// silence is in no window; 0.2 s of it are kept at either side. Windows do not overlap, come in order and always
/// contain sound. The same stream gives the same windows whatever the sizes of the pushes. At most 30 s are held.
#[derive(Debug, Default)]
pub struct Cutter {
    /// Samples of the frame that is not yet full.
    partial: Vec<f32>,
    /// Samples of `frames`, and of nothing else.
    held: Vec<f32>,
    frames: Vec<Frame>,
    /// The first sample of `held`.
    held_from: u64,
    /// Whether a window is open; it starts with the first held frame.
    open: bool,
    /// Frames since the last one with sound; counts only while a window is open.
    quiet: usize,
    floor: NoiseFloor,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Mean square.
    power: f32,
    sound: bool,
}

impl Cutter {
    /// A cutter at the start of a recording.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next samples; returns the windows that they complete.
    pub fn push(&mut self, mut samples: &[f32]) -> Vec<Window> {
        let mut windows = Vec::new();
        while !samples.is_empty() {
            let (now, later) = samples.split_at(samples.len().min(FRAME - self.partial.len()));
            self.partial.extend_from_slice(now);
            samples = later;
            if self.partial.len() == FRAME {
                self.take_frame(&mut windows);
            }
        }
        windows
    }

    /// The last window, if there is sound that is in none yet.
    pub fn finish(mut self) -> Vec<Window> {
        let mut windows = Vec::new();
        if !self.partial.is_empty() {
            self.take_frame(&mut windows);
        }
        if self.open {
            windows.push(self.close(self.frames.len()));
        }
        windows
    }

    fn take_frame(&mut self, windows: &mut Vec<Window>) {
        // A full window is cut before the next frame comes in.
        if self.open && self.frames.len() == MAX_FRAMES {
            windows.push(self.cut());
        }
        let sum: f64 = self.partial.iter().map(|s| if s.is_finite() { f64::from(*s).powi(2) } else { 0.0 }).sum();
        let power = (sum / self.partial.len() as f64) as f32;
        let threshold = self.floor.threshold_after(decibels(power));
        let sound = power > 0.0 && decibels(power) > threshold;
        self.held.append(&mut self.partial);
        self.place(Frame { power, sound }, windows);
    }

    /// Adds a frame whose samples are held already.
    fn place(&mut self, frame: Frame, windows: &mut Vec<Window>) {
        self.frames.push(frame);
        if frame.sound {
            self.open = true;
            self.quiet = 0;
        } else if self.open {
            self.quiet += 1;
            if self.quiet > GAP {
                windows.push(self.close(self.frames.len()));
            }
        } else if self.frames.len() > PADDING {
            self.drop_frames(self.frames.len() - PADDING);
        }
    }

    /// Ends the open window at its quietest late spot; what follows is looked at afresh.
    fn cut(&mut self) -> Window {
        let powers = |at: usize| self.frames[at - SMOOTH / 2..at + SMOOTH / 2].iter().map(|f| f64::from(f.power)).sum();
        let spots = CUT_FROM..=self.frames.len() - SMOOTH / 2;
        // The latest of equals: longer windows are fewer windows.
        let spot = spots.rev().min_by(|a, b| f64::total_cmp(&powers(*a), &powers(*b)));
        self.close(spot.unwrap_or(self.frames.len()))
    }

    /// Ends the open window at frame `end`, less the silence before it, and starts again with the frames after it.
    fn close(&mut self, end: usize) -> Window {
        let last_sound = self.frames[..end].iter().rposition(|frame| frame.sound);
        let kept = last_sound.map_or(end, |last| (last + 1 + PADDING).min(end));
        let first_sample = self.held_from;
        let samples = self.held[..self.samples_of(kept)].to_vec();
        self.drop_frames(kept);
        self.open = false;
        self.quiet = 0;
        // What is left holds at most one pause longer than the gap, at its end, so no window ends in here.
        let rest = std::mem::take(&mut self.frames);
        let mut none = Vec::new();
        let held = std::mem::take(&mut self.held);
        let mut at = 0;
        for frame in rest {
            let next = (at + FRAME).min(held.len());
            self.held.extend_from_slice(&held[at..next]);
            at = next;
            self.place(frame, &mut none);
        }
        debug_assert!(none.is_empty(), "a window ended while its start was still being replayed");
        Window { first_sample, samples }
    }

    fn drop_frames(&mut self, count: usize) {
        let samples = self.samples_of(count);
        self.held.drain(..samples);
        self.frames.drain(..count);
        self.held_from += samples as u64;
    }

    /// The last frame of a recording may be a short one.
    fn samples_of(&self, frames: usize) -> usize {
        (frames * FRAME).min(self.held.len())
    }
}

/// Level of a mean square in whole dBFS, from −100 to 20.
fn decibels(power: f32) -> i32 {
    if power <= 0.0 {
        return NoiseFloor::QUIETEST;
    }
    ((10.0 * power.log10()).round() as i32).clamp(NoiseFloor::QUIETEST, NoiseFloor::LOUDEST)
}

/// The level that one frame in ten of the last 30 s stays below.
#[derive(Debug)]
struct NoiseFloor {
    /// Levels of the last frames, oldest overwritten first.
    ring: Vec<i32>,
    next: usize,
    counts: [u16; (Self::LOUDEST - Self::QUIETEST + 1) as usize],
}

impl Default for NoiseFloor {
    fn default() -> Self {
        Self { ring: Vec::new(), next: 0, counts: [0; (Self::LOUDEST - Self::QUIETEST + 1) as usize] }
    }
}

impl NoiseFloor {
    const QUIETEST: i32 = -100;
    const LOUDEST: i32 = 20;
    const MEMORY: usize = 30 * 50;
    /// With fewer frames there is no telling noise from speech.
    const WARM_UP: usize = 3 * 50;

    /// Takes a frame's level; returns the level, in dBFS, above which a frame counts as sound.
    fn threshold_after(&mut self, level: i32) -> i32 {
        if self.ring.len() < Self::MEMORY {
            self.ring.push(level);
        } else {
            let old = std::mem::replace(&mut self.ring[self.next], level);
            self.counts[Self::bin(old)] -= 1;
            self.next = (self.next + 1) % Self::MEMORY;
        }
        self.counts[Self::bin(level)] += 1;
        if self.ring.len() < Self::WARM_UP {
            return SURE_SILENCE;
        }
        let mut below = self.ring.len() / 10;
        let mut floor = Self::QUIETEST;
        for (bin, count) in self.counts.iter().enumerate() {
            floor = Self::QUIETEST + bin as i32;
            match below.checked_sub(usize::from(*count)) {
                Some(rest) => below = rest,
                None => break,
            }
        }
        (floor + ABOVE_FLOOR).clamp(SURE_SILENCE, SURE_SOUND)
    }

    fn bin(level: i32) -> usize {
        usize::try_from(level - Self::QUIETEST).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
