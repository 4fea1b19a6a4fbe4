//! What the README promises, held against the code.

use clap::Parser as _;
use tonic::{Code as Grpc, Status};
use warren_fault::Code;
use warren_models::USUAL;

use crate::{Arguments, error::CliError};

const README: &str = include_str!("../../../README.md");
const SCRIPT: &str = include_str!("../../../warren");
/// Where the server's refusals are made.
const REFUSALS: &str = include_str!("../../../services/ingest/src/status.rs");

/// The rows of the `number`th table of codes: code, whose, meaning.
fn codes(number: usize) -> Vec<(String, String, String)> {
    let table = README.split("| Code | Whose | Meaning |\n| --- | --- | --- |\n").nth(number + 1).unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
        let [_, code, whose, meaning, _] = cells.try_into().unwrap();
        (code.trim_matches('`').to_owned(), whose, meaning)
    })
    .collect()
}

#[test]
fn every_code_of_a_job_is_explained() {
    let whose = |code: &Code| if code.is_input() { "caller" } else { "" };
    let expected: Vec<_> = Code::ALL
        .iter()
        .map(|code| (code.to_string(), whose(code).to_owned(), code.meaning().trim().to_owned()))
        .collect();
    assert_eq!(codes(0), expected);
}

#[test]
fn every_code_of_a_refusal_is_explained() {
    let known: Vec<_> = codes(0).into_iter().chain(codes(1)).map(|(code, _, _)| code).collect();
    let named = REFUSALS.split("with_error_info(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    // What the server refuses without a code of ours, under the name that the client gives it.
    let bare = [Grpc::NotFound, Grpc::Unauthenticated, Grpc::PermissionDenied, Grpc::DeadlineExceeded]
        .map(|code| CliError::from(Status::new(code, "")).code_and_message().0);
    let client = [CliError::OutOfReach(String::new()), CliError::Usage(String::new()), CliError::Failed]
        .map(|error| error.code_and_message().0);
    let all: Vec<_> = named.chain(bare).chain(client).collect();
    assert!(all.len() > 7, "{all:?}");
    for code in all {
        assert!(known.contains(&code), "{code} is not in the README");
    }
}

/// Every command in the table of what operators do is one, with these arguments.
#[test]
fn every_operators_command_is_one() {
    let table = README.split("| Command | What it does |\n| --- | --- |\n").nth(1).unwrap();
    let rows: Vec<_> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 8, "{rows:?}");
    for cell in rows.iter().filter_map(|row| row.split('|').nth(1)) {
        for command in cell.split('`').skip(1).step_by(2) {
            let words = command.replace("KIND", "embed").replace(" N", " 3").replace("JOB", "job_1");
            let parsed = Arguments::try_parse_from(["warren"].into_iter().chain(words.split_whitespace()));
            assert!(parsed.is_ok(), "{command}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
        }
    }
}

#[test]
fn the_first_build_takes_as_long_in_both_places() {
    let claim = "about 16 minutes on 2 cores";
    assert!(README.contains(claim) && SCRIPT.contains(claim));
}

#[test]
fn the_usual_models_are_named() {
    assert!(README.contains(&format!("({})", USUAL.join(", "))));
}
