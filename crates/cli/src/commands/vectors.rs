//! `warren vectors`: what an earlier job made of its texts.

use clap::Args;
use serde_json::json;

use super::embed;
use crate::{client::Server, error::CliError, output};

/// Print the vectors of an earlier job, one JSON value a line; of one that failed, those that there are.
#[derive(Args, Debug)]
pub(crate) struct Vectors {
    /// The job.
    job: String,
}

/// Runs the command.
///
/// # Errors
/// When there is no such job, it made a transcript, or the server stays away.
pub(crate) async fn run(server: &Server, arguments: &Vectors) -> Result<(), CliError> {
    embed::vectors(server, &arguments.job, &mut |batch| {
        batch.embeddings.iter().try_for_each(|embedding| {
            output::json_line(&json!({ "line": embedding.index + 1, "vector": embedding.values }))
        })
    })
    .await
}
