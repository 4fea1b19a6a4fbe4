//! What comes from outside, thrown at the code that reads it.
//!
//! One function per kind of input. Each hands the bytes to the product's own entry point and asserts what must hold
//! whatever they are: no panic, bounded output, an error that names what is wrong, a round trip where there is one.
//! A panic, a hang or more than 1 GiB is a finding. Findings are mended where they arise, and their input is kept in
//! `fixtures/INPUT/`, which the ordinary test `fixtures` replays.
//!
//! `./warren fuzz --minutes 20` fuzzes every input in turn and prints a table; names of inputs choose among them. It
//! needs cargo-fuzz: `cargo install cargo-fuzz --version 0.13.2 --locked`. Behind it, for one input:
//!
//! ```sh
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz/drivers --sanitizer none -O audio_mp3 -- \
//!     -rss_limit_mb=1024 -timeout=10 -max_len=16384
//! ```
//!
//! Coverage comes from the compiler's counters. There is no address sanitizer: the code under test has no `unsafe` of
//! its own, and without it far more inputs are tried. A panic inside symphonia that the decoder's guard catches is no
//! finding; one that gets out is.

pub mod audio;
pub mod grpc;
pub mod messages;
pub mod models;
pub mod settings;

/// One kind of input.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Its function's name, its driver's and its fixtures' folder.
    pub name: &'static str,
    /// Reads the bytes and panics over what must not be.
    pub read: fn(&[u8]),
    /// Longest input worth trying, bytes.
    pub max_len: usize,
    /// What the first inputs are made from, besides the files of `seeds/INPUT`.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! inputs {
    ($($family:ident::$name:ident $max_len:literal $seeds:expr,)+) => {
        /// All kinds of input; what strangers can send comes first.
        pub const INPUTS: &[Input] = &[
            $(Input { name: stringify!($name), read: $family::$name, max_len: $max_len, seeds: $seeds },)+
        ];
    };
}

inputs! {
    messages::amqp_delivery 8_192 messages::deliveries,
    messages::amqp_body 8_192 messages::bodies,
    messages::dead_letter_edit 8_192 messages::edits,
    grpc::grpc_body 8_192 grpc::calls,
    audio::audio_head 65_536 audio::waves,
    audio::audio_wav 16_384 audio::waves,
    audio::audio_wav_adpcm 16_384 Vec::new,
    audio::audio_mp3 16_384 Vec::new,
    audio::audio_aac 16_384 Vec::new,
    audio::audio_flac 16_384 Vec::new,
    audio::audio_ogg_vorbis 16_384 Vec::new,
    audio::audio_ogg_flac 16_384 Vec::new,
    audio::audio_mp4_aac 16_384 Vec::new,
    audio::audio_mp4_alac 16_384 Vec::new,
    audio::audio_mp4_other 16_384 Vec::new,
    audio::audio_mkv 16_384 Vec::new,
    settings::settings_file 8_192 settings::settings,
    settings::catalogue_file 8_192 settings::catalogues,
    models::safetensors_header 16_384 models::weights,
    models::ctranslate2_model 16_384 models::ctranslate2,
    models::whisper_model 16_384 models::whispers,
    models::embedding_model 16_384 models::berts,
}

/// Has a panic that a decoder's guard catches pass, and any other one end the process: libFuzzer's own hook knows no
/// guards. For drivers.
pub fn let_guarded_panics_pass() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let guarded = panic.location().is_some_and(|at| at.file().contains("/symphonia-"));
        // One that gets past its guard ends the process as it leaves the driver.
        if !guarded {
            before(panic);
        }
    }));
}
