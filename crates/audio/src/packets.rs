//! Compressed formats through symphonia.

use std::io;

use symphonia::{
    core::{
        audio::SampleBuffer,
        codecs::{CODEC_TYPE_NULL, CodecParameters, Decoder, DecoderOptions},
        errors::Error,
        formats::{FormatOptions, FormatReader, Packet},
        io::{MediaSourceStream, MediaSourceStreamOptions},
    },
    default::{
        formats::{AdtsReader, FlacReader, IsoMp4Reader, MkvReader, MpaReader, OggReader, WavReader},
        get_codecs,
    },
};

use crate::{
    Container,
    decode::{Chunk, Format, Frames, Stop, mix},
    source::View,
};

/// Packets in a row that may fail before the first good one; beyond, it is not what it seems.
const HOPELESS: u32 = 500;

pub(crate) struct Packets {
    reader: Box<dyn FormatReader>,
    decoder: Box<dyn Decoder>,
    track: u32,
    params: CodecParameters,
    container: Container,
    samples: Option<SampleBuffer<f32>>,
    heard: Option<Heard>,
    failed: u32,
    last_failure: Option<&'static str>,
}

/// The last packet that decoded.
#[derive(Clone, Copy)]
struct Heard {
    rate: u32,
    channels: usize,
    frames: usize,
}

impl Packets {
    pub(crate) fn open(view: View, container: Container) -> Result<Self, Stop> {
        let stream = MediaSourceStream::new(Box::new(view), MediaSourceStreamOptions::default());
        let options = FormatOptions { enable_gapless: true, ..FormatOptions::default() };
        let reader: Result<Box<dyn FormatReader>, Error> = match container {
            Container::Mp3 => MpaReader::try_new(stream, &options).map(boxed),
            Container::Aac => AdtsReader::try_new(stream, &options).map(boxed),
            Container::Flac => FlacReader::try_new(stream, &options).map(boxed),
            Container::OggVorbis | Container::OggFlac => OggReader::try_new(stream, &options).map(boxed),
            Container::Matroska | Container::Webm => MkvReader::try_new(stream, &options).map(boxed),
            Container::Mp4 | Container::M4a | Container::Mov | Container::ThreeGp => {
                IsoMp4Reader::try_new(stream, &options).map(boxed)
            }
            Container::Wav => WavReader::try_new(stream, &options).map(boxed),
            other => return Err(Stop::Unsupported(other.to_string())),
        };
        let reader = reader.map_err(stop)?;
        let track = reader.tracks().iter().find(|track| {
            let params = &track.codec_params;
            // A track of pictures has no sample rate; one of sound may not know it yet.
            params.codec != CODEC_TYPE_NULL
                && (params.sample_rate.is_some() || get_codecs().get_codec(params.codec).is_some())
        });
        let track = track.ok_or_else(|| Stop::Unsupported("no sound track of a known codec".to_owned()))?;
        let decoder = get_codecs().make(&track.codec_params, &DecoderOptions::default()).map_err(stop)?;
        let (track, params) = (track.id, track.codec_params.clone());
        Ok(Self {
            reader,
            decoder,
            track,
            params,
            container,
            samples: None,
            heard: None,
            failed: 0,
            last_failure: None,
        })
    }

    /// A damaged packet becomes silence of its length, so that what follows keeps its time.
    fn fill_in(&mut self, packet: &Packet, why: &'static str, mono: &mut Vec<f32>) -> Result<Option<Chunk>, Stop> {
        self.failed += 1;
        self.last_failure = Some(why);
        let Some(heard) = self.heard else {
            return if self.failed < HOPELESS { Ok(None) } else { Err(Stop::Damaged(why.to_owned())) };
        };
        let declared = self.params.time_base.map(|base| base.calc_time(packet.dur()));
        let declared = declared.map_or(0.0, |time| time.seconds as f64 + time.frac);
        let frames = match (declared * f64::from(heard.rate)).round() as usize {
            // Either the format gives no lengths, or this one is part of the damage.
            frames if frames == 0 || frames > heard.rate as usize => heard.frames,
            frames => frames,
        };
        mono.resize(mono.len() + frames, 0.0);
        Ok(Some(Chunk { rate: heard.rate, channels: 1, damaged: true }))
    }

    /// The reader asks for a fresh start: a chained stream begins.
    fn restart(&mut self) -> Result<(), Stop> {
        let next = self.reader.tracks().iter().find(|track| get_codecs().get_codec(track.codec_params.codec).is_some());
        let next = next.ok_or_else(|| Stop::Unsupported("the next stream has no known codec".to_owned()))?;
        self.decoder = get_codecs().make(&next.codec_params, &DecoderOptions::default()).map_err(stop)?;
        self.track = next.id;
        self.params = next.codec_params.clone();
        Ok(())
    }
}

impl Frames for Packets {
    fn format(&self) -> Format {
        let channels = self.heard.map(|heard| heard.channels).or(self.params.channels.map(|set| set.count()));
        let codec = get_codecs().get_codec(self.params.codec).map(|known| known.short_name.to_owned());
        Format {
            container: self.container,
            codec: codec.filter(|codec| !self.container.as_str().contains(codec.as_str())),
            sample_rate: self.heard.map(|heard| heard.rate).or(self.params.sample_rate),
            channels: channels.and_then(|count| u32::try_from(count).ok()),
            ffmpeg: false,
        }
    }

    fn declared_seconds(&self) -> Option<f64> {
        let time = self.params.time_base?.calc_time(self.params.n_frames?);
        Some(time.seconds as f64 + time.frac)
    }

    fn next(&mut self, mono: &mut Vec<f32>) -> Result<Option<Chunk>, Stop> {
        loop {
            let packet = match self.reader.next_packet() {
                Ok(packet) => packet,
                Err(Error::ResetRequired) => {
                    self.restart()?;
                    continue;
                }
                Err(Error::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return match (self.heard, self.last_failure) {
                        (None, Some(why)) => Err(Stop::Damaged(why.to_owned())),
                        _ => Ok(None),
                    };
                }
                Err(error) => return Err(stop(error)),
            };
            if packet.track_id() != self.track {
                continue;
            }
            match self.decoder.decode(&packet) {
                Ok(buffer) => {
                    let (spec, frames, capacity) = (*buffer.spec(), buffer.frames(), buffer.capacity());
                    let channels = spec.channels.count();
                    if frames == 0 || channels == 0 {
                        continue;
                    }
                    let fits = self.samples.as_ref().is_some_and(|samples| samples.capacity() >= capacity * channels);
                    if !fits {
                        self.samples = Some(SampleBuffer::new(capacity as u64, spec));
                    }
                    let Some(samples) = &mut self.samples else { continue };
                    samples.copy_interleaved_ref(buffer);
                    mix(samples.samples(), channels, mono);
                    self.heard = Some(Heard { rate: spec.rate, channels, frames });
                    let channels = u32::try_from(channels).unwrap_or(u32::MAX);
                    return Ok(Some(Chunk { rate: spec.rate, channels, damaged: false }));
                }
                Err(Error::DecodeError(why)) => {
                    if let Some(chunk) = self.fill_in(&packet, why, mono)? {
                        return Ok(Some(chunk));
                    }
                }
                Err(Error::IoError(_)) => {
                    if let Some(chunk) = self.fill_in(&packet, "a packet ends too early", mono)? {
                        return Ok(Some(chunk));
                    }
                }
                Err(Error::ResetRequired) => self.restart()?,
                Err(error) => return Err(stop(error)),
            }
        }
    }
}

fn boxed(reader: impl FormatReader + 'static) -> Box<dyn FormatReader> {
    Box::new(reader)
}

fn stop(error: Error) -> Stop {
    match error {
        Error::Unsupported(what) => Stop::Unsupported(what.to_owned()),
        Error::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Stop::Damaged("it ends before its first sample".to_owned())
        }
        other => Stop::Damaged(other.to_string()),
    }
}
