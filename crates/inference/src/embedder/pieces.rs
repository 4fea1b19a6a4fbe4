//! Long texts in pieces that the model can read.

use tokenizers::Tokenizer;

/// The tokens that the model wants around every text, such as `[CLS]` and `[SEP]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Framing {
    /// Learns the frame from how the tokenizer frames a word.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Result<Self, String> {
        let ids = |framed| -> Result<Vec<u32>, String> {
            Ok(tokenizer.encode_fast("a", framed).map_err(|error| error.to_string())?.get_ids().to_vec())
        };
        let (bare, framed) = (ids(false)?, ids(true)?);
        let at = framed
            .windows(bare.len().max(1))
            .position(|window| window == bare)
            .ok_or("its special tokens do not frame the text")?;
        Ok(Self { before: framed[..at].to_vec(), after: framed[at + bare.len()..].to_vec() })
    }

    /// `tokens` in as few pieces as `max_tokens` allows, the frame included, all of about the same length.
    pub(crate) fn pieces(&self, tokens: &[u32], max_tokens: usize) -> Vec<Vec<u32>> {
        let room = max_tokens.saturating_sub(self.before.len() + self.after.len()).max(1);
        let count = tokens.len().div_ceil(room).max(1);
        tokens
            .chunks(tokens.len().div_ceil(count).max(1))
            .map(|piece| [self.before.as_slice(), piece, self.after.as_slice()].concat())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_evenly_and_completely() {
        let framing = Framing { before: vec![101], after: vec![102] };
        let tokens: Vec<u32> = (0..23).collect();
        let pieces = framing.pieces(&tokens, 12);
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 9]);
        let inner: Vec<u32> = pieces.iter().flat_map(|piece| piece[1..piece.len() - 1].to_vec()).collect();
        assert_eq!(inner, tokens);
        assert!(pieces.iter().all(|piece| piece[0] == 101 && piece[piece.len() - 1] == 102));
    }

    #[test]
    fn a_text_that_fits_stays_whole() {
        let framing = Framing { before: vec![101], after: vec![102] };
        assert_eq!(framing.pieces(&[7, 8], 4), [vec![101, 7, 8, 102]]);
    }
}
