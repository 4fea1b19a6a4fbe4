//! How far a text is from what was said.

/// Words without punctuation and case; figures up to ten as words.
pub fn words(text: &str) -> Vec<String> {
    let plain: String = text.chars().map(|c| if c.is_alphanumeric() || c == '\'' { c } else { ' ' }).collect();
    plain.to_lowercase().split_whitespace().map(|word| spelt(word).to_owned()).collect()
}

fn spelt(word: &str) -> &str {
    const WORDS: [&str; 11] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    word.parse::<usize>().ok().and_then(|number| WORDS.get(number).copied()).unwrap_or(word)
}

/// Word error rate: substitutions, deletions and insertions over the number of words of `said`.
///
/// # Panics
/// When nothing was said.
pub fn word_error_rate(said: &str, heard: &str) -> f64 {
    rate(&words(said), &words(heard))
}

/// The same in characters, for languages that write no spaces.
///
/// # Panics
/// When nothing was said.
pub fn character_error_rate(said: &str, heard: &str) -> f64 {
    let characters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<Vec<_>>();
    rate(&characters(said), &characters(heard))
}

fn rate<T: PartialEq>(said: &[T], heard: &[T]) -> f64 {
    assert!(!said.is_empty(), "there is nothing to compare with");
    distance(said, heard) as f64 / said.len() as f64
}

fn distance<T: PartialEq>(from: &[T], to: &[T]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted() {
        assert_eq!(word_error_rate("One, two, three.", "1 2 3"), 0.0);
        assert_eq!(word_error_rate("a b c d", "a x c d"), 0.25);
        assert_eq!(word_error_rate("a b c d", "b c d"), 0.25);
        assert_eq!(word_error_rate("a b", "a b c d"), 1.0);
        assert_eq!(word_error_rate("a b", ""), 1.0);
        assert_eq!(character_error_rate("你好，世界。", "你好世间"), 0.25);
    }
}
