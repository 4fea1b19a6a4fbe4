//! `warren models`: the weights on this machine.

use std::{
    cell::RefCell,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use warren_models::{Cache, Catalogue, Model, ModelError, Phase, Progress, PullOptions, Pulled, Status, USUAL};

use crate::{caches::Caches, error::CliError, output};

/// Without a terminal, a line at least this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Models: list, pull, verify, rm.
#[derive(Args, Debug)]
pub(crate) struct Models {
    /// Folder of the weights. Default: the workers' own, by WARREN_MODELS__CACHE, then the settings of the stack, if
    /// there is one, else models in this user's cache folder for warren.
    #[arg(long, value_name = "DIR", global = true)]
    cache: Option<PathBuf>,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// What there is, and what is on this machine.
    #[command(visible_alias = "ls")]
    List,
    /// Download models.
    Pull {
        /// Names, e.g. tiny.en.
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// Download again even if it is here; mends a damaged one.
        #[arg(long)]
        force: bool,
        /// Those that Warren uses unless told otherwise: tiny.en, base and all-MiniLM-L6-v2, besides those named.
        #[arg(long)]
        all: bool,
        /// Copy them into this folder as well, for a machine without a network.
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

/// Runs the command with the caches of the stack in `data`. Blocks while it downloads.
///
/// # Errors
/// When a model is unknown, cannot be had, or is damaged.
pub(crate) fn run(data: &Path, arguments: &Models, json: bool) -> Result<(), CliError> {
    let mut caches = Caches::of_stack(data)?;
    if let Some(folder) = &arguments.cache {
        caches = caches.kept_in(folder);
    }
    let catalogue = Catalogue::builtin();
    match &arguments.command {
        Verb::List => list(&catalogue, &caches, json),
        Verb::Pull { names, force, all, to } => {
            for model in wanted(&catalogue, names, *all)? {
                let pulled = pull(caches.of(model), model, *force)?;
                if let Some(folder) = to {
                    copy(caches.of(model), model, folder)?;
                }
                if json {
                    let source = match &pulled {
                        Pulled::Already => None,
                        Pulled::Fetched { source } => Some(source),
                    };
                    let copied_to = to.as_ref().map(|folder| folder.display().to_string());
                    output::json_line(&json!({
                        "name": model.name, "fetched": source.is_some(), "source": source, "copied_to": copied_to,
                    }))?;
                }
            }
            Ok(())
        }
        Verb::Verify { names } => verify(&catalogue, &caches, names, json),
        Verb::Rm { names } => {
            for model in named(&catalogue, names)? {
                let removed = caches.of(model).remove(model).map_err(refused)?;
                eprintln!("{}: {}", model.name, if removed { "removed" } else { "was not here" });
                if json {
                    output::json_line(&json!({ "name": model.name, "removed": removed }))?;
                }
            }
            Ok(())
        }
    }
}

/// The models to pull, each once.
fn wanted<'a>(catalogue: &'a Catalogue, names: &[String], all: bool) -> Result<Vec<&'a Model>, CliError> {
    let usual = if all { &USUAL[..] } else { &[] };
    let names: Vec<String> = usual.iter().map(|&name| name.to_owned()).chain(names.iter().cloned()).collect();
    let mut models: Vec<&Model> = Vec::new();
    for model in named(catalogue, &names)? {
        if !models.iter().any(|earlier| earlier.name == model.name) {
            models.push(model);
        }
    }
    Ok(models)
}

/// Makes sure that a model is here, with the bytes shown while they come.
///
/// # Errors
/// When no source has it.
pub(crate) fn pull(cache: &Cache, model: &Model, force: bool) -> Result<Pulled, CliError> {
    let shown = Shown::new();
    let pulled = cache.pull(model, PullOptions { force }, &|progress| shown.show(&progress));
    shown.clear();
    let pulled = pulled.map_err(refused)?;
    match &pulled {
        Pulled::Already => eprintln!("{}: here", model.name),
        Pulled::Fetched { source } => eprintln!("{}: fetched from {source}", model.name),
    }
    Ok(pulled)
}

fn copy(cache: &Cache, model: &Model, folder: &Path) -> Result<(), CliError> {
    let shown = Shown::new();
    let copied = cache.export_all(&[model], folder, &|progress| shown.show(&progress));
    shown.clear();
    copied.map_err(refused)?;
    eprintln!("{}: copied to {}", model.name, folder.display());
    Ok(())
}

fn list(catalogue: &Catalogue, caches: &Caches, json: bool) -> Result<(), CliError> {
    let mut table = output::table(&["model", "here", "what", "licence", "disk", "memory"]);
    for model in catalogue.models() {
        let status = word(&caches.of(model).status(model));
        if json {
            output::json_line(&json!({
                "name": model.name, "aliases": model.aliases, "status": status, "licence": model.licence,
                "disk_bytes": model.disk_bytes, "memory_bytes": model.memory_bytes,
            }))?;
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
    if json { Ok(()) } else { output::line(table) }
}

fn verify(catalogue: &Catalogue, caches: &Caches, names: &[String], json: bool) -> Result<(), CliError> {
    let models: Vec<&Model> = if names.is_empty() {
        catalogue.models().iter().filter(|model| caches.of(model).status(model) != Status::Missing).collect()
    } else {
        named(catalogue, names)?
    };
    let mut damaged = false;
    for model in models {
        let shown = Shown::new();
        let status = caches.of(model).verify(model, &|progress| shown.show(&progress));
        shown.clear();
        damaged |= status != Status::Ready;
        if json {
            output::json_line(&json!({ "name": model.name, "status": word(&status) }))?;
            continue;
        }
        match status {
            Status::Ready => output::line(format_args!("{}: every byte is right", model.name)),
            Status::Missing => output::line(format_args!("{}: not here; warren models pull {0}", model.name)),
            Status::Corrupt { file, reason } => output::line(format_args!(
                "{0}: ModelCorrupt: {file}: {reason}; mend it with: warren models pull --force {0}",
                model.name
            )),
        }?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_the_usual_ones_besides_those_named() {
        let catalogue = Catalogue::builtin();
        let wanted = |names: &[&str], all| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            wanted(&catalogue, &names, all)
                .map(|models| models.iter().map(|model| model.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(wanted(&[], true).unwrap(), USUAL);
        assert_eq!(wanted(&["small", "whisper-1", "tiny.en"], true).unwrap(), [&USUAL[..], &["small"]].concat());
        assert_eq!(wanted(&["small"], false).unwrap(), ["small"]);
        assert!(wanted(&["huge"], true).unwrap_err().to_string().contains("huge"));
    }

    #[test]
    fn the_help_names_the_usual_ones() {
        use clap::Subcommand as _;
        let mut verbs = Verb::augment_subcommands(clap::Command::new("models"));
        let help = verbs.find_subcommand_mut("pull").unwrap().render_long_help().to_string();
        assert!(USUAL.iter().all(|name| help.contains(name)), "{help}");
    }
}
