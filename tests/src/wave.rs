//! Recordings made for a test: 16-bit mono, joined from others, with pauses.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::command::run;

/// Samples a second.
pub const RATE: u32 = 16_000;
/// The longest that a conversion takes here.
const PATIENCE: Duration = Duration::from_secs(120);

/// The header of a 16-bit wav file with this many bytes of samples.
pub fn header(rate: u32, channels: u16, bytes: u32) -> Vec<u8> {
    let frame = channels * 2;
    let mut header = Vec::with_capacity(44);
    header.extend(b"RIFF");
    header.extend((36 + bytes).to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend(16_u32.to_le_bytes());
    header.extend(1_u16.to_le_bytes());
    header.extend(channels.to_le_bytes());
    header.extend(rate.to_le_bytes());
    header.extend((rate * u32::from(frame)).to_le_bytes());
    header.extend(frame.to_le_bytes());
    header.extend(16_u16.to_le_bytes());
    header.extend(b"data");
    header.extend(bytes.to_le_bytes());
    header
}

/// Writes samples as a wav file.
///
/// # Panics
/// When the file cannot be written.
pub fn write(path: &Path, samples: &[i16]) {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let length = u32::try_from(bytes.len()).expect("test recordings are short");
    let written = File::create(path)
        .and_then(|mut file| file.write_all(&header(RATE, 1, length)).and_then(|()| file.write_all(&bytes)));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A wav file with a header for `bytes` of zeros that take no room on the disk.
///
/// # Errors
/// When the file cannot be made.
pub fn write_silence(path: &Path, bytes: u32) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&header(RATE, 1, bytes))?;
    file.set_len(44 + u64::from(bytes))
}

/// Writes the same samples again and again, `times` in all, as one wav file.
///
/// # Errors
/// When the file cannot be written, or would be longer than the header can tell.
pub fn write_repeated(path: &Path, samples: &[i16], times: u32) -> io::Result<()> {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let length = u32::try_from(bytes.len()).ok().and_then(|once| once.checked_mul(times));
    let length = length.ok_or_else(|| io::Error::other("more than 4 GB"))?;
    let mut file = File::create(path)?;
    file.write_all(&header(RATE, 1, length))?;
    (0..times).try_for_each(|_| file.write_all(&bytes))
}

/// Any recording as samples.
///
/// # Panics
/// When ffmpeg is missing or cannot read it.
pub fn read(path: &Path) -> Vec<i16> {
    let scratch = tempfile::NamedTempFile::new().expect("a temporary file");
    convert(path, scratch.path(), &["-ar", "16000", "-ac", "1", "-f", "s16le"]);
    let bytes = fs::read(scratch.path()).expect("ffmpeg wrote it");
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// One after the other, with a pause of `pause_s` between two.
pub fn join(recordings: &[&[i16]], pause_s: f64) -> Vec<i16> {
    recordings.join(&vec![0; (pause_s * f64::from(RATE)) as usize][..])
}

/// Seconds that these samples last.
pub fn seconds(samples: &[i16]) -> f64 {
    samples.len() as f64 / f64::from(RATE)
}

/// Makes `to` from `from` with ffmpeg and these options for the output.
///
/// # Panics
/// When ffmpeg is missing or refuses.
pub fn convert(from: &Path, to: &Path, options: &[&str]) -> PathBuf {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-i"]).arg(from).args(options).arg(to);
    run(command, PATIENCE).ok();
    to.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.wav");
        let samples = join(&[&[1, 2, 3], &[-4, 5]], 1.0 / f64::from(RATE));
        assert_eq!(samples, [1, 2, 3, 0, -4, 5]);
        write(&path, &samples);
        assert_eq!(read(&path), samples);
        write_repeated(&path, &samples, 3).unwrap();
        assert_eq!(read(&path), samples.repeat(3));
    }
}
