//! The texts of a task: inside the message, or lines of an object.

use warren_blob::{Blobs, Key};
use warren_fault::{Code, Fault};
use warren_jobs::plan::MAX_TEXTS_OBJECT_BYTES;
use warren_messages::wire::{self, embed_task::Input};
use warren_worker::{Hand, Stopped};

/// Reads the texts of a task.
///
/// # Errors
/// `InputInvalid` names the empty text; `Malformed` and storage faults are ours.
pub(crate) async fn texts(work: &wire::EmbedTask, blobs: &Blobs, hand: &Hand) -> Result<Vec<String>, Stopped> {
    let texts = match &work.input {
        Some(Input::Texts(texts)) => texts.texts.clone(),
        Some(Input::Lines(lines)) => {
            hand.task().now("fetch");
            let (key, first, bytes) = place(lines)?;
            let found = hand.unless_dropped(blobs.get_range(&key, first, bytes)).await?;
            parse(lines, &found)?
        }
        None => return Err(malformed("one of `texts`, `lines` is required").into()),
    };
    check(work.first, &texts)?;
    Ok(texts)
}

fn malformed(what: &str) -> Fault {
    Fault::permanent(Code::Malformed, format!("embed: {what}"))
}

fn place(lines: &wire::TextLines) -> Result<(Key, u64, u64), Fault> {
    let key = Key::parse(&lines.key).map_err(|error| malformed(&format!("lines.key: {error}")))?;
    let first = u64::try_from(lines.first_byte).map_err(|_| malformed("lines.firstByte: is negative"))?;
    let bytes = u64::try_from(lines.bytes).ok().filter(|bytes| (1..=MAX_TEXTS_OBJECT_BYTES).contains(bytes));
    let bytes = bytes.ok_or_else(|| malformed(&format!("lines.bytes: must be 1 to {MAX_TEXTS_OBJECT_BYTES}")))?;
    Ok((key, first, bytes))
}

/// One JSON string a line, as many as the task says.
fn parse(lines: &wire::TextLines, bytes: &[u8]) -> Result<Vec<String>, Fault> {
    let damaged = |what: String| Fault::retryable(Code::BlobDamaged, format!("object {}: {what}", lines.key));
    if bytes.len() as u64 != u64::try_from(lines.bytes).unwrap_or(0) {
        return Err(damaged(format!("{} of {} bytes at {}", bytes.len(), lines.bytes, lines.first_byte)));
    }
    let texts: Vec<String> = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).map_err(|error| damaged(format!("a line is no JSON string: {error}"))))
        .collect::<Result<_, _>>()?;
    if texts.len() as u64 != u64::from(lines.count) {
        return Err(damaged(format!("{} lines where {} should be", texts.len(), lines.count)));
    }
    Ok(texts)
}

/// Texts are counted from the start of the job, as the caller counts them.
fn check(first: u32, texts: &[String]) -> Result<(), Fault> {
    if texts.is_empty() {
        return Err(malformed("there is no text"));
    }
    match texts.iter().position(|text| text.trim().is_empty()) {
        Some(index) => {
            let index = u64::from(first) + index as u64;
            Err(Fault::permanent(Code::InputInvalid, format!("text {index} (counted from 0) is empty; leave it out")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: usize, count: u32) -> wire::TextLines {
        wire::TextLines {
            key: "texts/00000000-0000-0000-0000-000000000001/0".to_owned(),
            first_byte: 0,
            bytes: i64::try_from(bytes).expect("small"),
            count,
        }
    }

    #[test]
    fn lines_are_json_strings() {
        let object = "\"one\"\n\"two\\nlines\"\n\"\u{e9}t\u{e9}\"".as_bytes();
        assert_eq!(parse(&lines(object.len(), 3), object), Ok(vec!["one".into(), "two\nlines".into(), "été".into()]));
    }

    #[test]
    fn damage_is_told_from_input() {
        for (object, count) in [(&b"\"one\"\nnot json\n"[..], 2), (&b"\"one\"\n"[..], 2)] {
            let fault = parse(&lines(object.len(), count), object).expect_err("damaged");
            assert_eq!(fault.cause().code, Code::BlobDamaged);
        }
        let short = parse(&lines(99, 1), b"\"one\"\n").expect_err("too short");
        assert!(short.cause().message.contains("6 of 99 bytes"), "{short}");
        assert!(place(&wire::TextLines { bytes: -1, ..lines(1, 1) }).is_err());
        assert!(place(&wire::TextLines { key: "../secret".to_owned(), ..lines(1, 1) }).is_err());
    }

    #[test]
    fn an_empty_text_is_named_as_the_caller_counts() {
        let fault = check(64, &["a".to_owned(), " ".to_owned()]).expect_err("empty");
        assert!(fault.is_input() && fault.cause().message.contains("text 65"), "{fault}");
    }
}
