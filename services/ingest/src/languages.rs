//! The languages that Whisper models know.

/// ISO 639-1 where there is one, else as the model names it.
///
/// Source: openai/whisper `whisper/tokenizer.py`, `LANGUAGES`.
const KNOWN: [&str; 99] = [
    "en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr", "pl", "ca", "nl", "ar", "sv", "it", "id", "hi", "fi",
    "vi", "he", "uk", "el", "ms", "cs", "ro", "da", "hu", "ta", "no", "th", "ur", "hr", "bg", "lt", "la", "mi", "ml",
    "cy", "sk", "te", "fa", "lv", "bn", "sr", "az", "sl", "kn", "et", "mk", "br", "eu", "is", "hy", "ne", "mn", "bs",
    "kk", "sq", "sw", "gl", "mr", "pa", "si", "km", "sn", "yo", "so", "af", "oc", "ka", "be", "tg", "sd", "gu", "am",
    "yi", "lo", "uz", "fo", "ht", "ps", "tk", "nn", "mt", "sa", "lb", "my", "bo", "tl", "mg", "as", "tt", "haw", "ln",
    "ha", "ba", "jw", "su",
];

/// Only the third generation of large models knows it.
const CANTONESE: &str = "yue";

/// Whether the multilingual model of this catalogue name understands `language`.
pub(crate) fn understands(model: &str, language: &str) -> bool {
    KNOWN.contains(&language) || (language == CANTONESE && model.starts_with("large-v3"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_lower_case_and_distinct() {
        let distinct: std::collections::BTreeSet<_> = KNOWN.iter().collect();
        assert_eq!(distinct.len(), KNOWN.len());
        assert!(KNOWN.iter().all(|code| code.bytes().all(|byte| byte.is_ascii_lowercase())));
    }

    #[test]
    fn cantonese_needs_a_large_model() {
        assert!(understands("large-v3-turbo", "yue") && !understands("base", "yue"));
        assert!(understands("base", "de") && !understands("base", "xx"));
    }
}
