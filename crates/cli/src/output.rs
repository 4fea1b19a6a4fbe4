//! How things look: tables for people, one JSON value a line for programs.

use std::{fmt::Display, io::ErrorKind};

use comfy_table::{ContentArrangement, Table, presets};
use pbjson_types::Timestamp;
use serde_json::Value;
use warren_messages::wire::JobState;

use crate::error::CliError;

/// Prints a result on its own line.
///
/// # Errors
/// As [`text`].
pub(crate) fn line(result: impl Display) -> Result<(), CliError> {
    text(format_args!("{result}\n"))
}

/// Prints a result as it is.
///
/// # Errors
/// [`CliError::Closed`] when nobody reads any more, as after `| head -1`; [`CliError::File`] e.g. on a full disk.
pub(crate) fn text(result: impl Display) -> Result<(), CliError> {
    write(&mut std::io::stdout().lock(), result)
}

fn write(stdout: &mut impl std::io::Write, result: impl Display) -> Result<(), CliError> {
    write!(stdout, "{result}").and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => CliError::Closed,
        _ => CliError::file("standard output")(error),
    })
}

/// Prints one JSON value on its own line.
///
/// # Errors
/// As [`text`].
pub(crate) fn json_line(value: &Value) -> Result<(), CliError> {
    line(value)
}

/// A borderless table that fits the terminal.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.to_vec());
    table
}

/// A table of what has ids: these are to be copied, so no line is broken, however narrow the terminal.
pub(crate) fn listing(header: &[&str]) -> Table {
    let mut table = table(header);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// The beginning of a text, for a table.
pub(crate) fn beginning(text: &str, most: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= most && line.len() == text.len() {
        return text.to_owned();
    }
    line.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The state as one word.
pub(crate) fn state(state: JobState) -> &'static str {
    match state {
        JobState::Unspecified => "unknown",
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// `2026-03-01 12:00:05` in UTC; empty when absent.
pub(crate) fn time(timestamp: Option<&Timestamp>) -> String {
    // Canonical JSON writes a timestamp as RFC 3339.
    let written = timestamp.and_then(|timestamp| serde_json::to_value(timestamp).ok());
    let text = written.as_ref().and_then(Value::as_str).unwrap_or_default();
    text.chars().take(19).collect::<String>().replace('T', " ")
}

/// `1:02:03` or `2:03`.
pub(crate) fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use warren_messages::from_millis;

    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is() {
        let (reader, mut pipe) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert!(matches!(write(&mut pipe, "result"), Err(CliError::Closed)));
        let mut full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let error = write(&mut full, "result").expect_err("no room");
        assert!(error.exit_code() == 1 && error.to_string().starts_with("standard output: "), "{error}");
    }

    #[test]
    fn long_texts_are_shortened_and_ids_are_not_broken() {
        assert_eq!((beginning("as it is", 8), beginning("too long", 7)), ("as it is".to_owned(), "too lo…".to_owned()));
        assert_eq!(beginning("two\nlines", 20), "two…");
        let id = "job_01a20299-7970-7099-9cb5-83f96d1e75c1".repeat(6);
        let mut table = listing(&["job"]);
        table.add_row([&id]);
        assert!(table.to_string().contains(&id));
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time(Some(&from_millis(0))), "1970-01-01 00:00:00");
        assert_eq!(time(Some(&from_millis(951_782_399_999))), "2000-02-28 23:59:59");
        assert_eq!(time(Some(&from_millis(1_709_208_000_000))), "2024-02-29 12:00:00");
        assert_eq!(time(None), "");
    }

    #[test]
    fn clocks_are_short() {
        assert_eq!((clock(5.4), clock(75.0), clock(3723.0)), ("0:05".into(), "1:15".into(), "1:02:03".into()));
    }
}
