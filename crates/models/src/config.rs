//! `config.json` of Hugging Face for a Whisper model that came from CTranslate2, which keeps most of it in the weights.

use std::{fs, io, path::Path};

use serde_json::{Value, json};

use crate::{ctranslate2::Whisper, inspect};

/// Vocabularies of multilingual models have at least this many entries; English-only ones have one less.
const MULTILINGUAL_VOCABULARY: u64 = 51_865;
/// Id of `<|endoftext|>` in multilingual vocabularies; the English-only one is one less.
const END_OF_TEXT: u64 = 50_257;

/// Writes `to` from the model's dimensions and the lists of `original`, the config.json of CTranslate2.
pub(crate) fn write(whisper: &Whisper, original: &Path, to: &Path) -> io::Result<()> {
    let original = inspect::json(original).map_err(|why| io::Error::other(format!("config.json: {why}")))?;
    fs::write(to, serde_json::to_vec_pretty(&value(whisper, &original))?)
}

fn value(whisper: &Whisper, original: &Value) -> Value {
    let end = if whisper.vocabulary >= MULTILINGUAL_VOCABULARY { END_OF_TEXT } else { END_OF_TEXT - 1 };
    let list = |key: &str| original.get(key).filter(|value| value.is_array()).cloned().unwrap_or_else(|| json!([]));
    json!({
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": true,
        "activation_function": "gelu",
        "scale_embedding": false,
        "torch_dtype": "float16",
        "d_model": whisper.width,
        "num_mel_bins": whisper.mel_bins,
        "vocab_size": whisper.vocabulary,
        "max_source_positions": whisper.source_positions,
        "max_target_positions": whisper.target_positions,
        "max_length": whisper.target_positions,
        "encoder_layers": whisper.encoder_layers,
        "encoder_attention_heads": whisper.encoder_heads,
        "encoder_ffn_dim": whisper.encoder_inner,
        "decoder_layers": whisper.decoder_layers,
        "decoder_attention_heads": whisper.decoder_heads,
        "decoder_ffn_dim": whisper.decoder_inner,
        "num_hidden_layers": whisper.encoder_layers,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": end + 1,
        "suppress_tokens": list("suppress_ids"),
        "begin_suppress_tokens": list("suppress_ids_begin"),
        "alignment_heads": list("alignment_heads"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn english_only_models_end_their_texts_with_another_token() {
        let mut whisper = Whisper {
            width: 384,
            mel_bins: 80,
            vocabulary: 51_864,
            source_positions: 1500,
            target_positions: 448,
            encoder_layers: 4,
            encoder_heads: 6,
            encoder_inner: 1536,
            decoder_layers: 4,
            decoder_heads: 6,
            decoder_inner: 1536,
        };
        let original = json!({"suppress_ids": [1, 2], "alignment_heads": "?"});
        let english = value(&whisper, &original);
        assert_eq!((&english["eos_token_id"], &english["decoder_start_token_id"]), (&json!(50_256), &json!(50_257)));
        assert_eq!((&english["suppress_tokens"], &english["alignment_heads"]), (&json!([1, 2]), &json!([])));
        whisper.vocabulary = 51_865;
        assert_eq!(value(&whisper, &original)["eos_token_id"], json!(50_257));
    }
}
