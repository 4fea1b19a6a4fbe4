//! The end of a command: Ctrl-C, what is said about an error, and the exit code.

use std::io::{IsTerminal as _, Write as _};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{client::Target, error::CliError};

/// From now on Ctrl-C ends the process at once, and the jobs are named that go on without it.
///
/// # Errors
/// When the system will not tell of signals.
pub(crate) fn at_ctrl_c(target: Target, json: bool) -> Result<(), CliError> {
    let mut interrupts = signal(SignalKind::interrupt()).map_err(CliError::file("listen for Ctrl-C"))?;
    // Beside the command, which may be blocked: by a terminal that it reads, a pipe, or a program that it runs.
    tokio::spawn(async move {
        interrupts.recv().await;
        if std::io::stderr().is_terminal() {
            // What the terminal shows for the key, and perhaps a progress bar, stand in this line.
            let _ = writeln!(std::io::stderr());
        }
        std::process::exit(report(&CliError::Interrupted, &target, json).into());
    });
    Ok(())
}

/// Says on standard error what went wrong; the answer is the exit code.
pub(crate) fn report(error: &CliError, target: &Target, json: bool) -> u8 {
    let said = if json { as_json(error, target) } else { as_text(error, target) };
    // When nobody listens there is nobody to tell.
    let _ = std::io::stderr().write_all(said.as_bytes());
    error.exit_code()
}

/// Nothing about what was told already, or has nobody left to be told.
fn is_silent(error: &CliError) -> bool {
    matches!(error, CliError::Failed | CliError::Closed)
}

/// The jobs that the command would have waited for.
fn go_on(error: &CliError, target: &Target) -> Vec<String> {
    if matches!(error, CliError::Interrupted | CliError::OutOfReach(_)) { target.followed.jobs() } else { Vec::new() }
}

fn as_text(error: &CliError, target: &Target) -> String {
    if is_silent(error) {
        return String::new();
    }
    let (code, message) = error.code_and_message();
    let mut said = match error {
        CliError::Refused { .. } => format!("warren: {message} ({code})\n"),
        _ => format!("warren: {message}\n"),
    };
    for job in go_on(error, target) {
        let (watch, cancel) = (target.command(&format!("watch {job}")), target.command(&format!("cancel {job}")));
        said += &format!("{job} goes on without this command\n  to follow it:  {watch}\n  to stop it:    {cancel}\n");
    }
    said
}

fn as_json(error: &CliError, target: &Target) -> String {
    if is_silent(error) {
        return String::new();
    }
    let (code, message) = error.code_and_message();
    let mut said = json!({ "error": { "code": code, "message": message } });
    let jobs = go_on(error, target);
    if !jobs.is_empty() {
        said["error"]["jobs"] = jobs.into();
    }
    format!("{said}\n")
}

#[cfg(test)]
mod tests {
    use warren_messages::wire::{Job, JobState};

    use super::*;

    fn waiting() -> Target {
        let target = Target { server: Some("http://there:7070".to_owned()), ..Target::default() };
        for (id, state) in [("job_1", JobState::Queued), ("job_2", JobState::Running), ("job_1", JobState::Succeeded)] {
            target.followed.note(&Job { id: id.to_owned(), state: state.into(), ..Job::default() });
        }
        target
    }

    #[test]
    fn jobs_that_go_on_are_named_with_the_commands_for_them() {
        let away = CliError::OutOfReach("no answer".to_owned());
        for error in [CliError::Interrupted, away] {
            let said = as_text(&error, &waiting());
            assert!(said.contains("warren --server http://there:7070 watch job_2\n"), "{said}");
            assert!(said.contains("warren --server http://there:7070 cancel job_2\n"), "{said}");
            assert!(!said.contains("job_1"), "it has ended: {said}");
        }
        let refused = CliError::Usage("-o: is a file".to_owned());
        assert_eq!(as_text(&refused, &waiting()), "warren: -o: is a file\n");
    }

    #[test]
    fn programs_get_one_object() {
        let read = |error: &CliError, target: &Target| {
            serde_json::from_str::<serde_json::Value>(&as_json(error, target)).expect("JSON")
        };
        let refused = CliError::Refused { code: "ModelUnknown".to_owned(), message: "no `huge`".to_owned() };
        let expected = json!({ "error": { "code": "ModelUnknown", "message": "no `huge`" } });
        assert_eq!(read(&refused, &waiting()), expected);
        let interrupted = read(&CliError::Interrupted, &waiting());
        assert_eq!(interrupted["error"]["code"], "Interrupted");
        assert_eq!(interrupted["error"]["jobs"], json!(["job_2"]));
        assert!(interrupted["error"]["message"].is_string());
    }

    #[test]
    fn what_was_told_already_is_not_told_again() {
        for error in [CliError::Failed, CliError::Closed] {
            assert_eq!((as_text(&error, &waiting()), as_json(&error, &waiting())), (String::new(), String::new()));
        }
    }
}
