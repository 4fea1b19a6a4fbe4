//! An hour costs what a minute costs. Alone in its file: it looks at the memory of the whole process.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
};

use warren_audio::{Cutter, DecodeOptions, Decoder, pcm};

const RATE: u32 = 44_100;
const SECONDS: u64 = 3600;
const HEADER: u64 = 44;

/// A stereo wav of an hour that is made up as it is read: a tone for 8 s, then 4 s of silence.
struct Endless {
    position: u64,
}

impl Endless {
    const LEN: u64 = HEADER + SECONDS * RATE as u64 * 4;

    fn header() -> Vec<u8> {
        let mut bytes = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x02\0".to_vec();
        bytes.extend(RATE.to_le_bytes());
        bytes.extend((RATE * 4).to_le_bytes());
        bytes.extend(b"\x04\0\x10\0data\xff\xff\xff\xff");
        bytes
    }
}

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let header = Self::header();
        let len = into.len().min(usize::try_from(Self::LEN.saturating_sub(self.position)).unwrap());
        for (byte, at) in into[..len].iter_mut().zip(self.position..) {
            *byte = header.get(at as usize).copied().unwrap_or_else(|| {
                let frame = (at - HEADER) / 4;
                let sounding = frame / u64::from(RATE) % 12 < 8;
                let square = if (frame / 100).is_multiple_of(2) { 0x0c } else { 0xf4 };
                if sounding && (at - HEADER) % 2 == 1 { square } else { 0 }
            });
        }
        self.position += len as u64;
        Ok(len)
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.position.strict_add_signed(by),
            SeekFrom::End(by) => Self::LEN.strict_add_signed(by),
        };
        Ok(self.position)
    }
}

/// The most memory this process has had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn an_hour_takes_no_more_memory_than_two_minutes() {
    let mut decoder = Decoder::open(Endless { position: 0 }, &DecodeOptions::default()).unwrap();
    let (mut cutter, mut windows, mut covered) = (Cutter::new(), 0u64, 0u64);
    let mut early = 0;
    while let Some(block) = decoder.next_block().unwrap() {
        assert_eq!(pcm::to_s16le(&block).len(), 2 * block.len());
        for window in cutter.push(&block) {
            windows += 1;
            covered += window.samples.len() as u64;
        }
        if decoder.delivered_samples() == 120 * 16_000 {
            early = peak();
        }
    }
    assert_eq!(decoder.delivered_samples(), SECONDS * 16_000, "not a sample lost or gained in an hour");
    windows += cutter.finish().len() as u64;
    assert_eq!(windows, 300);
    assert!(covered < SECONDS * 16_000 * 3 / 4, "the silence is left out");
    let growth = peak() - early;
    assert!(growth < 4096, "{growth} KiB more at the end than after two minutes");
}
