//! Three searches by meaning alone.

use warren_messages::wire::{EmbedSpec, JobState, SearchHit};
use warren_recordings::error_rate::normalised_words;

use super::{
    facts::{FACTS, SEARCHES, Wanted},
    fetch::MEANING,
    phases::Phases,
    told,
};
use crate::{
    client::{Server, Terms},
    commands::{embed::embed, search::search},
    error::CliError,
    output,
};

/// So many passages at least must be there to choose from.
const ENOUGH: u64 = 20;
/// Words that carry no meaning.
const EMPTY: [&str; 31] = [
    "a", "an", "and", "as", "at", "before", "by", "can", "do", "does", "for", "from", "has", "in", "is", "it", "its",
    "not", "of", "on", "so", "than", "that", "the", "their", "then", "to", "was", "were", "what", "with",
];
/// Words with so many first letters in common may be forms of one word, such as `leaping` and `leaps`.
const ALIKE: usize = 4;

/// Indexes the facts, searches, prints and returns what is wrong.
///
/// # Errors
/// When the server refuses, or the job fails.
pub(super) async fn all(server: &Server, phases: &mut Phases) -> Result<Vec<String>, CliError> {
    let begun = phases.begin("embed texts");
    let texts = FACTS.map(str::to_owned).to_vec();
    let spec = EmbedSpec { texts, model: MEANING.to_owned(), index: true };
    let job = told("embedding", embed(server, spec, Terms::default())).await?;
    if job.state() != JobState::Succeeded {
        let message = format!("embedding the facts: {}: {}", output::state(job.state()), job.error_message);
        return Err(CliError::Refused { code: job.error_code, message });
    }
    phases.end(begun);

    let begun = phases.begin("search");
    let mut troubles = Vec::new();
    for wanted in &SEARCHES {
        let found = told("searching", search(server, wanted.query, 3)).await?;
        if found.indexed < ENOUGH {
            troubles.push(format!("only {} passages are indexed, of at least {ENOUGH}", found.indexed));
        }
        println!("\"{}\", among {} passages:", wanted.query, found.indexed);
        for hit in &found.hits {
            println!("  {:.2}  {}", hit.similarity, hit.text);
        }
        troubles.extend(judge(wanted, found.hits.first()));
    }
    phases.end(begun);
    Ok(troubles)
}

fn judge(wanted: &Wanted, first: Option<&SearchHit>) -> Option<String> {
    let Some(first) = first else { return Some(format!("\"{}\": nothing found", wanted.query)) };
    if !normalised_words(&first.text).join(" ").contains(&normalised_words(wanted.phrase).join(" ")) {
        return Some(format!("\"{}\": {} should come first, not: {}", wanted.query, wanted.source, first.text));
    }
    let shared = shared(wanted.query, &first.text);
    (!shared.is_empty()).then(|| format!("\"{}\" shares words with its passage: {}", wanted.query, shared.join(", ")))
}

/// Words of the query that are in the text in some form.
fn shared(query: &str, text: &str) -> Vec<String> {
    let content = |text: &str| {
        let words = normalised_words(text).into_iter();
        words.filter(|word| !EMPTY.contains(&word.as_str())).collect::<Vec<_>>()
    };
    let text = content(text);
    let in_text = |word: &String| text.iter().any(|other| alike(word, other));
    content(query).into_iter().filter(in_text).collect()
}

fn alike(left: &str, right: &str) -> bool {
    let common = left.chars().zip(right.chars()).take_while(|(left, right)| left == right).count();
    let shorter = left.chars().count().min(right.chars().count());
    left == right || common >= ALIKE || (common >= 3 && common == shorter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: [&str; 2] = [
        "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country.",
        "The quick brown fox jumps over the lazy dog.",
    ];

    #[test]
    fn no_query_shares_a_word_with_any_text() {
        for wanted in &SEARCHES {
            for text in FACTS.iter().chain(&SAID) {
                assert_eq!(shared(wanted.query, text), Vec::<String>::new(), "{}: {text}", wanted.query);
            }
        }
    }

    #[test]
    fn every_wanted_passage_is_there_once() {
        for wanted in &SEARCHES {
            let phrase = normalised_words(wanted.phrase).join(" ");
            let texts = FACTS.iter().chain(&SAID);
            let right = texts.filter(|text| normalised_words(text).join(" ").contains(&phrase)).count();
            assert_eq!(right, 1, "{}", wanted.query);
        }
    }

    #[test]
    fn forms_of_a_word_are_that_word() {
        assert_eq!(shared("the leaping fox", "A leap over foxes"), ["leaping", "fox"]);
        assert_eq!(shared("one day", "1 of the days"), ["1", "day"]);
        assert!(shared("what is it", "what it is").is_empty());
    }

    #[test]
    fn another_passage_first_is_a_trouble() {
        let hit = |text: &str| SearchHit { text: text.to_owned(), ..SearchHit::default() };
        let wanted = &SEARCHES[1];
        assert_eq!(judge(wanted, Some(&hit(SAID[1]))), None);
        assert!(judge(wanted, Some(&hit(SAID[0]))).unwrap().contains("should come first"));
        assert!(judge(wanted, Some(&hit("The brown fox jumps, an animal"))).unwrap().contains("shares words"));
        assert!(judge(wanted, None).is_some());
    }
}
