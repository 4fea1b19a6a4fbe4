//! `warren transcribe`: recordings in, text out.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use warren_messages::wire::{
    GetTranscriptRequest, Job, JobState, SubmitJobRequest, TranscribeSpec, Transcript, TranscriptFormat,
    jobs_client::JobsClient, submit_job_request::Spec, transcripts_client::TranscriptsClient,
};

use crate::{
    client::{MAX_ANSWER, Server, upload, watch},
    error::CliError,
    output,
};

/// Files in progress at once; the server shares its workers out anyway.
const AT_ONCE: usize = 8;

/// Transcribe recordings.
#[derive(Args, Debug)]
pub(crate) struct Transcribe {
    /// Audio or video files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Speech model, e.g. tiny.en or base. Default: the server's.
    #[arg(long, default_value = "", hide_default_value = true)]
    model: String,
    /// Language as two letters, e.g. de. Default: found out.
    #[arg(long, default_value = "", hide_default_value = true)]
    language: String,
    /// Translate into English.
    #[arg(long)]
    translate: bool,
    /// Make the text searchable: see `warren search`.
    #[arg(long)]
    index: bool,
    /// What to print or write.
    #[arg(long, value_enum, default_value_t = Format::Txt)]
    format: Format,
    /// Write one file for each recording into this folder instead of printing.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Forms of a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Plain text.
    Txt,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles.
    Vtt,
    /// Everything, as JSON.
    Json,
}

impl Format {
    const fn wire(self) -> TranscriptFormat {
        match self {
            Self::Txt => TranscriptFormat::Text,
            Self::Srt => TranscriptFormat::Srt,
            Self::Vtt => TranscriptFormat::Vtt,
            Self::Json => TranscriptFormat::Json,
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Txt => "txt",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
            Self::Json => "json",
        }
    }
}

/// A recording's job and its text.
pub(crate) struct Outcome {
    /// As it ended.
    pub job: Job,
    /// All that was recorded.
    pub transcript: Transcript,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failed`] when a file failed; the others are still done.
pub(crate) async fn run(server: &Server, arguments: &Transcribe, json: bool) -> Result<(), CliError> {
    if let Some(folder) = &arguments.output {
        std::fs::create_dir_all(folder).map_err(CliError::file(folder.display().to_string()))?;
    }
    let bars = MultiProgress::new();
    let mut outcomes = futures::stream::iter(&arguments.files)
        .map(|file| {
            let bar = bars.add(bar(file));
            async move { (file, one(server, file, arguments, bar).await) }
        })
        .buffered(AT_ONCE);
    let mut failed = false;
    while let Some((file, outcome)) = outcomes.next().await {
        match &outcome {
            Err(error @ (CliError::OutOfReach(_) | CliError::Up(_))) if !json => {
                return Err(CliError::OutOfReach(error.to_string()));
            }
            Err(_) => failed = true,
            Ok(outcome) => failed |= outcome.job.state() != JobState::Succeeded,
        }
        bars.suspend(|| show(file, &outcome, arguments, json))?;
        if let Err(CliError::OutOfReach(why)) = outcome {
            return Err(CliError::OutOfReach(why));
        }
    }
    if failed { Err(CliError::Failed) } else { Ok(()) }
}

async fn one(server: &Server, file: &Path, arguments: &Transcribe, bar: ProgressBar) -> Result<Outcome, CliError> {
    let spec = TranscribeSpec {
        model: arguments.model.clone(),
        language: arguments.language.clone(),
        translate: arguments.translate,
        index: arguments.index,
        ..TranscribeSpec::default()
    };
    let outcome = transcribe(server, file, spec, arguments.format, &bar).await;
    bar.finish_and_clear();
    outcome
}

/// Uploads a recording, has it transcribed and fetches the text.
///
/// # Errors
/// When the server refuses it or stays away. A job that failed is an outcome.
pub(crate) async fn transcribe(
    server: &Server,
    file: &Path,
    mut spec: TranscribeSpec,
    format: Format,
    bar: &ProgressBar,
) -> Result<Outcome, CliError> {
    bar.set_message("uploading");
    let media = upload(server, file, Arc::new(|_| {})).await?;
    spec.media.clone_from(&media.id);
    // The same request after a lost connection finds the job that the first one made.
    let request = SubmitJobRequest {
        spec: Some(Spec::Transcribe(spec)),
        request_id: format!("transcribe-{}", media.id),
        ..SubmitJobRequest::default()
    };
    let submitted = server
        .call(async |transport| {
            JobsClient::new(transport).submit(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    let job = watch(server, &submitted.id, &mut |update| {
        if let Some(job) = &update.job {
            show_progress(bar, job);
        }
    })
    .await?;
    let request = GetTranscriptRequest { job: job.id.clone(), format: format.wire().into() };
    let transcript = server
        .call(async |transport| {
            let mut client = TranscriptsClient::new(transport).max_decoding_message_size(MAX_ANSWER);
            client.get(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await?;
    Ok(Outcome { job, transcript })
}

fn bar(file: &Path) -> ProgressBar {
    let name = file.file_name().map_or_else(|| file.display().to_string(), |name| name.to_string_lossy().into_owned());
    let style =
        ProgressStyle::with_template("{prefix:24!} {bar:24} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(1_000).with_style(style.progress_chars("━╸ ")).with_prefix(name)
}

/// Audio seconds done, speed and expected end.
pub(crate) fn show_progress(bar: &ProgressBar, job: &Job) {
    let (done, planned) = (job.progress_done, job.progress_planned);
    if planned > 0.0 {
        bar.set_position((done / planned * 1_000.0) as u64);
    }
    let message = match job.state() {
        JobState::Queued => "waiting".to_owned(),
        JobState::Running if planned == 0.0 => "decoding".to_owned(),
        _ => {
            let elapsed = bar.elapsed().as_secs_f64().max(0.001);
            let speed = done / elapsed;
            let left = if speed > 0.0 { output::clock((planned - done) / speed) } else { "?".to_owned() };
            format!("{} of {} · {speed:.1}× · {left} left", output::clock(done), output::clock(planned))
        }
    };
    bar.set_message(message);
}

fn show(file: &Path, outcome: &Result<Outcome, CliError>, arguments: &Transcribe, json: bool) -> Result<(), CliError> {
    if json {
        output::json_line(&as_json(file, outcome));
        return Ok(());
    }
    match outcome {
        Err(error) => eprintln!("{}: {}", file.display(), plain(error)),
        Ok(Outcome { job, transcript }) => {
            if job.state() != JobState::Succeeded {
                let state = output::state(job.state());
                eprintln!("{}: {state}: {} ({})", file.display(), job.error_message, job.error_code);
            }
            if !transcript.rendered.is_empty() || job.state() == JobState::Succeeded {
                write(file, transcript, arguments)?;
            }
        }
    }
    Ok(())
}

fn plain(error: &CliError) -> String {
    match error {
        CliError::Refused { code, message } => format!("{message} ({code})"),
        CliError::File { source, .. } => source.to_string(),
        error => error.to_string(),
    }
}

fn write(file: &Path, transcript: &Transcript, arguments: &Transcribe) -> Result<(), CliError> {
    let mut text = transcript.rendered.clone();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let Some(folder) = &arguments.output else {
        print!("{text}");
        return Ok(());
    };
    let stem = file.file_stem().map_or_else(|| "recording".into(), std::ffi::OsStr::to_os_string);
    let path = folder.join(stem).with_extension(arguments.format.extension());
    std::fs::write(&path, text).map_err(CliError::file(path.display().to_string()))?;
    eprintln!("{}", path.display());
    Ok(())
}

fn as_json(file: &Path, outcome: &Result<Outcome, CliError>) -> Value {
    match outcome {
        Err(error) => {
            let (code, message) = error.code_and_message();
            json!({ "file": file.display().to_string(), "state": "failed", "error": { "code": code, "message": message } })
        }
        Ok(Outcome { job, transcript }) if job.state() == JobState::Succeeded => json!({
            "file": file.display().to_string(),
            "job": job.id,
            "state": output::state(job.state()),
            "text": transcript.text,
            "language": transcript.language,
            "duration": transcript.duration_seconds,
            "segments": segments(transcript),
        }),
        Ok(Outcome { job, transcript }) => json!({
            "file": file.display().to_string(),
            "job": job.id,
            "state": output::state(job.state()),
            "error": { "code": job.error_code, "message": job.error_message },
            "segments": segments(transcript),
        }),
    }
}

fn segments(transcript: &Transcript) -> Vec<Value> {
    let segment = |s: &warren_messages::wire::Segment| json!({ "start": s.start, "end": s.end, "text": s.text });
    transcript.segments.iter().map(segment).collect()
}
