//! What Warren promises, row by row, and the test that shows each.
//!
//! `tests/capabilities.tsv` has four columns: id, promise, `done` or `missing`, and `FILE::TEST` of a row that is done,
//! where TEST is a function, or the name of a case.

use std::{collections::BTreeSet, fmt, fs, path::Path};

use super::{bench::Bench, tally::Tally};
use crate::error::CliError;

const FILE: &str = "tests/capabilities.tsv";

/// One promise.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    id: String,
    /// `FILE::TEST`; `None` while nothing shows it.
    shown_by: Option<(String, String)>,
}

/// How many promises are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    done: usize,
    missing: usize,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, missing } = self;
        write!(f, "capabilities: {done} of {} shown by a test, {missing} to come ({FILE})", done + missing)
    }
}

/// Checks that the test of each row that is done exists, and that it ran and passed in a complete run.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn run(bench: &mut Bench) -> Result<Tally, CliError> {
    let path = bench.workspace.root.join(FILE);
    let text = fs::read_to_string(&path).map_err(CliError::file(format!("read {}", path.display())))?;
    let (rows, mistakes) = parse(&text);
    let mut tally = Tally::default();
    for mistake in mistakes {
        tally.fail(mistake);
    }
    let mut counts = Capabilities::default();
    for row in &rows {
        match &row.shown_by {
            None => counts.missing += 1,
            Some((file, test)) => {
                counts.done += 1;
                tally.run += 1;
                let ran = bench.ran.get(test).copied();
                if !exists(&bench.workspace.root, file, test) {
                    tally.fail(format!("{}: there is no test {test} in {file}", row.id));
                } else if ran == Some(false) {
                    tally.fail(format!("{}: {test} failed", row.id));
                } else if ran.is_none() && bench.complete {
                    tally.fail(format!("{}: {test} did not run", row.id));
                }
            }
        }
    }
    bench.note(&counts.to_string());
    for trouble in &tally.trouble {
        bench.note(trouble);
    }
    bench.capabilities = Some(counts);
    Ok(tally)
}

/// The rows, and what is wrong with the file.
fn parse(text: &str) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut mistakes, mut ids) = (Vec::new(), Vec::new(), BTreeSet::new());
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    for (index, line) in lines {
        let place = format!("{FILE}:{}", index + 1);
        let columns: Vec<_> = line.split('\t').collect();
        let [id, promise, status, test] = columns[..] else {
            mistakes.push(format!("{place}: {} columns, not 4", columns.len()));
            continue;
        };
        if !ids.insert(id.to_owned()) {
            mistakes.push(format!("{place}: {id} is there twice"));
        }
        if promise.trim().is_empty() {
            mistakes.push(format!("{place}: {id} promises nothing"));
        }
        let shown_by = test.split_once("::").map(|(file, test)| (file.to_owned(), test.to_owned()));
        match (status, &shown_by) {
            ("done", Some(_)) | ("missing", None) => rows.push(Row { id: id.to_owned(), shown_by }),
            ("done", None) => mistakes.push(format!("{place}: {id} is done, but no FILE::TEST shows it")),
            ("missing", Some(_)) => mistakes.push(format!("{place}: {id} is missing and has a test; is it done?")),
            _ => mistakes.push(format!("{place}: {status:?} is neither done nor missing")),
        }
    }
    (rows, mistakes)
}

fn exists(root: &Path, file: &str, test: &str) -> bool {
    let text = fs::read_to_string(root.join(file)).unwrap_or_default();
    // Cases of end-to-end suites, and tests of other languages, are named by a string.
    text.contains(&format!("fn {test}(")) || text.contains(&format!("\"{test}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_mistakes_are_named_by_line() {
        let text = "# comment\n\nA1\tstates\tdone\ttests/a.rs::b\nA2\tmore\tmissing\t\nA2\t \tmissing\t\n\
                    A3\tx\tdone\t\nA4\tx\tmissing\ta::b\nA5\tx\tsoon\t\nA6\n";
        let (rows, mistakes) = parse(text);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0].shown_by, Some(("tests/a.rs".to_owned(), "b".to_owned())));
        let starts: Vec<_> = mistakes.iter().map(|mistake| mistake.split(' ').next().unwrap_or_default()).collect();
        let lines = [5, 5, 6, 7, 8, 9].map(|line| format!("tests/capabilities.tsv:{line}:"));
        assert_eq!(starts, lines);
    }

    #[test]
    fn the_file_of_this_repository_is_sound() {
        // Asked for when it runs: the checkout that this was built in may be another.
        let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo, or whoever runs this, names the package");
        let root = Path::new(&package).join("../..");
        let (rows, mistakes) = parse(&fs::read_to_string(root.join(FILE)).expect("the file"));
        assert_eq!(mistakes, [""; 0]);
        assert_eq!(rows.len(), 99);
        for (file, test) in rows.into_iter().filter_map(|row| row.shown_by) {
            assert!(exists(&root, &file, &test), "there is no test {test} in {file}");
        }
    }
}
