//! What people type, as a query of each database. Only letters and digits get through, each word quoted, so that no
//! text is a syntax error or an operator.

/// Most words of a query that are looked at.
const MOST_WORDS: usize = 64;
/// Longest word that is looked at, in characters.
const LONGEST_WORD: usize = 64;

/// For `MATCH` of FTS5: any of the words. `None` when there is no word.
pub(super) fn fts5(query: &str) -> Option<String> {
    join(query, '"', " OR ")
}

/// For `to_tsquery`: any of the words. `None` when there is no word.
pub(super) fn tsquery(query: &str) -> Option<String> {
    join(query, '\'', " | ")
}

fn join(query: &str, quote: char, or: &str) -> Option<String> {
    let mut words: Vec<String> = Vec::new();
    for word in query.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let word: String = word.chars().take(LONGEST_WORD).collect::<String>().to_lowercase();
        if words.len() < MOST_WORDS && !words.contains(&word) {
            words.push(word);
        }
    }
    (!words.is_empty()).then(|| words.iter().map(|word| format!("{quote}{word}{quote}")).collect::<Vec<_>>().join(or))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_and_quotes_do_not_get_through() {
        assert_eq!(fts5("NEAR(a, b) OR \"c*\"").as_deref(), Some("\"near\" OR \"a\" OR \"b\" OR \"or\" OR \"c\""));
        assert_eq!(tsquery("it's & !over <-> a:*\\").as_deref(), Some("'it' | 's' | 'over' | 'a'"));
        assert_eq!(fts5("  \"'*()-:^ \0"), None);
    }

    #[test]
    fn long_queries_are_cut() {
        let many: String = (0..1_000).map(|n| format!("w{n} ")).collect();
        assert_eq!(fts5(&many).map(|query| query.matches(" OR ").count()), Some(MOST_WORDS - 1));
        assert_eq!(fts5(&"x".repeat(10_000)).map(|query| query.len()), Some(LONGEST_WORD + 2));
    }
}
