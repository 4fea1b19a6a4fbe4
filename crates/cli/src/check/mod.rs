//! `warren test`: every check of this repository, with a table at the end.

mod bench;
mod capabilities;
mod leftovers;
mod live;
mod programs;
mod suites;
mod tally;
mod tools;
mod workspace;

use std::time::{Duration, Instant};

use bench::Bench;
use clap::Args;
use live::clock;
use suites::{Skip, Suite};
use tally::Tally;
pub(crate) use workspace::Workspace;

use crate::{error::CliError, output};

/// How long processes of a suite may take to end after it.
const END: Duration = Duration::from_secs(15);

/// Run every test of this repository.
#[derive(Args, Debug)]
pub(crate) struct Test {
    /// Only what takes less than three minutes once it is built: formatting, unit and contract suites.
    #[arg(long, conflicts_with = "suites")]
    quick: bool,
    /// Also what takes long, and all sizes in full: recordings of hours, minutes of crashes, the CUDA build.
    #[arg(long)]
    nightly: bool,
    /// Say which suites there are, and run none.
    #[arg(long)]
    list: bool,
    /// Only these.
    #[arg(value_name = "SUITE")]
    suites: Vec<String>,
}

/// What runs, and what does not.
#[derive(Debug, Default)]
struct Choice {
    run: Vec<Suite>,
    /// Name and reason.
    not_run: Vec<(String, String)>,
}

/// What became of a suite.
struct Row {
    suite: String,
    tally: Tally,
    took: Duration,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failed`] when anything failed or was skipped, [`CliError::Usage`] when a program is missing.
pub(crate) async fn run(arguments: &Test) -> Result<(), CliError> {
    let workspace = Workspace::find()?;
    let all = suites::all(&workspace)?;
    if arguments.list {
        let mut table = output::table(&["suite", "when", "what"]);
        for suite in &all {
            table.add_row([suite.name.as_str(), suite.when.word(), &suite.about]);
        }
        println!("{table}");
        return Ok(());
    }
    let Choice { run: chosen, not_run } = choose(all, arguments)?;
    leftovers::adopt_orphans();
    let mut bench = Bench::new(workspace, arguments.suites.is_empty() && !arguments.quick, arguments.nightly)?;
    announce(&chosen, &bench);

    let (start, mut rows, mut left) = (Instant::now(), Vec::new(), chosen.as_slice());
    while let [suite, others @ ..] = left {
        let together = left.iter().take_while(|suite| !arguments.nightly && suite.bears_company()).count();
        if together > 1 {
            rows.extend(run_together(&left[..together], &mut bench).await?);
            left = &left[together..];
        } else {
            rows.push(run_suite(suite, &mut bench).await?);
            left = others;
        }
    }
    println!("{}", table(&rows, &not_run, start.elapsed()));
    bench.say_capabilities();
    let sound = rows.iter().all(|row| row.tally.sound());
    if sound { Ok(()) } else { Err(CliError::Failed) }
}

fn choose(all: Vec<Suite>, arguments: &Test) -> Result<Choice, CliError> {
    if let Some(unknown) = arguments.suites.iter().find(|name| all.iter().all(|suite| suite.name != **name)) {
        let names: Vec<_> = all.iter().map(|suite| suite.name.as_str()).collect();
        return Err(CliError::Usage(format!("there is no suite {unknown}; there are {}", names.join(", "))));
    }
    let mut choice = Choice::default();
    for suite in all {
        let asked = arguments.suites.contains(&suite.name);
        let skip = if arguments.suites.is_empty() { suite.skip(arguments.quick, arguments.nightly) } else { None };
        match skip {
            None if asked || arguments.suites.is_empty() => choice.run.push(suite),
            None => {}
            // Whoever asks for the quick ones knows what is missing.
            Some(Skip::NotQuick) => {}
            Some(Skip::Nightly) => {
                choice.not_run.push((suite.name, "not run: takes long; --nightly runs it".to_owned()));
            }
            Some(Skip::NoCard) => {
                choice.not_run.push((suite.name, "not run: this machine has no CUDA card".to_owned()));
            }
        }
    }
    Ok(choice)
}

/// Says beforehand what will be downloaded and how long it takes.
fn announce(chosen: &[Suite], bench: &Bench) {
    let minutes: u32 = chosen.iter().map(|suite| suite.minutes).sum();
    let names: Vec<_> = chosen.iter().map(|suite| suite.name.as_str()).collect();
    eprintln!(
        "{} suites, about {minutes} minutes on 2 cores once everything is built: {}",
        chosen.len(),
        names.join(", ")
    );
    let downloads = suites::downloads(chosen, bench);
    if downloads.is_empty() {
        eprintln!("nothing is downloaded: tools and models are here already");
    }
    for download in downloads {
        eprintln!("  downloads {download}");
    }
    eprintln!("full output: {}", bench.logs().display());
}

async fn run_suite(suite: &Suite, bench: &mut Bench) -> Result<Row, CliError> {
    let start = Instant::now();
    bench.begin(suite)?;
    let mut tally = suite.run(bench).await?;
    for process in leftovers::end_all(END) {
        tally.fail(format!("left a process behind: {process}"));
    }
    let took = start.elapsed();
    bench.end(suite, &tally, took);
    Ok(Row { suite: suite.name.clone(), tally, took })
}

/// Runs suites side by side, once the first of them has built what all of them run on.
async fn run_together(suites: &[Suite], bench: &mut Bench) -> Result<Vec<Row>, CliError> {
    let [first, others @ ..] = suites else { return Ok(Vec::new()) };
    let mut rows = vec![run_suite(first, bench).await?];
    let done = suites::run_side_by_side(others, bench).await?;
    rows.extend(done.into_iter().map(|(suite, tally, took)| Row { suite: suite.name, tally, took }));
    if let Some(row) = rows.last_mut() {
        for process in leftovers::end_all(END) {
            row.tally.fail(format!("this suite or one beside it left a process behind: {process}"));
        }
    }
    Ok(rows)
}

fn table(rows: &[Row], not_run: &[(String, String)], time: Duration) -> comfy_table::Table {
    let mut table = output::table(&["", "suite", "run", "failed", "skipped", "time"]);
    let mut sum = Tally::default();
    for Row { suite, tally, took } in rows {
        sum.add(tally);
        table.add_row(line(if tally.sound() { "✓" } else { "✗" }, suite, tally, *took));
    }
    for (suite, why) in not_run {
        table.add_row(["–", suite, why]);
    }
    table.add_row(line(if sum.sound() { "✓" } else { "✗" }, "all", &sum, time));
    table
}

fn line(mark: &str, suite: &str, tally: &Tally, took: Duration) -> [String; 6] {
    let number = |count: u32| count.to_string();
    let (run, failed, skipped) = (number(tally.run), number(tally.failed), number(tally.skipped));
    [mark.to_owned(), suite.to_owned(), run, failed, skipped, clock(took)]
}

#[cfg(test)]
mod tests {
    use super::{suites::When, *};

    fn suite(name: &str, when: When) -> Suite {
        Suite::for_test(name, when)
    }

    fn arguments(quick: bool, nightly: bool, suites: &[&str]) -> Test {
        Test { quick, nightly, list: false, suites: suites.iter().map(|&name| name.to_owned()).collect() }
    }

    fn chosen(quick: bool, nightly: bool, names: &[&str]) -> (Vec<String>, usize) {
        let all = vec![suite("unit", When::Quick), suite("demo", When::Always), suite("long", When::Nightly)];
        let choice = choose(all, &arguments(quick, nightly, names)).expect("known names");
        (choice.run.into_iter().map(|suite| suite.name).collect(), choice.not_run.len())
    }

    #[test]
    fn what_does_not_run_is_said_with_the_reason() {
        assert_eq!(chosen(false, false, &[]), (vec!["unit".into(), "demo".into()], 1));
        assert_eq!(chosen(false, true, &[]), (vec!["unit".into(), "demo".into(), "long".into()], 0));
        assert_eq!(chosen(true, false, &[]), (vec!["unit".into()], 0));
        assert_eq!(chosen(false, false, &["long"]), (vec!["long".into()], 0));
    }

    #[test]
    fn an_unknown_suite_is_refused_with_the_known_ones() {
        let all = vec![suite("unit", When::Quick)];
        let error = choose(all, &arguments(false, false, &["units"])).expect_err("unknown").to_string();
        assert!(error.contains("units") && error.contains("there are unit"), "{error}");
    }
}
