//! From any recording to 16 kHz mono, one second at a time.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    AudioError, Container, DecodeOptions, HEAD_BYTES, SAMPLE_RATE, Source,
    ffmpeg::Ffmpeg,
    packets::Packets,
    resample::Resampler,
    sniff::{self, Route},
    source::SharedSource,
    wave::Wave,
};

/// Most samples in a block: one second.
pub const BLOCK: usize = SAMPLE_RATE as usize;

/// Samples beyond this are the fault of the file; what is stored is clipped to 1 anyway.
const LOUDEST: f32 = 4.0;

/// Decoders disagree about the last packet of a recording, so less than this is no sound that the other one missed.
const NOTHING_MORE_S: f64 = 1.0;
/// A recording that has this many seconds and this part less than it declares was cut off.
const MISSING_S: f64 = 1.0;
const MISSING: f64 = 0.01;

/// What a recording turned out to be. Displays like `mp3, 44100 Hz, 2 channels`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// The container, found by content.
    pub container: Container,
    /// The codec, where it says more than the container.
    pub codec: Option<String>,
    /// Samples per second in the file; `None` when ffmpeg read it.
    pub sample_rate: Option<u32>,
    /// Channels in the file; `None` when ffmpeg read it.
    pub channels: Option<u32>,
    /// Whether ffmpeg read it.
    pub ffmpeg: bool,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.container.fmt(f)?;
        if let Some(codec) = &self.codec {
            write!(f, ", {codec}")?;
        }
        if let Some(rate) = self.sample_rate {
            write!(f, ", {rate} Hz")?;
        }
        match self.channels {
            Some(1) => f.write_str(", 1 channel")?,
            Some(channels) => write!(f, ", {channels} channels")?,
            None => {}
        }
        if self.ffmpeg { f.write_str(", through ffmpeg") } else { Ok(()) }
    }
}

/// What one call of [`Frames::next`] appended.
pub(crate) struct Chunk {
    pub(crate) rate: u32,
    pub(crate) channels: u32,
    /// It stands for a packet that could not be decoded.
    pub(crate) damaged: bool,
}

/// Why one decoder gives up; another may still succeed.
#[derive(Debug)]
pub(crate) enum Stop {
    /// There is no sample in it.
    Empty,
    /// Not for this decoder.
    Unsupported(String),
    /// This decoder cannot make sense of it.
    Damaged(String),
    /// No decoder can help.
    Final(AudioError),
}

/// One way of decoding: appends mono samples at the recording's own rate.
pub(crate) trait Frames: Send {
    fn format(&self) -> Format;
    fn declared_seconds(&self) -> Option<f64>;
    /// Appends at most a few seconds to `mono`; `None` at the end.
    fn next(&mut self, mono: &mut Vec<f32>) -> Result<Option<Chunk>, Stop>;
}

/// Appends the mean of the channels of each frame; what is no number becomes silence.
pub(crate) fn mix(interleaved: &[f32], channels: usize, mono: &mut Vec<f32>) {
    let scale = 1.0 / channels.max(1) as f32;
    mono.extend(interleaved.chunks_exact(channels.max(1)).map(|frame| {
        let sum: f32 = frame.iter().map(|s| if s.is_finite() { s.clamp(-LOUDEST, LOUDEST) } else { 0.0 }).sum();
        sum * scale
    }));
}

/// A recording being decoded: blocks of 16 kHz mono samples, in order, in bounded memory.
///
/// Several decoders are tried in turn. Our own read the common formats; what they cannot read, or stumble over midway,
/// goes to an ffmpeg child. Damage in the middle costs the damaged packets only, and damage at the end what follows;
/// [`Decoder::damaged_at`] says that there was some. Without an ffmpeg that runs, nobody can say whether a recording
/// ends where our decoder stumbled, so that is an error.
///
/// To stop early, drop it between blocks, or let the source's `read` fail.
pub struct Decoder {
    frames: Box<dyn Frames>,
    route: Route,
    source: SharedSource,
    start: u64,
    format: Format,
    declared_seconds: Option<f64>,
    options: DecodeOptions,
    resampler: Resampler,
    mono: Vec<f32>,
    ready: Vec<f32>,
    ended: bool,
    /// Samples made so far, those in `ready` included.
    made: u64,
    /// Samples of all channels that came out of the codec so far.
    unpacked: u64,
    delivered: u64,
    /// Where our own decoder stumbled and ffmpeg took over, in seconds.
    stumbled_at: Option<f64>,
    damaged_at: Option<f64>,
}

impl Decoder {
    /// Finds out what `source` is and decodes its first block, so that what cannot be decoded at all fails here.
    ///
    /// # Errors
    /// [`AudioError`]; nothing in it is retried that concerns the recording itself.
    pub fn open(source: impl Source + 'static, options: &DecodeOptions) -> Result<Self, AudioError> {
        let unreadable = |error| AudioError::Read { name: options.name.clone(), error };
        let source = SharedSource::new(Box::new(source)).map_err(unreadable)?;
        let (container, start) = identify(&source, options)?;
        let routes: &[Route] = match container.route() {
            Route::Wave => &[Route::Wave, Route::Packets, Route::Ffmpeg],
            Route::Packets => &[Route::Packets, Route::Ffmpeg],
            Route::Ffmpeg => &[Route::Ffmpeg],
        };
        let mut before = None;
        for route in routes {
            let stop = match Self::begin(*route, container, &source, start, options) {
                Ok(decoder) => return Ok(decoder),
                Err(stop) => stop,
            };
            if let Some(error) = source.take_failure() {
                return Err(unreadable(error));
            }
            tracing::debug!(%container, ?route, ?stop, "this decoder cannot read the recording");
            before = match (before, stop) {
                // Without ffmpeg, what our own decoder found stands.
                (Some(found @ (Stop::Empty | Stop::Damaged(_))), Stop::Final(AudioError::FfmpegMissing { .. })) => {
                    Some(found)
                }
                (_, stop @ Stop::Final(_)) => return Err(explain(stop, container, options)),
                // Our reader of plain samples is the most forgiving one: what others would still make of it is noise.
                (_, stop @ (Stop::Empty | Stop::Damaged(_))) if *route == Route::Wave => {
                    return Err(explain(stop, container, options));
                }
                (Some(Stop::Empty), _) => Some(Stop::Empty),
                (_, stop) => Some(stop),
            };
        }
        Err(explain(before.unwrap_or(Stop::Empty), container, options))
    }

    fn begin(
        route: Route,
        container: Container,
        source: &SharedSource,
        start: u64,
        options: &DecodeOptions,
    ) -> Result<Self, Stop> {
        let frames: Box<dyn Frames> = match route {
            Route::Wave => Box::new(Wave::open(source.view(start))?),
            Route::Packets => Box::new(guarded(|| Packets::open(source.view(start), container))?),
            Route::Ffmpeg => Box::new(Ffmpeg::open(source, start, container, 0, options)?),
        };
        let mut decoder = Self {
            format: frames.format(),
            declared_seconds: frames.declared_seconds(),
            frames,
            route,
            source: source.clone(),
            start,
            options: options.clone(),
            resampler: Resampler::new(),
            mono: Vec::new(),
            ready: Vec::new(),
            ended: false,
            made: 0,
            unpacked: 0,
            delivered: 0,
            stumbled_at: None,
            damaged_at: None,
        };
        while decoder.ready.is_empty() && !decoder.ended {
            decoder.step()?;
        }
        if decoder.ready.is_empty() {
            return Err(Stop::Empty);
        }
        // Some codecs know their rate and channels only after the first packet.
        decoder.format = decoder.frames.format();
        Ok(decoder)
    }

    /// The next block of at most [`BLOCK`] samples, never an empty one; `None` at the end.
    ///
    /// # Errors
    /// [`AudioError::Read`] when the source fails, the limits, and an ffmpeg that is needed and does not run. Damage is
    /// no error once a block was delivered.
    pub fn next_block(&mut self) -> Result<Option<Vec<f32>>, AudioError> {
        while self.ready.len() < BLOCK && !self.ended {
            if let Err(stop) = self.step() {
                self.recover(stop)?;
            }
        }
        if self.ready.is_empty() {
            return Ok(None);
        }
        let later = self.ready.split_off(self.ready.len().min(BLOCK));
        let block = std::mem::replace(&mut self.ready, later);
        self.delivered += block.len() as u64;
        Ok(Some(block))
    }

    /// What the recording is.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The length that the recording claims, in seconds: for a first estimate only.
    pub fn declared_seconds(&self) -> Option<f64> {
        self.declared_seconds
    }

    /// The samples handed out so far.
    pub fn delivered_samples(&self) -> u64 {
        self.delivered
    }

    /// Seconds into the recording of the first damage so far. From there on something is missing: single packets, or
    /// all that follows.
    pub fn damaged_at(&self) -> Option<f64> {
        self.damaged_at
    }

    fn damaged(&mut self, seconds: f64) {
        self.damaged_at.get_or_insert(seconds);
    }

    fn made_seconds(&self) -> f64 {
        self.made as f64 / f64::from(SAMPLE_RATE)
    }

    /// One round of decoding, resampling and checking of limits.
    fn step(&mut self) -> Result<(), Stop> {
        self.mono.clear();
        let (frames, mono) = (&mut self.frames, &mut self.mono);
        let chunk = guarded(|| frames.next(mono));
        if let Some(error) = self.source.take_failure() {
            return Err(Stop::Final(AudioError::Read { name: self.options.name.clone(), error }));
        }
        let before = self.ready.len();
        match chunk? {
            Some(chunk) => {
                if chunk.damaged {
                    self.damaged(self.made_seconds());
                }
                self.unpacked += self.mono.len() as u64 * u64::from(chunk.channels);
                self.resampler.push(&self.mono, chunk.rate, &mut self.ready).map_err(Stop::Damaged)?;
            }
            None => {
                // ffmpeg found nothing more than our own decoder had.
                if let Some(seconds) = self.stumbled_at.filter(|at| self.made_seconds() < at + NOTHING_MORE_S) {
                    self.damaged(seconds);
                }
                if let Some(declared) = self.declared_seconds.filter(|_| self.format.container.knows_its_length())
                    && self.made_seconds() + MISSING_S < declared * (1.0 - MISSING)
                {
                    self.damaged(self.made_seconds());
                }
                self.ended = true;
                self.resampler.finish(&mut self.ready);
            }
        }
        self.made += (self.ready.len() - before) as u64;
        self.check_limits()
    }

    fn check_limits(&self) -> Result<(), Stop> {
        let (limits, name) = (&self.options.limits, || self.options.name.clone());
        if self.made as f64 > limits.max_seconds * f64::from(SAMPLE_RATE) {
            return Err(Stop::Final(AudioError::TooLong { name: name(), limit_seconds: limits.max_seconds }));
        }
        if self.unpacked > limits.max_samples {
            return Err(Stop::Final(AudioError::TooManySamples { name: name(), limit_samples: limits.max_samples }));
        }
        Ok(())
    }

    /// A decoder stumbled midway: after our own, ffmpeg goes on from the same place; after ffmpeg, the recording ends.
    fn recover(&mut self, stop: Stop) -> Result<(), AudioError> {
        let reason = match stop {
            Stop::Final(error) => return Err(error),
            Stop::Damaged(reason) | Stop::Unsupported(reason) => reason,
            Stop::Empty => "nothing follows".to_owned(),
        };
        let before = self.ready.len();
        self.resampler.finish(&mut self.ready);
        self.made += (self.ready.len() - before) as u64;
        let seconds = self.made_seconds();
        let container = self.format.container;
        if self.route == Route::Ffmpeg {
            tracing::warn!(%container, seconds, reason, "the recording is damaged and ends here");
            self.damaged(seconds);
            self.ended = true;
            return Ok(());
        }
        match Ffmpeg::open(&self.source, self.start, container, self.made, &self.options) {
            Ok(ffmpeg) => {
                tracing::info!(%container, seconds, reason, "ffmpeg takes over");
                self.frames = Box::new(ffmpeg);
                self.route = Route::Ffmpeg;
                self.stumbled_at = Some(seconds);
                Ok(())
            }
            Err(stop) => Err(match self.source.take_failure() {
                Some(error) => AudioError::Read { name: self.options.name.clone(), error },
                None => explain(stop, container, &self.options),
            }),
        }
    }
}

impl Iterator for Decoder {
    type Item = Result<Vec<f32>, AudioError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_block().transpose()
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("format", &self.format)
            .field("delivered", &self.delivered)
            .finish_non_exhaustive()
    }
}

/// The container and where it starts, past any tags however long.
fn identify(source: &SharedSource, options: &DecodeOptions) -> Result<(Container, u64), AudioError> {
    let mut head = vec![0; HEAD_BYTES];
    let mut start = 0;
    loop {
        let failed = |error: io::Error| AudioError::Read { name: options.name.clone(), error };
        let got = source.view(start).fill(&mut head).map_err(failed)?;
        let tag = sniff::id3_len(&head[..got]);
        if tag >= got as u64 && start + tag < source.len() {
            start += tag;
            continue;
        }
        let found = sniff::sniff_at(&head[..got])
            .map_err(|reason| AudioError::NotAudio { name: options.name.clone(), reason })?;
        return Ok((found.container, start + found.start as u64));
    }
}

fn explain(stop: Stop, container: Container, options: &DecodeOptions) -> AudioError {
    let (name, format) = (options.name.clone(), container.to_string());
    match stop {
        Stop::Final(error) => error,
        Stop::Empty => AudioError::NoAudio { name, format },
        Stop::Unsupported(reason) | Stop::Damaged(reason) => AudioError::Damaged { name, format, reason },
    }
}

/// Media is hostile; a decoder that panics over it has found damage, and the process goes on.
fn guarded<T>(decode: impl FnOnce() -> Result<T, Stop>) -> Result<T, Stop> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(Stop::Damaged("the decoder failed over its content".to_owned())))
}

#[cfg(test)]
mod tests;
