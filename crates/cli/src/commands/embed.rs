//! `warren embed`: lines of text in, one unit vector a line out.

use std::{
    io::{BufRead as _, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;
use warren_messages::wire::{
    EmbedSpec, EmbeddingBatch, GetEmbeddingsRequest, Job, JobState, SubmitJobRequest,
    embeddings_client::EmbeddingsClient, jobs_client::JobsClient, submit_job_request::Spec,
};

use crate::{
    client::{MAX_ANSWER, Server, watch},
    error::CliError,
    output,
};

/// Turn lines of text into vectors.
#[derive(Args, Debug)]
pub(crate) struct Embed {
    /// A file with one text a line, or - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Embedding model. Default: the server's.
    #[arg(long, default_value = "", hide_default_value = true)]
    model: String,
    /// Make the texts searchable: see `warren search`.
    #[arg(long)]
    index: bool,
}

/// Runs the command.
///
/// # Errors
/// When the texts cannot be read or embedded.
pub(crate) async fn run(server: &Server, arguments: &Embed) -> Result<(), CliError> {
    let texts = lines(&arguments.file)?;
    let job = embed(server, texts, &arguments.model, arguments.index).await?;
    if job.state() != JobState::Succeeded {
        let message = format!("{} {}: {}", job.id, output::state(job.state()), job.error_message);
        return Err(CliError::Refused { code: job.error_code, message });
    }
    let mut failed = None;
    vectors(server, &job.id, &mut |batch| {
        let mut stdout = std::io::stdout().lock();
        for embedding in &batch.embeddings {
            if let Err(error) = writeln!(stdout, "{}", serde_json::json!(embedding.values)) {
                failed.get_or_insert(error);
            }
        }
    })
    .await?;
    failed.map_or(Ok(()), |error| Err(CliError::file("standard output")(error)))
}

/// Has texts embedded and waits for the end of it.
///
/// # Errors
/// When the server refuses them or stays away.
pub(crate) async fn embed(server: &Server, texts: Vec<String>, model: &str, index: bool) -> Result<Job, CliError> {
    let request = SubmitJobRequest {
        spec: Some(Spec::Embed(EmbedSpec { texts, model: model.to_owned(), index })),
        request_id: format!("embed-{:016x}", rand::random::<u64>()),
        ..SubmitJobRequest::default()
    };
    let submitted = server
        .call(async |transport| {
            JobsClient::new(transport).submit(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    watch(server, &submitted.id, &mut |_| {}).await
}

async fn vectors(server: &Server, job: &str, seen: &mut (dyn FnMut(&EmbeddingBatch) + Send)) -> Result<(), CliError> {
    let mut trouble = server.trouble();
    let mut first = 0;
    'again: loop {
        let mut client = EmbeddingsClient::new(server.transport()).max_decoding_message_size(MAX_ANSWER);
        let mut batches = match client.get(GetEmbeddingsRequest { job: job.to_owned(), first }).await {
            Ok(batches) => batches.into_inner(),
            Err(status) => {
                trouble.wait(status).await?;
                continue;
            }
        };
        loop {
            match batches.message().await {
                Ok(Some(batch)) => {
                    trouble.over();
                    first = batch.embeddings.last().map_or(first, |last| last.index + 1);
                    seen(&batch);
                }
                Ok(None) => return Ok(()),
                Err(status) => {
                    trouble.wait(status).await?;
                    continue 'again;
                }
            }
        }
    }
}

fn lines(file: &Path) -> Result<Vec<String>, CliError> {
    let what = file.display().to_string();
    let read: Result<Vec<String>, _> = if file == Path::new("-") {
        std::io::stdin().lock().lines().collect()
    } else {
        std::fs::File::open(file).and_then(|file| std::io::BufReader::new(file).lines().collect())
    };
    let texts = read.map_err(CliError::file(what.clone()))?;
    if texts.is_empty() {
        return Err(CliError::Usage(format!("{what}: holds no line of text")));
    }
    Ok(texts)
}
