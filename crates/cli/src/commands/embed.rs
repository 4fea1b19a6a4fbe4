//! `warren embed`: lines of text in, one unit vector a line out.

use std::path::PathBuf;

use clap::Args;
use warren_jobs::plan::MAX_TEXTS_BYTES;
use warren_messages::wire::{
    EmbedSpec, EmbeddingBatch, GetEmbeddingsRequest, Job, JobState, embeddings_client::EmbeddingsClient,
    submit_job_request::Spec,
};

use crate::{
    client::{MAX_ANSWER, Server, Terms, carry_out},
    commands::limits::Limits,
    error::CliError,
    input, output,
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
    #[command(flatten)]
    limits: Limits,
}

/// Runs the command.
///
/// # Errors
/// When the texts cannot be read or embedded.
pub(crate) async fn run(server: &Server, arguments: &Embed) -> Result<(), CliError> {
    let (what, bytes) = input::read(&arguments.file)?;
    let spec = EmbedSpec { texts: texts(&what, &bytes)?, model: arguments.model.clone(), index: arguments.index };
    let embedded = embed(server, spec, arguments.limits.terms()).await;
    let job = embedded.map_err(|error| at_line(&what, error))?;
    if job.state() != JobState::Succeeded {
        let message = format!("{} {}: {}", job.id, output::state(job.state()), job.error_message);
        return Err(CliError::Refused { code: job.error_code, message });
    }
    vectors(server, &job.id, &mut |batch| {
        batch.embeddings.iter().try_for_each(|embedding| output::json_line(&serde_json::json!(embedding.values)))
    })
    .await
}

/// Has texts embedded and waits for the end of it.
///
/// # Errors
/// When the server refuses them or stays away.
pub(crate) async fn embed(server: &Server, spec: EmbedSpec, terms: Terms) -> Result<Job, CliError> {
    let id = format!("embed-{:016x}", rand::random::<u64>());
    carry_out(server, Spec::Embed(spec), terms, id, &mut |_| Ok(())).await
}

/// The vectors of a job as far as there are any, batch by batch.
///
/// # Errors
/// When there is no such job, or the server stays away.
pub(crate) async fn vectors(
    server: &Server,
    job: &str,
    seen: &mut (dyn FnMut(&EmbeddingBatch) -> Result<(), CliError> + Send),
) -> Result<(), CliError> {
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
                    seen(&batch)?;
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

/// One text a line. A blank line is refused, and not left out: the vectors are told apart by their line alone.
fn texts(what: &str, bytes: &[u8]) -> Result<Vec<String>, CliError> {
    let refused = |line: usize, why: &str| CliError::Usage(format!("{what}:{line}: {why}"));
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        refused(1 + before.iter().filter(|&&byte| byte == b'\n').count(), "is not UTF-8")
    })?;
    let texts: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some(blank) = texts.iter().position(|text| text.trim().is_empty()) {
        return Err(refused(blank + 1, "is blank; each line must hold a text, as each has its vector"));
    }
    let total: usize = texts.iter().map(String::len).sum();
    if total > MAX_TEXTS_BYTES {
        let why =
            format!("{what}: holds {total} bytes of text, {MAX_TEXTS_BYTES} are allowed at once; cut it in pieces");
        return Err(CliError::Usage(why));
    }
    if texts.is_empty() {
        return Err(CliError::Usage(format!("{what}: holds no line of text")));
    }
    Ok(texts)
}

/// The server knows the texts by their index; the caller knows the line.
fn at_line(what: &str, error: CliError) -> CliError {
    let CliError::Refused { code, message } = error else { return error };
    let said = message.strip_prefix("embed.texts").and_then(|rest| {
        let Some((index, problem)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
            return Some(format!("{what}{rest}"));
        };
        Some(format!("{what}:{}{problem}", index.parse::<usize>().ok()? + 1))
    });
    CliError::Refused { code, message: said.unwrap_or(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        let error = texts("notes.txt", bytes).expect_err("refused");
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    #[test]
    fn lines_that_cannot_be_embedded_are_named() {
        assert_eq!(texts("notes.txt", b"one\r\ntwo").expect("two texts"), ["one", "two"]);
        assert!(refused(b"one\ntwo\nthree\n \t\nfive\n").starts_with("notes.txt:4: is blank"));
        assert!(refused(b"one\n\n").starts_with("notes.txt:2: is blank"));
        assert_eq!(refused(b"one\ntwo \xff\n"), "notes.txt:2: is not UTF-8");
        assert!(refused(b"").starts_with("notes.txt: holds no line"));
        assert!(refused(&[b'a'; MAX_TEXTS_BYTES + 1]).starts_with("notes.txt: holds 4194305 bytes"));
    }

    #[test]
    fn what_the_server_says_of_a_text_is_said_of_its_line() {
        let told = |message: &str| {
            let refused = CliError::Refused { code: "InputTooLong".to_owned(), message: message.to_owned() };
            at_line("standard input", refused).to_string()
        };
        assert_eq!(told("embed.texts[3]: has 9 bytes, 8 are allowed"), "standard input:4: has 9 bytes, 8 are allowed");
        assert_eq!(told("embed.texts: holds 9 texts, 8 are allowed"), "standard input: holds 9 texts, 8 are allowed");
        assert_eq!(told("embed.model: no model `x`"), "embed.model: no model `x`");
        let away = at_line("notes.txt", CliError::OutOfReach("no answer".to_owned()));
        assert!(matches!(away, CliError::OutOfReach(_)));
    }
}
