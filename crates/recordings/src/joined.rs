//! Long recordings, made of short ones.

use std::{
    fs::{self, File},
    io::{BufWriter, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use warren_audio::{SAMPLE_RATE, pcm};

use crate::{Library, Recording, RecordingsError, files};

/// Silence after each clip.
const PAUSE_SECONDS: f64 = 0.5;
/// How fast each pass over the clips is spoken; after the last one, the first again.
const SPEEDS: [f64; 9] = [1.0, 0.98, 1.02, 0.96, 1.04, 0.94, 1.06, 0.92, 1.08];
/// A wav's sizes are 32-bit numbers.
const LONGEST_SECONDS: f64 = 36.0 * 3600.0;

impl Library {
    /// Writes a wav (16 kHz, one channel, 16 bits) of these clips with short pauses, at least `min_seconds` long. When
    /// one pass over the clips is too short, more follow, each in another order and at another speed (a little higher or
    /// lower with it), and never the same clip twice in a row: within three minutes, no two stretches are alike. The
    /// same arguments give the same file. It appears complete or not at all.
    ///
    /// # Errors
    /// [`RecordingsError::Sound`] without clips, or for more than 36 hours; [`RecordingsError::Io`].
    pub fn joined(&self, path: &Path, clips: &[Recording], min_seconds: f64) -> Result<Recording, RecordingsError> {
        let refused = |reason: &str| RecordingsError::Sound { path: path.to_owned(), reason: reason.to_owned() };
        if clips.is_empty() {
            return Err(refused("no clips to join"));
        }
        if min_seconds > LONGEST_SECONDS {
            return Err(refused("a wav holds at most 36 hours"));
        }
        let pause = (PAUSE_SECONDS * f64::from(SAMPLE_RATE)) as usize;
        let clip_samples = clips.iter().map(Recording::samples).collect::<Result<Vec<_>, _>>()?;
        let sounds = SPEEDS.map(|speed| {
            let spoken = |samples: &Vec<f32>| {
                let mut spoken = at_speed(samples, speed);
                spoken.resize(spoken.len() + pause, 0.0);
                pcm::to_s16le(&spoken)
            };
            clip_samples.iter().map(spoken).collect::<Vec<_>>()
        });
        let sound = |(pass, index): (usize, usize)| sounds[pass % SPEEDS.len()][index].as_slice();
        let order = order(clips.len(), |place| sound(place).len(), min_seconds);

        let aside = path.with_extension("partial");
        let written = write(&aside, order.iter().map(|place| sound(*place)));
        let bytes = written.map_err(RecordingsError::io(&aside)).inspect_err(|_| {
            let _ = files::remove(&aside);
        })?;
        fs::rename(&aside, path).map_err(RecordingsError::io(path))?;

        let one_language = clips.iter().all(|clip| clip.language == clips[0].language);
        Ok(Recording {
            path: path.to_owned(),
            text: order.iter().map(|(_, index)| clips[*index].text.as_str()).collect::<Vec<_>>().join(" "),
            language: if one_language { clips[0].language.clone() } else { String::new() },
            name: path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
            seconds: f64::from(bytes) / 2.0 / f64::from(SAMPLE_RATE),
            synthetic: clips.iter().any(|clip| clip.synthetic),
        })
    }
}

/// The same words, faster by `speed`; the pitch rises with it.
fn at_speed(samples: &[f32], speed: f64) -> Vec<f32> {
    let spoken = |index: usize| {
        let at = index as f64 * speed;
        let (before, share) = (at as usize, at.fract() as f32);
        let sample = |at: usize| samples.get(at).copied().unwrap_or(0.0);
        sample(before) * (1.0 - share) + sample(before + 1) * share
    };
    (0..(samples.len() as f64 / speed) as usize).map(spoken).collect()
}

/// Which clip comes when, as (pass, clip). `bytes` of each: s16le.
fn order(clips: usize, bytes_of: impl Fn((usize, usize)) -> usize, min_seconds: f64) -> Vec<(usize, usize)> {
    let wanted = (min_seconds * f64::from(SAMPLE_RATE)) as usize * 2;
    let (mut order, mut bytes, mut state) = (Vec::new(), 0, 0x9e37_79b9_u32);
    let mut pass: Vec<usize> = (0..clips).collect();
    for number in 0.. {
        for index in &pass {
            order.push((number, *index));
            bytes += bytes_of((number, *index));
        }
        if bytes >= wanted {
            break;
        }
        // A fixed shuffle: figures can be compared between machines and days.
        for last in (1..pass.len()).rev() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            pass.swap(last, (state >> 8) as usize % (last + 1));
        }
        if pass.len() > 1 && order.last().map(|(_, index)| index) == pass.first() {
            let last = pass.len() - 1;
            pass.swap(0, last);
        }
    }
    order
}

/// Writes the header and the sounds; returns the bytes of sound.
fn write<'a>(path: &Path, sounds: impl Iterator<Item = &'a [u8]>) -> std::io::Result<u32> {
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&header(0))?;
    let mut bytes = 0_u32;
    for sound in sounds {
        file.write_all(sound)?;
        bytes += sound.len() as u32;
    }
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header(bytes))?;
    file.into_inner()?.sync_all()?;
    Ok(bytes)
}

fn header(bytes: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(44);
    header.extend(b"RIFF");
    header.extend((bytes + 36).to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend(16_u32.to_le_bytes());
    // PCM, one channel.
    header.extend(1_u16.to_le_bytes());
    header.extend(1_u16.to_le_bytes());
    header.extend(SAMPLE_RATE.to_le_bytes());
    header.extend((SAMPLE_RATE * 2).to_le_bytes());
    header.extend(2_u16.to_le_bytes());
    header.extend(16_u16.to_le_bytes());
    header.extend(b"data");
    header.extend(bytes.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_differ_and_no_clip_follows_itself() {
        let places = |clips, min_seconds| order(clips, |_| 32_000, min_seconds).into_iter().unzip();
        let (passes, order): (Vec<usize>, Vec<usize>) = places(4, 60.0);
        assert_eq!(order.len(), 60);
        assert!(passes.iter().enumerate().all(|(place, pass)| place / 4 == *pass), "{passes:?}");
        assert!(order.windows(2).all(|pair| pair[0] != pair[1]), "{order:?}");
        assert_ne!(order[..4], order[4..8]);
        for pass in order.chunks(4) {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert_eq!(pass, [0, 1, 2, 3]);
        }
        assert_eq!(places(1, 2.5), (vec![0, 1, 2], vec![0, 0, 0]));
        assert_eq!(places(2, 4.0), (vec![0, 0, 1, 1], vec![0, 1, 0, 1]));
    }

    #[test]
    fn speed_changes_length_and_pitch() {
        let tone: Vec<f32> = (0..16_000).map(|i| (i as f32 * 0.05).sin()).collect();
        assert_eq!(at_speed(&tone, 1.0), tone);
        let fast = at_speed(&tone, 1.25);
        assert_eq!(fast.len(), 12_800);
        let worst = (0..12_000).map(|i| (fast[i] - (i as f32 * 0.0625).sin()).abs()).fold(0.0, f32::max);
        assert!(worst < 0.01, "off by {worst}");
    }
}
