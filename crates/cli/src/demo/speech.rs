//! Recordings in, text out, compared with the words that were said.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use warren_messages::wire::{JobState, TranscribeSpec};
use warren_recordings::{Recording, error_rate};

use super::{
    fetch::{ENGLISH, MULTILINGUAL, Materials},
    phases::Phases,
};
use crate::{
    client::{Server, Source, Terms},
    commands::transcribe::{Format, transcribe},
    error::CliError,
    output,
};

/// A person's English must be better than this.
const HUMAN_LIMIT: f64 = 0.15;
/// Everything else must be better than this.
const LIMIT: f64 = 0.40;
/// Characters of a text that are shown.
const SHOWN: usize = 160;

/// One recording as it was heard.
struct Heard<'a> {
    recording: &'a Recording,
    model: &'static str,
    text: String,
    language: String,
    segments: usize,
    took: Duration,
}

/// Transcribes everything, prints it and returns what is wrong with it.
///
/// # Errors
/// When the server refuses a recording or a job fails.
pub(super) async fn all(server: &Server, materials: &Materials, phases: &mut Phases) -> Result<Vec<String>, CliError> {
    let begun = phases.begin("a person");
    let mut heard = vec![hear(server, &materials.human, ENGLISH).await?];
    phases.end(begun);

    let begun = phases.begin("several languages");
    // One after the other, so that the times can be read.
    for recording in &materials.foreign {
        heard.push(hear(server, recording, MULTILINGUAL).await?);
    }
    phases.end(begun);

    let begun = phases.begin("three minutes");
    heard.push(hear(server, &materials.long, ENGLISH).await?);
    phases.end(begun);

    show(&heard);
    Ok(heard.iter().flat_map(Heard::troubles).collect())
}

async fn hear<'a>(server: &Server, recording: &'a Recording, model: &'static str) -> Result<Heard<'a>, CliError> {
    let began = Instant::now();
    // The language is left out: to find it is part of the work.
    let spec = TranscribeSpec { model: model.to_owned(), index: true, ..TranscribeSpec::default() };
    let bar = bar(&recording.name);
    let source = Source::file(&recording.path);
    let job = transcribe(server, &source, spec, Terms::default(), Format::Txt, &bar);
    let outcome = followed(&recording.name, &bar, job).await;
    bar.finish_and_clear();
    let outcome = outcome?;
    if outcome.job.state() != JobState::Succeeded {
        let state = output::state(outcome.job.state());
        let message = format!("{}: {state}: {}", recording.name, outcome.job.error_message);
        return Err(CliError::Refused { code: outcome.job.error_code, message });
    }
    let heard = Heard {
        recording,
        model,
        text: outcome.transcript.text.trim().to_owned(),
        language: outcome.transcript.language,
        segments: outcome.transcript.segments.len(),
        took: began.elapsed(),
    };
    eprintln!("{}: {} in {:.1} s", recording.name, output::clock(recording.seconds), heard.took.as_secs_f64());
    Ok(heard)
}

/// Without a terminal, a line every 10 s instead of a bar.
async fn followed<T>(name: &str, bar: &ProgressBar, job: impl Future<Output = T>) -> T {
    let mut job = std::pin::pin!(job);
    loop {
        match tokio::time::timeout(Duration::from_secs(10), &mut job).await {
            Ok(outcome) => return outcome,
            Err(_) if std::io::stderr().is_terminal() => {}
            Err(_) => eprintln!("{name}: {}", bar.message()),
        }
    }
}

fn bar(name: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix:20!} {bar:24} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(1_000).with_style(style.progress_chars("━╸ ")).with_prefix(name.to_owned())
}

impl Heard<'_> {
    fn error_rate(&self) -> f64 {
        error_rate::of(&self.recording.language, &self.recording.text, &self.text)
    }

    fn limit(&self) -> f64 {
        if self.recording.synthetic { LIMIT } else { HUMAN_LIMIT }
    }

    fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        let (name, rate, limit) = (&self.recording.name, self.error_rate(), self.limit());
        if rate > limit {
            troubles.push(format!("{name}: {:.1} % wrong, over {:.0} %", rate * 100.0, limit * 100.0));
        }
        if self.language != self.recording.language {
            troubles.push(format!("{name}: taken for `{}`, is `{}`", self.language, self.recording.language));
        }
        troubles
    }
}

fn show(heard: &[Heard<'_>]) {
    let header = ["recording", "voice", "model", "language", "length", "took", "speed", "segments", "wrong"];
    let mut table = output::table(&header);
    for heard in heard {
        let unit = if error_rate::counts_characters(&heard.recording.language) { "characters" } else { "words" };
        let (seconds, took) = (heard.recording.seconds, heard.took.as_secs_f64());
        table.add_row([
            heard.recording.name.clone(),
            if heard.recording.synthetic { "synthetic" } else { "human" }.to_owned(),
            heard.model.to_owned(),
            heard.language.clone(),
            format!("{seconds:.1} s"),
            format!("{took:.1} s"),
            format!("{:.1}×", seconds / took.max(0.001)),
            heard.segments.to_string(),
            format!("{:.1} % of {unit}", heard.error_rate() * 100.0),
        ]);
    }
    for heard in heard {
        println!("{}", heard.recording.name);
        println!("  said   {}", shortened(&heard.recording.text));
        println!("  heard  {}", shortened(&heard.text));
    }
    println!("{table}");
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} words)", &text[..end], text.split_whitespace().count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(language: &str, text: &str, synthetic: bool) -> Recording {
        Recording {
            path: "x.wav".into(),
            text: text.into(),
            language: language.into(),
            name: "x".into(),
            seconds: 2.0,
            synthetic,
        }
    }

    fn troubles(recording: &Recording, language: &str, text: &str) -> usize {
        let heard = Heard {
            recording,
            model: ENGLISH,
            text: text.into(),
            language: language.into(),
            segments: 1,
            took: Duration::from_secs(1),
        };
        heard.troubles().len()
    }

    #[test]
    fn people_are_held_to_a_higher_standard() {
        let (human, machine) = (recording("en", "one fox two dogs", false), recording("en", "one fox two dogs", true));
        assert_eq!(troubles(&human, "en", "1 fox, 2 dogs."), 0);
        assert_eq!(troubles(&human, "en", "one fox two cats"), 1);
        assert_eq!(troubles(&machine, "en", "one fox two cats"), 0);
        assert_eq!(troubles(&machine, "en", ""), 1);
    }

    #[test]
    fn a_wrong_language_is_a_trouble_of_its_own() {
        let clip = recording("zh", "你好世界", true);
        assert_eq!(troubles(&clip, "zh", "你号世界"), 0);
        assert_eq!(troubles(&clip, "ja", "你好世界"), 1);
        assert_eq!(troubles(&clip, "ja", "hello"), 2);
    }

    #[test]
    fn long_texts_are_shortened_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert!(shortened(&"é ".repeat(200)).ends_with("… (200 words)"));
    }
}
