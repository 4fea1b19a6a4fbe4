//! The formats that are taken, and their signatures.

use std::fmt;

use Route::{Ffmpeg, Packets, Wave};

/// Which of our decoders reads a format; ffmpeg is always the last resort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Our own reader of plain samples.
    Wave,
    /// symphonia.
    Packets,
    /// ffmpeg alone.
    Ffmpeg,
}

macro_rules! containers {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $demuxer:literal $route:ident,)+) => {
        /// A format that is taken as audio, named by its content.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Container {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Container {
            /// A short name for people and records, e.g. `mp3` or `ogg/opus`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What ffmpeg calls it.
            pub(crate) const fn demuxer(self) -> &'static str {
                match self { $(Self::$variant => $demuxer,)+ }
            }

            pub(crate) const fn route(self) -> Route {
                match self { $(Self::$variant => $route,)+ }
            }
        }
    };
}

impl Container {
    /// Whoever writes it knows how long the sound is. Others guess, leave it open, or mean the picture.
    pub(crate) const fn knows_its_length(self) -> bool {
        matches!(self, Self::Flac | Self::M4a)
    }
}

containers! {
    /// RIFF WAVE, with its 64-bit forms RF64 and BW64.
    Wav "wav" "wav" Wave,
    /// Sony Wave64.
    W64 "w64" "w64" Ffmpeg,
    /// Apple AIFF and AIFF-C.
    Aiff "aiff" "aiff" Ffmpeg,
    /// Apple Core Audio.
    Caf "caf" "caf" Ffmpeg,
    /// Sun/NeXT audio.
    Au "au" "au" Ffmpeg,
    /// Creative Voice.
    Voc "voc" "voc" Ffmpeg,
    /// MPEG layer III.
    Mp3 "mp3" "mp3" Packets,
    /// MPEG layers I and II.
    Mp2 "mp2" "mp3" Ffmpeg,
    /// AAC in ADTS frames.
    Aac "aac" "aac" Packets,
    /// MPEG-4.
    Mp4 "mp4" "mov" Packets,
    /// MPEG-4 audio.
    M4a "m4a" "mov" Packets,
    /// QuickTime.
    Mov "mov" "mov" Packets,
    /// 3GPP.
    ThreeGp "3gp" "mov" Packets,
    /// FLAC.
    Flac "flac" "flac" Packets,
    /// Vorbis in Ogg.
    OggVorbis "ogg/vorbis" "ogg" Packets,
    /// FLAC in Ogg.
    OggFlac "ogg/flac" "ogg" Packets,
    /// Opus in Ogg.
    OggOpus "ogg/opus" "ogg" Ffmpeg,
    /// Ogg with anything else first: Speex, a video.
    Ogg "ogg" "ogg" Ffmpeg,
    /// Matroska.
    Matroska "mkv" "matroska" Packets,
    /// WebM.
    Webm "webm" "matroska" Packets,
    /// MPEG transport stream.
    MpegTs "mpeg-ts" "mpegts" Ffmpeg,
    /// MPEG program stream.
    MpegPs "mpeg-ps" "mpeg" Ffmpeg,
    /// AVI.
    Avi "avi" "avi" Ffmpeg,
    /// Windows Media.
    Asf "asf" "asf" Ffmpeg,
    /// Flash video.
    Flv "flv" "flv" Ffmpeg,
    /// RealMedia.
    RealMedia "rm" "rm" Ffmpeg,
    /// Adaptive Multi-Rate, narrow or wide band.
    Amr "amr" "amr" Ffmpeg,
    /// Dolby Digital.
    Ac3 "ac3" "ac3" Ffmpeg,
    /// Dolby Digital Plus.
    Eac3 "eac3" "eac3" Ffmpeg,
    /// DTS.
    Dts "dts" "dts" Ffmpeg,
    /// WavPack.
    WavPack "wavpack" "wv" Ffmpeg,
    /// Monkey's Audio.
    Ape "ape" "ape" Ffmpeg,
    /// True Audio.
    Tta "tta" "tta" Ffmpeg,
    /// Musepack, stream version 8.
    Musepack "musepack" "mpc8" Ffmpeg,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const ASF_HEADER: [u8; 16] =
    [0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11, 0xa6, 0xd9, 0x00, 0xaa, 0x00, 0x62, 0xce, 0x6c];
const W64_RIFF: [u8; 16] =
    [0x72, 0x69, 0x66, 0x66, 0x2e, 0x91, 0xcf, 0x11, 0xa5, 0xd6, 0x28, 0xdb, 0x04, 0xc1, 0x00, 0x00];

/// The container whose signature stands at the very start.
pub(super) fn by_signature(head: &[u8]) -> Option<Container> {
    let at = |offset: usize, bytes: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(bytes));
    let starts: [(&[u8], Container); 15] = [
        (b"fLaC", Container::Flac),
        (b"caff", Container::Caf),
        (b".snd", Container::Au),
        (b"Creative Voice File\x1a", Container::Voc),
        (&ASF_HEADER, Container::Asf),
        (&W64_RIFF, Container::W64),
        (b"FLV\x01", Container::Flv),
        (b".RMF", Container::RealMedia),
        (b"#!AMR", Container::Amr),
        (b"\x7f\xfe\x80\x01", Container::Dts),
        (b"wvpk", Container::WavPack),
        (b"MAC ", Container::Ape),
        (b"TTA1", Container::Tta),
        (b"MPCK", Container::Musepack),
        (b"\x00\x00\x01\xba", Container::MpegPs),
    ];
    if let Some((_, container)) = starts.iter().find(|(bytes, _)| at(0, bytes)) {
        return Some(*container);
    }
    let riff = [b"RIFF", b"RF64", b"BW64", b"RIFX"].iter().any(|id| at(0, *id));
    match () {
        () if riff && at(8, b"WAVE") => Some(Container::Wav),
        () if riff && at(8, b"AVI ") => Some(Container::Avi),
        () if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) => Some(Container::Aiff),
        () if at(0, b"OggS") => Some(ogg(head)),
        () if at(0, &[0x1a, 0x45, 0xdf, 0xa3]) => ebml(head),
        () if at(4, b"ftyp") => iso_media(head),
        () if is_old_quicktime(head) => Some(Container::Mov),
        () if at(0, &[0x0b, 0x77]) => dolby(head),
        () if is_transport_stream(head) => Some(Container::MpegTs),
        () => None,
    }
}

/// The codec of the first stream, from the payload of the first page.
fn ogg(head: &[u8]) -> Container {
    let segments = usize::from(head.get(26).copied().unwrap_or(0));
    let payload = head.get(27 + segments..).unwrap_or_default();
    match payload {
        [1, b'v', b'o', b'r', b'b', b'i', b's', ..] => Container::OggVorbis,
        [b'O', b'p', b'u', b's', b'H', b'e', b'a', b'd', ..] => Container::OggOpus,
        [0x7f, b'F', b'L', b'A', b'C', ..] => Container::OggFlac,
        _ => Container::Ogg,
    }
}

/// The document type stands in the EBML header, within the first bytes.
fn ebml(head: &[u8]) -> Option<Container> {
    let header = &head[..head.len().min(128)];
    let names = |name: &[u8]| header.windows(name.len()).any(|window| window == name);
    if names(b"webm") {
        return Some(Container::Webm);
    }
    names(b"matroska").then_some(Container::Matroska)
}

/// By major brand; pictures use the same boxes and are left to be named as what they are.
fn iso_media(head: &[u8]) -> Option<Container> {
    match head.get(8..12)? {
        b"heic" | b"heix" | b"hevc" | b"hevx" | b"mif1" | b"msf1" | b"avif" | b"avis" | b"crx " => None,
        b"M4A " | b"M4B " | b"M4P " => Some(Container::M4a),
        b"qt  " => Some(Container::Mov),
        brand if brand.starts_with(b"3g") => Some(Container::ThreeGp),
        _ => Some(Container::Mp4),
    }
}

/// QuickTime before there was `ftyp`: a box of a plausible size and a well-known name.
fn is_old_quicktime(head: &[u8]) -> bool {
    let Some([a, b, c, d, name @ ..]) = head.first_chunk::<8>() else { return false };
    let size = u32::from_be_bytes([*a, *b, *c, *d]);
    let known = matches!(name, b"moov" | b"mdat" | b"wide" | b"free" | b"skip" | b"pnot");
    // 0 and 1 are the forms "to the end of the file" and "64-bit size follows".
    known && (size <= 1 || size >= 8)
}

fn dolby(head: &[u8]) -> Option<Container> {
    match head.get(5)? >> 3 {
        0..=10 => Some(Container::Ac3),
        11..=16 => Some(Container::Eac3),
        _ => None,
    }
}

/// The sync byte of four packets in a row, bare or behind the four bytes of a Blu-ray packet.
fn is_transport_stream(head: &[u8]) -> bool {
    [(0, 188), (4, 192)].iter().any(|(first, step)| (0..4).all(|i| head.get(first + i * step) == Some(&0x47)))
}
