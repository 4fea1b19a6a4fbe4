//! What people type, as a query of each database. Only letters and digits get through, each word quoted, so that no
//! text is a syntax error or an operator.

/// Most words of a query that are looked at.
const MOST_WORDS: usize = 64;
/// Longest word that is looked at, in characters.
const LONGEST_WORD: usize = 64;

/// Words that say nothing about what a text is about: those that PostgreSQL's `english` leaves out. SQLite knows none,
/// and any passage with an `in` would come before one that means the same in other words.
const STOP_WORDS: &str = "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she \
    her hers herself it its itself they them their theirs themselves what which who whom this that these those am is \
    are was were be been being have has had having do does did doing a an the and but if or because as until while of \
    at by for with about against between into through during before after above below to from up down in out on off \
    over under again further then once here there when where why how all any both each few more most other some such \
    no nor not only own same so than too very s t can will just don should now";

/// For `MATCH` of FTS5: any of the words that mean something. `None` when there is none.
pub(super) fn fts5(query: &str) -> Option<String> {
    join(query, '"', " OR ", |word| !STOP_WORDS.split_whitespace().any(|stop| stop == word))
}

/// For `to_tsquery`: any of the words. `None` when there is no word.
pub(super) fn tsquery(query: &str) -> Option<String> {
    // PostgreSQL leaves its stop words out by itself.
    join(query, '\'', " | ", |_| true)
}

fn join(query: &str, quote: char, or: &str, counts: impl Fn(&str) -> bool) -> Option<String> {
    let mut words: Vec<String> = Vec::new();
    for word in query.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let word: String = word.chars().take(LONGEST_WORD).collect::<String>().to_lowercase();
        if words.len() < MOST_WORDS && counts(&word) && !words.contains(&word) {
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
        assert_eq!(fts5("NEAR(a, b) OR \"c*\"").as_deref(), Some("\"near\" OR \"b\" OR \"c\""));
        assert_eq!(tsquery("it's & !over <-> a:*\\").as_deref(), Some("'it' | 's' | 'over' | 'a'"));
        assert_eq!(fts5("  \"'*()-:^ \0"), None);
    }

    #[test]
    fn words_without_meaning_do_not_count() {
        assert_eq!(fts5("Where in the world is it?").as_deref(), Some("\"world\""));
        assert_eq!(fts5("To be or not to be"), None);
    }

    #[test]
    fn long_queries_are_cut() {
        let many: String = (0..1_000).map(|n| format!("w{n} ")).collect();
        assert_eq!(fts5(&many).map(|query| query.matches(" OR ").count()), Some(MOST_WORDS - 1));
        assert_eq!(fts5(&"x".repeat(10_000)).map(|query| query.len()), Some(LONGEST_WORD + 2));
    }
}
