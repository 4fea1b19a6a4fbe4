//! What a file is that is no audio, so that the refusal can say it.

/// Things with a signature of their own.
pub(super) fn by_signature(head: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(usize, &[u8], &str); 24] = [
        (0, b"\x89PNG\r\n\x1a\n", "looks like a PNG picture, not like audio"),
        (0, b"\xff\xd8\xff", "looks like a JPEG picture, not like audio"),
        (0, b"GIF8", "looks like a GIF picture, not like audio"),
        (8, b"WEBP", "looks like a WebP picture, not like audio"),
        (4, b"ftyphei", "looks like a HEIF picture, not like audio"),
        (4, b"ftypmif1", "looks like a HEIF picture, not like audio"),
        (4, b"ftypavi", "looks like an AVIF picture, not like audio"),
        (0, b"II*\0", "looks like a TIFF picture, not like audio"),
        (0, b"MM\0*", "looks like a TIFF picture, not like audio"),
        (0, b"%PDF", "looks like a PDF document, not like audio"),
        (0, b"PK\x03\x04", "looks like a ZIP archive or an office document, not like audio"),
        (0, b"\x1f\x8b", "looks like gzip-compressed data, not like audio: unpack it first"),
        (0, b"BZh", "looks like bzip2-compressed data, not like audio: unpack it first"),
        (0, b"\xfd7zXZ\0", "looks like xz-compressed data, not like audio: unpack it first"),
        (0, b"\x28\xb5\x2f\xfd", "looks like zstd-compressed data, not like audio: unpack it first"),
        (0, b"7z\xbc\xaf\x27\x1c", "looks like a 7-Zip archive, not like audio: unpack it first"),
        (0, b"Rar!\x1a\x07", "looks like a RAR archive, not like audio: unpack it first"),
        (257, b"ustar", "looks like a tar archive, not like audio: unpack it first"),
        (0, b"\x7fELF", "looks like a program, not like audio"),
        (0, b"MThd", "looks like MIDI notes, which hold no recorded sound"),
        (0, b"SQLite format 3\0", "looks like an SQLite database, not like audio"),
        (0, b"RIFF", "is a RIFF file without a WAVE or AVI part"),
        (0, b"\xff\xfe", "looks like UTF-16 text, not like audio"),
        (0, b"\xfe\xff", "looks like UTF-16 text, not like audio"),
    ];
    let found = SIGNATURES.iter().find(|(at, bytes, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(bytes)));
    match found {
        // 0xfffe and 0xfeff can be sync bits as well; text has a zero in every other byte.
        Some((_, [0xff, 0xfe] | [0xfe, 0xff], _)) if !looks_utf16(head) => None,
        found => found.map(|(_, _, looks)| *looks),
    }
}

/// Things without a signature.
pub(super) fn by_look(head: &[u8]) -> String {
    if head.is_empty() {
        return "is empty".to_owned();
    }
    if head.iter().all(|byte| *byte == 0) {
        return "holds nothing but zeros and has no header: raw samples need a wav header".to_owned();
    }
    if looks_like_text(head) {
        return "looks like text, not like audio".to_owned();
    }
    "is in no audio or video format that is known here".to_owned()
}

fn looks_utf16(head: &[u8]) -> bool {
    let pairs = &head[2..head.len().min(1024)];
    let zeros = pairs.iter().filter(|byte| **byte == 0).count();
    !pairs.is_empty() && zeros * 3 > pairs.len()
}

fn looks_like_text(head: &[u8]) -> bool {
    let sample = &head[..head.len().min(8192)];
    let control = sample.iter().filter(|byte| **byte < 0x20 && !matches!(**byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b));
    if control.count() > 0 {
        return false;
    }
    match std::str::from_utf8(sample) {
        Ok(_) => true,
        // The sample may end within a character.
        Err(error) if error.error_len().is_none() => true,
        // One of the older 8-bit encodings: mostly plain letters.
        Err(_) => sample.iter().filter(|byte| byte.is_ascii()).count() * 10 >= sample.len() * 7,
    }
}
