//! `warren transcribe`: recordings in, text out.

mod targets;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use targets::targets;
use warren_messages::{
    MAX_BEAM_SIZE,
    wire::{
        self, EventLevel, GetTranscriptRequest, Job, JobState, TranscribeSpec, Transcript, TranscriptFormat, job,
        submit_job_request::Spec, transcripts_client::TranscriptsClient,
    },
};

use crate::{
    client::{MAX_ANSWER, Server, Source, Terms, carry_out, upload},
    commands::limits::Limits,
    error::CliError,
    input::is_standard_input,
    output,
};

/// Files in progress at once; the server shares its workers out anyway.
const AT_ONCE: usize = 8;

/// Transcribe recordings.
#[derive(Args, Debug)]
pub(crate) struct Transcribe {
    /// Audio or video files, or - for standard input.
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
    /// Speed against care. Default: balanced.
    #[arg(long, value_enum)]
    quality: Option<Quality>,
    /// Hypotheses followed side by side; 1 is greedy. Default: as many as the quality follows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BEAM_SIZE)))]
    beam_size: Option<u32>,
    /// Make the text searchable: see `warren search`.
    #[arg(long)]
    index: bool,
    /// When the model fits no device, use the next smaller one that can do the same.
    #[arg(long)]
    allow_downgrade: bool,
    #[command(flatten)]
    limits: Limits,
    /// What to print or write.
    #[arg(long, value_enum, default_value_t = Format::Txt)]
    format: Format,
    /// Write one file for each recording into this folder instead of printing.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Speed against care in decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Quality {
    /// One greedy pass; what it guesses is kept.
    Fast,
    /// Greedy, and again where that loops or guesses.
    Balanced,
    /// Five hypotheses side by side, and again likewise.
    Best,
}

impl Quality {
    const fn wire(self) -> wire::Quality {
        match self {
            Self::Fast => wire::Quality::Fast,
            Self::Balanced => wire::Quality::Balanced,
            Self::Best => wire::Quality::Best,
        }
    }
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

/// A recording as it was named, and what is to become of it.
struct Input<'a> {
    named: &'a Path,
    source: Source,
    /// Where its text goes; `None`: standard output.
    target: Option<PathBuf>,
}

/// What became of it.
struct Done {
    outcome: Result<Outcome, CliError>,
    /// The file that was written, if one was to be.
    written: Result<Option<PathBuf>, CliError>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failed`] when a file failed; the others are still done.
pub(crate) async fn run(server: &Server, arguments: &Transcribe, json: bool) -> Result<(), CliError> {
    let inputs = inputs(arguments)?;
    let bars = MultiProgress::new();
    let mut all = futures::stream::iter(&inputs)
        .map(|input| {
            let bar = bars.add(bar(&input.source.name));
            async move { (input, one(server, input, arguments, bar).await) }
        })
        .buffered(AT_ONCE);
    let mut failed = false;
    while let Some((input, done)) = all.next().await {
        let away = matches!(done.outcome, Err(CliError::OutOfReach(_)));
        if json || !away {
            bars.suspend(|| show(input, &done, json))?;
        }
        if let Err(error @ CliError::OutOfReach(_)) = done.outcome {
            return Err(error);
        }
        failed |= !done.is_sound();
    }
    if failed { Err(CliError::Failed) } else { Ok(()) }
}

/// Checks the names before anything is sent.
fn inputs(arguments: &Transcribe) -> Result<Vec<Input<'_>>, CliError> {
    if arguments.files.iter().filter(|file| is_standard_input(file)).count() > 1 {
        return Err(CliError::Usage("-: standard input can be read only once".to_owned()));
    }
    let mut targets = match &arguments.output {
        None => Vec::new(),
        Some(folder) => {
            let targets = targets(folder, &arguments.files, arguments.format.extension())?;
            std::fs::create_dir_all(folder)
                .map_err(CliError::unreadable(format!("--output {}: no folder can be there", folder.display())))?;
            targets
        }
    }
    .into_iter();
    let input = |named| {
        let source = if is_standard_input(named) { Source::standard_input()? } else { Source::file(named) };
        Ok(Input { named, source, target: targets.next() })
    };
    arguments.files.iter().map(PathBuf::as_path).map(input).collect()
}

async fn one(server: &Server, input: &Input<'_>, arguments: &Transcribe, bar: ProgressBar) -> Done {
    let spec = TranscribeSpec {
        model: arguments.model.clone(),
        language: arguments.language.clone(),
        translate: arguments.translate,
        index: arguments.index,
        allow_downgrade: arguments.allow_downgrade,
        quality: arguments.quality.map_or(wire::Quality::Unspecified, Quality::wire).into(),
        beam_size: arguments.beam_size.unwrap_or(0),
        ..TranscribeSpec::default()
    };
    let outcome = transcribe(server, &input.source, spec, arguments.limits.terms(), arguments.format, &bar).await;
    bar.finish_and_clear();
    // At once, also when an earlier recording takes longer: what is done is safe.
    let written = match (&outcome, &input.target) {
        (Ok(outcome), Some(target)) if outcome.has_text() => {
            let written = std::fs::write(target, rendered(&outcome.transcript));
            written.map(|()| Some(target.clone())).map_err(CliError::file(target.display().to_string()))
        }
        _ => Ok(None),
    };
    Done { outcome, written }
}

impl Outcome {
    fn succeeded(&self) -> bool {
        self.job.state() == JobState::Succeeded
    }

    /// Also a job that failed may have some.
    fn has_text(&self) -> bool {
        self.succeeded() || !self.transcript.segments.is_empty()
    }
}

impl Done {
    fn is_sound(&self) -> bool {
        self.written.is_ok() && self.outcome.as_ref().is_ok_and(Outcome::succeeded)
    }
}

/// Uploads a recording, has it transcribed and fetches the text.
///
/// # Errors
/// When the server refuses it or stays away. A job that failed is an outcome.
pub(crate) async fn transcribe(
    server: &Server,
    source: &Source,
    mut spec: TranscribeSpec,
    terms: Terms,
    format: Format,
    bar: &ProgressBar,
) -> Result<Outcome, CliError> {
    bar.set_message("uploading");
    let media = upload(server, source, Arc::new(|_| {})).await?;
    spec.media.clone_from(&media.id);
    let mut accepted = false;
    let job = carry_out(server, Spec::Transcribe(spec), terms, format!("transcribe-{}", media.id), &mut |update| {
        if let (false, Some((used, Some(asked)))) = (accepted, update.job.as_ref().map(models)) {
            bar.suspend(|| eprintln!("{}: {used} is used, as {asked} does not fit", source.name));
        }
        accepted = true;
        for event in update.events.iter().filter(|event| event.level() == EventLevel::Warning) {
            bar.suspend(|| eprintln!("{}: {}", source.name, event.message));
        }
        if let Some(job) = &update.job {
            show_progress(bar, job);
        }
        Ok(())
    })
    .await?;
    let transcript = fetch(server, &job.id, format).await?;
    Ok(Outcome { job, transcript })
}

/// The model that a job uses, and the one that was asked for if that is another.
pub(crate) fn models(job: &Job) -> (&str, Option<&str>) {
    match &job.spec {
        Some(job::Spec::Transcribe(spec)) => {
            (&spec.model, Some(spec.downgraded_from.as_str()).filter(|asked| !asked.is_empty()))
        }
        Some(job::Spec::Embed(spec)) => (&spec.model, None),
        None => ("", None),
    }
}

/// The text of a job, as much as there is.
///
/// # Errors
/// When there is no such job, or the server stays away.
pub(crate) async fn fetch(server: &Server, job: &str, format: Format) -> Result<Transcript, CliError> {
    let request = GetTranscriptRequest { job: job.to_owned(), format: format.wire().into() };
    server
        .call(async |transport| {
            let mut client = TranscriptsClient::new(transport).max_decoding_message_size(MAX_ANSWER);
            client.get(request.clone()).await.map(tonic::Response::into_inner)
        })
        .await
}

fn bar(name: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix:24!} {bar:24} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(1_000).with_style(style.progress_chars("━╸ ")).with_prefix(name.to_owned())
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

fn show(input: &Input<'_>, done: &Done, json: bool) -> Result<(), CliError> {
    if json {
        return output::json_line(&as_json(input.named, done));
    }
    let file = input.named.display();
    match &done.outcome {
        Err(error) => eprintln!("{file}: {}", plain(error)),
        Ok(outcome) => {
            let job = &outcome.job;
            if !outcome.succeeded() {
                eprintln!("{file}: {}: {} ({})", output::state(job.state()), job.error_message, job.error_code);
            }
            match &done.written {
                Err(error) => eprintln!("{file}: {error}"),
                Ok(Some(path)) => eprintln!("{}", path.display()),
                Ok(None) if outcome.has_text() => output::text(rendered(&outcome.transcript))?,
                Ok(None) => {}
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

fn as_json(file: &Path, done: &Done) -> Value {
    let told = |error: &CliError| {
        let (code, message) = error.code_and_message();
        json!({ "code": code, "message": message })
    };
    let mut value = json!({ "file": file.display().to_string() });
    match &done.outcome {
        Err(error) => {
            value["state"] = "failed".into();
            value["error"] = told(error);
        }
        Ok(Outcome { job, transcript }) => {
            value["job"] = job.id.clone().into();
            value["state"] = output::state(job.state()).into();
            let (model, asked) = models(job);
            value["model"] = model.into();
            if let Some(asked) = asked {
                value["downgraded_from"] = asked.into();
            }
            value["quality"] = transcript.quality().word().into();
            value["beam_size"] = transcript.beam_size.into();
            value["segments"] = segments(transcript);
            if job.state() == JobState::Succeeded {
                value["text"] = transcript.text.clone().into();
                value["language"] = transcript.language.clone().into();
                value["duration"] = transcript.duration_seconds.into();
            } else {
                value["error"] = json!({ "code": job.error_code, "message": job.error_message });
            }
        }
    }
    match &done.written {
        Ok(None) => {}
        Ok(Some(path)) => value["output"] = path.display().to_string().into(),
        Err(error) => value["error"] = told(error),
    }
    value
}

/// In the form that was asked for, ending with a line's end.
pub(crate) fn rendered(transcript: &Transcript) -> String {
    format!("{}\n", transcript.rendered.strip_suffix('\n').unwrap_or(&transcript.rendered))
}

/// As programs get them.
pub(crate) fn segments(transcript: &Transcript) -> Value {
    let segment = |s: &wire::Segment| json!({ "start": s.start, "end": s.end, "text": s.text });
    transcript.segments.iter().map(segment).collect()
}
