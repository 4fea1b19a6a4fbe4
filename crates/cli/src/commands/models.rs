//! `warren models`: the weights on this machine.

use std::{
    cell::RefCell,
    io::IsTerminal as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use warren_models::{
    Cache, Catalogue, Model, ModelError, ModelsSettings, Phase, Progress, PullOptions, Pulled, Status,
};

use crate::{error::CliError, output};

/// Without a terminal, a line at least this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Models: list, pull, verify, rm.
#[derive(Args, Debug)]
pub(crate) struct Models {
    /// Folder of the weights. Default: models in this user's cache folder for warren.
    #[arg(long, value_name = "DIR", env = "WARREN_MODELS__CACHE", global = true)]
    cache: Option<PathBuf>,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// What there is, and what is on this machine.
    List,
    /// Download models.
    Pull {
        /// Names, e.g. tiny.en.
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// Download again even if it is here; mends a damaged one.
        #[arg(long)]
        force: bool,
        /// All models that are on this machine or named.
        #[arg(long)]
        all: bool,
        /// Copy into this folder, for a machine without a network.
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Check every byte of the models on this machine.
    Verify {
        /// Names; none means all that are here.
        names: Vec<String>,
    },
    /// Remove models from this machine.
    Rm {
        /// Names.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// The models that `pull --all` means: those that Warren uses unless told otherwise.
const USUAL: [&str; 3] = ["tiny.en", "base", "all-MiniLM-L6-v2"];

/// Runs the command. Blocks while it downloads.
///
/// # Errors
/// When a model is unknown, cannot be had, or is damaged.
pub(crate) fn run(arguments: &Models, json: bool) -> Result<(), CliError> {
    let mut settings = ModelsSettings::default();
    if let Some(cache) = &arguments.cache {
        settings.cache.clone_from(cache);
    }
    let (catalogue, cache) = (Catalogue::builtin(), Cache::with(&settings));
    match &arguments.command {
        Verb::List => {
            list(&catalogue, &cache, json);
            Ok(())
        }
        Verb::Pull { names, force, all, to } => {
            let names: Vec<String> =
                if *all && names.is_empty() { USUAL.map(str::to_owned).to_vec() } else { names.clone() };
            let models = named(&catalogue, &names)?;
            for model in &models {
                pull(&cache, model, *force)?;
            }
            match to {
                None => Ok(()),
                Some(folder) => {
                    let shown = Shown::new();
                    let exported = cache.export_all(&models, folder, &|progress| shown.show(&progress));
                    shown.clear();
                    exported.map_err(refused)
                }
            }
        }
        Verb::Verify { names } => verify(&catalogue, &cache, names, json),
        Verb::Rm { names } => {
            for model in named(&catalogue, names)? {
                let removed = cache.remove(model).map_err(refused)?;
                eprintln!("{}: {}", model.name, if removed { "removed" } else { "was not here" });
            }
            Ok(())
        }
    }
}

/// Makes sure that a model is here, with the bytes shown while they come.
///
/// # Errors
/// When no source has it.
pub(crate) fn pull(cache: &Cache, model: &Model, force: bool) -> Result<(), CliError> {
    let shown = Shown::new();
    let pulled = cache.pull(model, PullOptions { force }, &|progress| shown.show(&progress));
    shown.clear();
    match pulled.map_err(refused)? {
        Pulled::Already => eprintln!("{}: here", model.name),
        Pulled::Fetched { source } => eprintln!("{}: fetched from {source}", model.name),
    }
    Ok(())
}

fn list(catalogue: &Catalogue, cache: &Cache, json: bool) {
    let mut table = output::table(&["model", "here", "what", "licence", "disk", "memory"]);
    for model in catalogue.models() {
        let status = word(&cache.status(model));
        if json {
            output::json_line(&json!({
                "name": model.name, "aliases": model.aliases, "status": status, "licence": model.licence,
                "disk_bytes": model.disk_bytes, "memory_bytes": model.memory_bytes,
            }));
            continue;
        }
        table.add_row([
            model.name.clone(),
            status.to_owned(),
            format!("{:?}", model.family).to_lowercase(),
            model.licence.clone(),
            mib(model.disk_bytes),
            mib(model.memory_bytes),
        ]);
    }
    if !json {
        println!("{table}");
    }
}

fn verify(catalogue: &Catalogue, cache: &Cache, names: &[String], json: bool) -> Result<(), CliError> {
    let models: Vec<&Model> = if names.is_empty() {
        catalogue.models().iter().filter(|model| cache.status(model) != Status::Missing).collect()
    } else {
        named(catalogue, names)?
    };
    let mut damaged = false;
    for model in models {
        let shown = Shown::new();
        let status = cache.verify(model, &|progress| shown.show(&progress));
        shown.clear();
        damaged |= status != Status::Ready;
        if json {
            output::json_line(&json!({ "name": model.name, "status": word(&status) }));
            continue;
        }
        match status {
            Status::Ready => println!("{}: every byte is right", model.name),
            Status::Missing => println!("{}: not here; warren models pull {0}", model.name),
            Status::Corrupt { file, reason } => {
                println!(
                    "{0}: ModelCorrupt: {file}: {reason}; mend it with: warren models pull --force {0}",
                    model.name
                );
            }
        }
    }
    if damaged { Err(CliError::Failed) } else { Ok(()) }
}

fn named<'a>(catalogue: &'a Catalogue, names: &[String]) -> Result<Vec<&'a Model>, CliError> {
    names.iter().map(|name| catalogue.get(name).map_err(refused)).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of map_err")]
fn refused(error: ModelError) -> CliError {
    CliError::Refused { code: error.code().as_str().to_owned(), message: error.to_string() }
}

const fn word(status: &Status) -> &'static str {
    match status {
        Status::Ready => "yes",
        Status::Missing => "no",
        Status::Corrupt { .. } => "damaged",
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// A bar at a terminal, a line now and then elsewhere.
struct Shown {
    bar: ProgressBar,
    said: RefCell<Instant>,
}

impl Shown {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{prefix} {bar:24} {bytes} of {total_bytes} · {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self { bar: ProgressBar::new(0).with_style(style), said: RefCell::new(Instant::now()) }
    }

    fn show(&self, progress: &Progress<'_>) {
        let phase = match progress.phase {
            Phase::Waiting => "waiting for another pull",
            Phase::Downloading => "downloading",
            Phase::Checking => "checking",
            Phase::Converting => "converting",
        };
        self.bar.set_prefix(progress.model.to_owned());
        self.bar.set_message(format!("{phase} {}", progress.file));
        self.bar.set_length(progress.bytes_total);
        self.bar.set_position(progress.bytes_done);
        if !std::io::stderr().is_terminal() && self.said.borrow().elapsed() >= LINE_EVERY {
            *self.said.borrow_mut() = Instant::now();
            let (done, total) = (progress.bytes_done >> 20, progress.bytes_total >> 20);
            eprintln!("{}: {phase} {}: {done} of {total} MiB", progress.model, progress.file);
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
