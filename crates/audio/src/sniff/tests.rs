use super::*;

fn says(head: &[u8]) -> String {
    sniff(head).unwrap_err().to_string()
}

/// `count` silent MPEG-1 layer III frames of 128 kbit/s at 44.1 kHz.
fn mp3(count: usize) -> Vec<u8> {
    let mut frame = vec![0xff, 0xfb, 0x90, 0x00];
    frame.resize(417, 0);
    frame.repeat(count)
}

fn id3(body: usize) -> Vec<u8> {
    let mut tag = b"ID3\x04\x00\x00".to_vec();
    tag.extend([21, 14, 7, 0].map(|shift| (body >> shift & 0x7f) as u8));
    tag.resize(10 + body, 0);
    tag
}

#[test]
fn signatures_name_their_container() {
    let page = |payload: &[u8]| [&b"OggS"[..], &[0; 22], &[1, 30], payload].concat();
    let cases: Vec<(Vec<u8>, Container)> = vec![
        (b"RIFF\x00\x00\x00\x00WAVEfmt ".to_vec(), Container::Wav),
        (b"RF64\xff\xff\xff\xffWAVEds64".to_vec(), Container::Wav),
        (b"RIFF\x00\x00\x00\x00AVI LIST".to_vec(), Container::Avi),
        (b"FORM\x00\x00\x00\x00AIFFCOMM".to_vec(), Container::Aiff),
        (b"\x00\x00\x00\x20ftypisom".to_vec(), Container::Mp4),
        (b"\x00\x00\x00\x20ftypM4A ".to_vec(), Container::M4a),
        (b"\x00\x00\x00\x14ftypqt  ".to_vec(), Container::Mov),
        (b"\x00\x00\x00\x08wide\x00\x00\x00\x00mdat".to_vec(), Container::Mov),
        (b"fLaC\x00\x00\x00\x22".to_vec(), Container::Flac),
        (page(b"\x01vorbis"), Container::OggVorbis),
        (page(b"OpusHead"), Container::OggOpus),
        (page(b"\x7fFLAC"), Container::OggFlac),
        (page(b"Speex   "), Container::Ogg),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm".to_vec(), Container::Webm),
        (b"\x1a\x45\xdf\xa3\xa3\x42\x82\x88matroska".to_vec(), Container::Matroska),
        ([&[0x47][..], &[0; 187]].concat().repeat(5), Container::MpegTs),
        (b"#!AMR\n".to_vec(), Container::Amr),
        (b"\x0b\x77\x00\x00\x00\x40".to_vec(), Container::Ac3),
    ];
    for (head, container) in cases {
        assert_eq!(sniff(&head), Ok(container), "{head:?}");
    }
}

#[test]
fn mpeg_needs_frames_in_a_row() {
    assert_eq!(sniff(&mp3(2)), Ok(Container::Mp3));
    assert_eq!(sniff(&mp3(1)), Ok(Container::Mp3), "a whole file of one frame");
    assert!(sniff(&[&mp3(1)[..], &[1; 500]].concat()).is_err(), "one header is chance");
    let junk = [&[1; 333][..], &mp3(5)].concat();
    assert_eq!(sniff_at(&junk), Ok(Found { container: Container::Mp3, start: 333 }));
    assert!(sniff(&[&[1; 333][..], &mp3(3)].concat()).is_err(), "junk asks for more proof");
    let adts = [&[0xff, 0xf1, 0x50, 0x80, 0x02, 0x1f, 0xfc][..], &[0; 9]].concat().repeat(3);
    assert_eq!(sniff(&adts), Ok(Container::Aac));
}

#[test]
fn a_tag_is_no_proof_by_itself() {
    assert_eq!(sniff_at(&[id3(100), mp3(3)].concat()), Ok(Found { container: Container::Mp3, start: 110 }));
    let flac = [id3(100), b"fLaC".to_vec()].concat();
    assert_eq!(sniff(&flac), Ok(Container::Flac));
    let large = id3(200_000);
    assert_eq!(sniff(&large[..HEAD_BYTES]), Ok(Container::Mp3), "the tag fills the head");
    assert_eq!(says(&[id3(100), vec![0; 5000]].concat()), "holds an ID3 tag and no audio after it");
}

#[test]
fn strangers_are_called_by_name() {
    assert_eq!(says(b""), "is empty");
    assert_eq!(says(b"just some words\n"), "looks like text, not like audio");
    assert_eq!(says("noch ein paar Wörter".as_bytes()), "looks like text, not like audio");
    assert_eq!(says(b"{\"key\": [1, 2]}"), "looks like text, not like audio");
    assert!(says(&[0; HEAD_BYTES]).contains("nothing but zeros"));
    assert!(says(b"\x89PNG\r\n\x1a\n\x00\x00").contains("PNG"));
    assert!(says(b"%PDF-1.7").contains("PDF"));
    assert!(says(b"\xff\xfeh\x00i\x00").contains("UTF-16"));
    assert!(says(b"\x00\x00\x00\x20ftypheic").contains("HEIF"));
    assert!(says(&[0x80, 0x01, 0x02, 0x03]).contains("no audio or video format"));
}

#[test]
fn a_refusal_is_a_permanent_input_fault() {
    assert!(sniff(b"words").unwrap_err().fault("a.mp3").is_input());
}

#[test]
fn cut_heads_and_noise_never_panic() {
    let mut noise = 0x9e37_79b9u32;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        noise as u8
    })
    .take(HEAD_BYTES)
    .collect();
    assert!(sniff(&bytes).is_err());
    for signature in
        [&b"RIFF\x00\x00\x00\x00WAVE"[..], b"OggS", b"\x1a\x45\xdf\xa3", b"ID3\x04\x00\x00\x00", b"\x0b\x77"]
    {
        for len in 0..signature.len() {
            let _ = sniff(&signature[..len]);
        }
    }
}
