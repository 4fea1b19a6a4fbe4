//! `warren transcript`: the text of a job that was submitted before.

use clap::Args;
use serde_json::json;

use super::transcribe::{Format, fetch, rendered, segments};
use crate::{client::Server, error::CliError, output};

/// Show the text of a job: all of it, or as much as there is.
#[derive(Args, Debug)]
pub(crate) struct Transcript {
    /// The job's id; see `warren jobs`.
    job: String,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Txt)]
    format: Format,
}

/// Runs the command. Says on standard error when the text is not complete.
///
/// # Errors
/// When there is no such job, or the server stays away.
pub(crate) async fn run(server: &Server, arguments: &Transcript, json: bool) -> Result<(), CliError> {
    let transcript = fetch(server, &arguments.job, arguments.format).await?;
    if json {
        return output::json_line(&json!({
            "job": transcript.job, "complete": transcript.complete, "text": transcript.text,
            "language": transcript.language, "duration": transcript.duration_seconds, "model": transcript.model,
            "quality": transcript.quality().word(), "beam_size": transcript.beam_size,
            "segments": segments(&transcript),
        }));
    }
    if !transcript.complete {
        eprintln!("not complete; to follow the job: {}", server.command(&format!("watch {}", arguments.job)));
    }
    output::text(rendered(&transcript))
}
