//! What an operator changed in a body, for the audit.

use serde_json::{Map, Value, json};

/// Longest text that is kept of a value, and longest name of a field, in characters.
const MOST: usize = 2_000;
const MOST_NAME: usize = 200;
/// Most fields that are named.
const MOST_FIELDS: usize = 100;
/// Stands for the fields beyond.
const MORE: &str = "…";

/// The fields that differ, each with what it was and what it is; of bodies that are no JSON, the whole. Bounded, however
/// long the bodies are: beyond 100 fields, only their number is kept, under `…`.
pub fn changes(before: &[u8], after: &[u8]) -> Value {
    let parsed = (serde_json::from_slice(before), serde_json::from_slice(after));
    let mut changes = Changes { path: Vec::new(), named: Map::new(), more: 0 };
    match &parsed {
        (Ok(before), Ok(after)) => changes.compare(before, after),
        _ => changes.note(&text(before), &text(after)),
    }
    if changes.more > 0 {
        changes.named.insert(MORE.to_owned(), json!({ "fields": changes.more }));
    }
    Value::Object(changes.named)
}

fn text(body: &[u8]) -> Value {
    String::from_utf8_lossy(body).into()
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

struct Changes<'a> {
    /// Where the comparison is. Written out only for what differs: names may be long and fields many.
    path: Vec<Step<'a>>,
    named: Map<String, Value>,
    more: usize,
}

impl<'a> Changes<'a> {
    fn compare(&mut self, before: &'a Value, after: &'a Value) {
        match (before, after) {
            (Value::Object(before), Value::Object(after)) => {
                let new = after.keys().filter(|name| !before.contains_key(*name));
                for name in before.keys().chain(new) {
                    let (before, after) = (before.get(name), after.get(name));
                    self.below(Step::Field(name), before.unwrap_or(&Value::Null), after.unwrap_or(&Value::Null));
                }
            }
            (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
                for (index, (before, after)) in before.iter().zip(after).enumerate() {
                    self.below(Step::Index(index), before, after);
                }
            }
            _ if before == after => {}
            _ => self.note(before, after),
        }
    }

    fn below(&mut self, step: Step<'a>, before: &'a Value, after: &'a Value) {
        self.path.push(step);
        self.compare(before, after);
        self.path.pop();
    }

    fn note(&mut self, before: &Value, after: &Value) {
        if self.named.len() == MOST_FIELDS {
            self.more += 1;
            return;
        }
        let mut name = String::new();
        for step in &self.path {
            match step {
                Step::Field(field) if name.is_empty() => name.push_str(field),
                Step::Field(field) => name.extend([".", field]),
                Step::Index(index) => name.push_str(&format!("[{index}]")),
            }
        }
        self.named.insert(end(&name), json!({ "from": short(before), "to": short(after) }));
    }
}

/// As it is, or the beginning of it.
fn short(value: &Value) -> Value {
    let written = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if written.len() <= MOST { value.clone() } else { written.chars().take(MOST).collect::<String>().into() }
}

/// As it is, or the end of it, which tells fields apart.
fn end(name: &str) -> String {
    match name.char_indices().rev().nth(MOST_NAME) {
        None => name.to_owned(),
        Some(_) => {
            let from = name.char_indices().rev().nth(MOST_NAME - 1).map_or(0, |(at, _)| at);
            format!("{MORE}{}", &name[from..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_kept() {
        let before = br#"{"id":"t","prepare":{"mediaKey":"m","sizeBytes":"many"},"list":[1,2]}"#;
        let after = br#"{"id":"t","prepare":{"mediaKey":"m","sizeBytes":"9"},"list":[1,3],"new":true}"#;
        let expected = json!({
            "prepare.sizeBytes": { "from": "many", "to": "9" },
            "list[1]": { "from": 2, "to": 3 },
            "new": { "from": null, "to": true },
        });
        assert_eq!(changes(before, after), expected);
        assert_eq!(changes(before, before), json!({}));
    }

    #[test]
    fn a_body_that_is_no_json_is_kept_as_it_was_and_never_whole_when_it_is_long() {
        assert_eq!(changes(b"not json", b"{}"), json!({ "": { "from": "not json", "to": "{}" } }));
        let long = vec![b'x'; 10_000];
        let kept = changes(&long, b"{}");
        assert_eq!(kept[""]["from"].as_str().map(str::len), Some(MOST));
    }

    #[test]
    fn the_record_is_bounded_however_many_fields_differ() {
        let nested = |leaf: &str| {
            let name = "n".repeat(5_000);
            let leaves: Vec<_> = (0..1_000).map(|index| format!("\"{index}\":{leaf}")).collect();
            let inner = format!("{{{}}}", leaves.join(","));
            (0..50).fold(inner, |inner, _| format!("{{\"{name}\":{inner}}}"))
        };
        let kept = changes(nested("1").as_bytes(), nested("2").as_bytes());
        assert_eq!(kept[MORE]["fields"], 900);
        assert!(kept.to_string().len() < 100_000);
    }
}
