//! How far a transcript is from the words that were said.
//!
//! Case, punctuation, accents written in one or two characters, and full-width forms make no difference; neither does
//! a number from one to ten written in digits (en, es, fr, it, pt).

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

/// Languages that are written without spaces, so that there are no words to count.
const WITHOUT_SPACES: [&str; 7] = ["ja", "zh", "yue", "th", "lo", "my", "km"];
/// One to ten, in languages that are often written down in digits.
const NUMBERS: [&[&str]; 10] = [
    &["one", "uno", "un", "um"],
    &["two", "dos", "deux", "due", "dois"],
    &["three", "tres", "trois", "tre", "três"],
    &["four", "cuatro", "quatre", "quattro", "quatro"],
    &["five", "cinco", "cinq", "cinque"],
    &["six", "seis", "sei"],
    &["seven", "siete", "sept", "sette", "sete"],
    &["eight", "ocho", "huit", "otto", "oito"],
    &["nine", "nueve", "neuf", "nove"],
    &["ten", "diez", "dix", "dieci", "dez"],
];

/// Word error rate: insertions, deletions and substitutions for each word of the reference. 0 is perfect; above 1 is
/// possible. Without words in the reference, 0 if nothing was heard, else 1.
pub fn words(reference: &str, heard: &str) -> f64 {
    rate(&normalised_words(reference), &normalised_words(heard))
}

/// Character error rate, without spaces; otherwise as [`words`].
pub fn characters(reference: &str, heard: &str) -> f64 {
    let characters = |text: &str| plain(text).filter(|c| !c.is_whitespace()).collect::<Vec<_>>();
    rate(&characters(reference), &characters(heard))
}

/// [`characters`] for languages written without spaces, else [`words`]. `language` is ISO 639-1.
pub fn of(language: &str, reference: &str, heard: &str) -> f64 {
    if counts_characters(language) { characters(reference, heard) } else { words(reference, heard) }
}

/// True when the language's errors are counted by characters.
pub fn counts_characters(language: &str) -> bool {
    WITHOUT_SPACES.contains(&language)
}

/// The words that are compared.
pub fn normalised_words(text: &str) -> Vec<String> {
    let plain: String = plain(text).collect();
    let word = |word: &str| match NUMBERS.iter().position(|spellings| spellings.contains(&word)) {
        Some(before) => (before + 1).to_string(),
        None => word.to_owned(),
    };
    plain.split_whitespace().map(word).collect()
}

/// Lower case, with spaces for punctuation and nothing for apostrophes.
fn plain(text: &str) -> impl Iterator<Item = char> {
    text.nfkc().flat_map(char::to_lowercase).filter(|c| !matches!(c, '\'' | '’' | 'ʼ')).map(|c| {
        // Vowel signs of Indian scripts are marks, and part of the word.
        if c.is_alphanumeric() || is_combining_mark(c) { c } else { ' ' }
    })
}

fn rate<T: PartialEq>(reference: &[T], heard: &[T]) -> f64 {
    if reference.is_empty() {
        return if heard.is_empty() { 0.0 } else { 1.0 };
    }
    distance(reference, heard) as f64 / reference.len() as f64
}

/// Levenshtein's distance, in memory for one row.
fn distance<T: PartialEq>(from: &[T], to: &[T]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (deleted, left) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = deleted + 1;
        for (column, right) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(left != right);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_the_words_that_were_said() {
        assert_eq!(words("the quick brown fox", "the quick brown fox"), 0.0);
        assert_eq!(words("the quick brown fox", "the brown fox"), 0.25);
        assert_eq!(words("the quick brown fox", "the quick brown red fox"), 0.25);
        assert_eq!(words("the quick brown fox", "the quick green fox"), 0.25);
        assert_eq!(words("the quick brown fox", ""), 1.0);
        assert_eq!(words("fox", "one two three"), 3.0);
        assert_eq!((words("", ""), words("", "fox")), (0.0, 1.0));
    }

    #[test]
    fn spelling_of_the_same_words_makes_no_difference() {
        assert_eq!(words("And so, my fellow Americans: ask not", "and so my fellow americans ask NOT..."), 0.0);
        assert_eq!(words("l’école", "L'ÉCOLE"), 0.0);
        assert_eq!(words("caf\u{e9}", "cafe\u{301}"), 0.0);
        assert_eq!(words("One two ten", "1, 2, 10."), 0.0);
        assert_eq!(words("Um dois três", "1-2-3"), 0.0);
        assert_eq!(words("ＡＢＣ １", "abc 1"), 0.0);
        assert_eq!(words("नमस्ते दुनिया.", "नमस्ते दुनिया"), 0.0);
        assert_eq!(normalised_words("नमस्ते").len(), 1);
    }

    #[test]
    fn characters_are_counted_where_there_are_no_spaces() {
        assert_eq!(of("ja", "こんにちは世界。", "こんにちは 世界"), 0.0);
        assert_eq!(of("zh", "你好世界", "你号世界"), 0.25);
        assert_eq!(of("en", "hello world", "hello word"), 0.5);
        assert!(counts_characters("zh") && !counts_characters("fr"));
    }

    #[test]
    fn the_distance_is_symmetric() {
        let (left, right): (Vec<_>, Vec<_>) = ("kitten".chars().collect(), "sitting".chars().collect());
        assert_eq!((distance(&left, &right), distance(&right, &left)), (3, 3));
    }
}
