//! What the presets of speed against care mean.

use crate::wire::{Quality, TranscribeSpec};

/// Most hypotheses that a caller may ask for. More cost time and memory, and no longer change the text.
pub const MAX_BEAM_SIZE: u32 = 8;

impl Quality {
    /// Hypotheses followed side by side; 1 is greedy.
    pub const fn beam_size(self) -> u32 {
        match self {
            Self::Unspecified | Self::Fast | Self::Balanced => 1,
            // What Whisper's authors and most of its users decode with (Radford et al. 2022, section 4.5).
            Self::Best => 5,
        }
    }

    /// The word for people and programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Best => "best",
        }
    }

    /// True when what the first pass says is kept, even a guess.
    pub const fn single_pass(self) -> bool {
        matches!(self, Self::Fast)
    }
}

impl TranscribeSpec {
    /// Quality and beam size with their defaults, as decoding takes them.
    pub fn decoding(&self) -> (Quality, u32) {
        let quality = match self.quality() {
            Quality::Unspecified => Quality::Balanced,
            given => given,
        };
        (quality, if self.beam_size == 0 { quality.beam_size() } else { self.beam_size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_preset_takes_more_care_than_the_one_before() {
        let decoding = |quality: Quality, beam_size| {
            TranscribeSpec { quality: quality.into(), beam_size, ..Default::default() }.decoding()
        };
        assert_eq!(decoding(Quality::Unspecified, 0), (Quality::Balanced, 1));
        assert_eq!(decoding(Quality::Best, 0), (Quality::Best, 5));
        assert_eq!(decoding(Quality::Fast, 3), (Quality::Fast, 3), "what is said counts");
        assert!(Quality::Fast.single_pass() && !Quality::Balanced.single_pass() && !Quality::Best.single_pass());
        assert!(Quality::Best.beam_size() <= MAX_BEAM_SIZE);
    }
}
