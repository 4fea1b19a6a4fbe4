//! Compressed formats through symphonia.

use std::io;

use symphonia::{
    core::{
        codecs::{
            CodecParameters,
            audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions, CODEC_ID_NULL_AUDIO},
        },
        errors::Error,
        formats::{FormatOptions, FormatReader, Track},
        io::{MediaSourceStream, MediaSourceStreamOptions},
        packet::Packet,
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
    decoder: Box<dyn AudioDecoder>,
    track: Track,
    params: AudioCodecParameters,
    container: Container,
    samples: Vec<f32>,
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
        let options = FormatOptions::default();
        let reader: Result<Box<dyn FormatReader>, Error> = match container {
            Container::Mp3 => MpaReader::try_new(stream, options).map(boxed),
            Container::Aac => AdtsReader::try_new(stream, options).map(boxed),
            Container::Flac => FlacReader::try_new(stream, options).map(boxed),
            Container::OggVorbis | Container::OggFlac => OggReader::try_new(stream, options).map(boxed),
            Container::Matroska | Container::Webm => MkvReader::try_new(stream, options).map(boxed),
            Container::Mp4 | Container::M4a | Container::Mov | Container::ThreeGp => {
                IsoMp4Reader::try_new(stream, options).map(boxed)
            }
            Container::Wav => WavReader::try_new(stream, options).map(boxed),
            other => return Err(Stop::Unsupported(other.to_string())),
        };
        let reader = reader.map_err(stop)?;
        let sound = reader.tracks().iter().find_map(|track| {
            let params = sound_of(track)?;
            // One of sound may not know its rate yet.
            let known = params.sample_rate.is_some() || get_codecs().get_audio_decoder(params.codec).is_some();
            known.then(|| (track.clone(), params.clone()))
        });
        let (track, params) = sound.ok_or_else(|| Stop::Unsupported("no sound track of a known codec".to_owned()))?;
        let decoder = decoder(&params)?;
        Ok(Self {
            reader,
            decoder,
            track,
            params,
            container,
            samples: Vec::new(),
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
        let declared = self.track.time_base.and_then(|base| base.calc_duration(packet.dur));
        let declared = declared.map_or(0.0, |time| time.as_secs_f64());
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
        let next = self.reader.tracks().iter().find_map(|track| {
            let params = sound_of(track)?;
            get_codecs().get_audio_decoder(params.codec).map(|_| (track.clone(), params.clone()))
        });
        let (track, params) = next.ok_or_else(|| Stop::Unsupported("the next stream has no known codec".to_owned()))?;
        self.decoder = decoder(&params)?;
        (self.track, self.params) = (track, params);
        Ok(())
    }

    /// Nothing follows. Damage alone is no recording.
    fn ended(&self) -> Result<Option<Chunk>, Stop> {
        match (self.heard, self.last_failure) {
            (None, Some(why)) => Err(Stop::Damaged(why.to_owned())),
            _ => Ok(None),
        }
    }
}

/// What a track of sound needs; `None` for pictures and what nobody knows.
fn sound_of(track: &Track) -> Option<&AudioCodecParameters> {
    let params = track.codec_params.as_ref().and_then(CodecParameters::audio)?;
    (params.codec != CODEC_ID_NULL_AUDIO).then_some(params)
}

fn decoder(params: &AudioCodecParameters) -> Result<Box<dyn AudioDecoder>, Stop> {
    get_codecs().make_audio_decoder(params, &AudioDecoderOptions::default()).map_err(stop)
}

impl Frames for Packets {
    fn format(&self) -> Format {
        let channels = self.heard.map(|heard| heard.channels).or(self.params.channels.as_ref().map(|set| set.count()));
        let codec = get_codecs().get_audio_decoder(self.params.codec);
        let codec = codec.map(|known| known.codec.info.short_name.to_owned());
        Format {
            container: self.container,
            codec: codec.filter(|codec| !self.container.as_str().contains(codec.as_str())),
            sample_rate: self.heard.map(|heard| heard.rate).or(self.params.sample_rate),
            channels: channels.and_then(|count| u32::try_from(count).ok()),
            ffmpeg: false,
        }
    }

    fn declared_seconds(&self) -> Option<f64> {
        let exact = self.track.num_frames.zip(self.params.sample_rate.filter(|rate| *rate > 0));
        if let Some((frames, rate)) = exact {
            return Some(frames as f64 / f64::from(rate));
        }
        Some(self.track.time_base?.calc_duration(self.track.duration?)?.as_secs_f64())
    }

    fn next(&mut self, mono: &mut Vec<f32>) -> Result<Option<Chunk>, Stop> {
        loop {
            let packet = match self.reader.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return self.ended(),
                Err(Error::ResetRequired) => {
                    self.restart()?;
                    continue;
                }
                Err(Error::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return self.ended();
                }
                Err(error) => return Err(stop(error)),
            };
            if packet.track_id != self.track.id {
                continue;
            }
            match self.decoder.decode(&packet) {
                Ok(buffer) => {
                    let (rate, channels) = (buffer.spec().rate(), buffer.spec().channels().count());
                    let frames = buffer.frames();
                    if frames == 0 || channels == 0 {
                        continue;
                    }
                    buffer.copy_to_vec_interleaved(&mut self.samples);
                    mix(&self.samples, channels, mono);
                    self.heard = Some(Heard { rate, channels, frames });
                    let channels = u32::try_from(channels).unwrap_or(u32::MAX);
                    return Ok(Some(Chunk { rate, channels, damaged: false }));
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
