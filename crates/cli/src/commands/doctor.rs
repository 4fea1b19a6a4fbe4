//! `warren doctor`: is everything here that Warren needs, and does the stack work?

use std::{path::Path, process::Command};

use serde_json::json;
use warren_local::rabbitmq;
use warren_models::{Catalogue, Model, Status};

use crate::{
    caches::{Caches, models_in_use},
    client::Target,
    error::CliError,
    output,
    up::{self, External, UpError},
};

/// Less than this is too little, bytes: for a stack's folder, and for the models'.
const ROOM: u64 = 2 << 30;

/// One thing looked at.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    good: bool,
    found: String,
    fix: String,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, good: true, found: found.into(), fix: String::new() }
    }

    fn bad(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, good: false, found: found.into(), fix: fix.into() }
    }
}

/// Looks at everything and says what to do.
///
/// # Errors
/// [`CliError::Failed`] when something has to be mended.
pub(crate) fn run(target: &Target, json: bool) -> Result<(), CliError> {
    let data = &target.folder();
    let mut findings = Vec::new();
    if External::from_env().broker.is_none() {
        findings.push(match rabbitmq::server_script() {
            Ok(script) => Finding::good("rabbitmq", script.display().to_string()),
            Err(error) => Finding::bad("rabbitmq", "missing", error.to_string()),
        });
    }
    findings.extend([
        program("ffmpeg", "ffmpeg", &["-version"], "apt-get install ffmpeg (for opus and rare formats)"),
        program(
            "python3 pip",
            "python3",
            &["-m", "pip", "--version"],
            "apt-get install python3-pip (to download models)",
        ),
    ]);
    // Set by the script in a checkout, the only place with tests.
    if std::env::var_os("WARREN_ROOT").is_some() {
        findings.push(postgresql());
    }
    findings.push(disk("disk", data, "make room, or choose another folder with --data DIR"));
    findings.extend(models(data));
    if let Err(error) = up::check_overrides(data) {
        findings.push(Finding::bad("settings", "cannot be read", error.to_string()));
    }
    findings.extend(stack(target, data));
    let sound = findings.iter().all(|finding| finding.good);
    if json {
        for finding in &findings {
            output::json_line(&json!({
                "what": finding.what, "good": finding.good, "found": finding.found, "fix": finding.fix,
            }))?;
        }
    } else {
        let mut table = output::table(&["", "what", "found", "what to do"]);
        for finding in &findings {
            let mark = if finding.good { "✓" } else { "✗" };
            table.add_row([mark, finding.what, &finding.found, if finding.good { "" } else { &finding.fix }]);
        }
        output::line(table)?;
    }
    if sound { Ok(()) } else { Err(CliError::Failed) }
}

fn program(what: &'static str, path: &str, arguments: &[&str], fix: &str) -> Finding {
    let fix = fix.to_owned();
    let output = Command::new(path).args(arguments).output().ok().filter(|output| output.status.success());
    let first_line =
        output.as_ref().map(|output| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").to_owned());
    let found = first_line.unwrap_or_else(|| "not found".to_owned());
    Finding { what, good: output.is_some(), found: found.chars().take(60).collect(), fix }
}

/// It is no trouble without: a stack's own database is a file.
fn postgresql() -> Finding {
    match warren_local::postgres::installed() {
        Ok(folder) => Finding::good("postgresql", folder.display().to_string()),
        Err(error) => Finding::good("postgresql", format!("{error}; only ./warren test needs it")),
    }
}

fn disk(what: &'static str, folder: &Path, fix: &str) -> Finding {
    let existing = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let free = up::free_bytes(existing).unwrap_or(0);
    let found = format!("{:.1} GiB free in {}", free as f64 / f64::from(1 << 30), existing.display());
    if free >= ROOM { Finding::good(what, found) } else { Finding::bad(what, found, fix) }
}

/// The folders of the weights, what is damaged in them, and what will be asked for and is not there.
fn models(data: &Path) -> Vec<Finding> {
    let (caches, in_use) = match Caches::of_stack(data).and_then(|caches| Ok((caches, models_in_use(data)?))) {
        Ok(found) => found,
        Err(error) => {
            let fix = format!("correct it in {}, or in the environment", data.join("overrides.toml").display());
            return vec![Finding::bad("models", error.to_string(), fix)];
        }
    };
    let catalogue = Catalogue::builtin();
    let is_used = |model: &Model| in_use.iter().any(|name| catalogue.get(name).is_ok_and(|used| used == model));
    let folders = caches
        .folders()
        .into_iter()
        .map(|folder| disk("models' disk", folder, "make room, or choose another folder with WARREN_MODELS__CACHE"));
    let found = catalogue.models().iter().filter_map(|model| match caches.of(model).status(model) {
        Status::Corrupt { file, reason } => Some(Finding::bad(
            "model",
            format!("{}: {file}: {reason}", model.name),
            format!("warren models pull --force {}", model.name),
        )),
        Status::Missing if is_used(model) => Some(Finding::bad(
            "model",
            format!("{} is not in {}", model.name, caches.of(model).dir().display()),
            format!("warren models pull {}", model.name),
        )),
        Status::Ready if is_used(model) => Some(Finding::good("model", model.name.clone())),
        Status::Ready | Status::Missing => None,
    });
    folders.chain(found).collect()
}

fn stack(target: &Target, data: &Path) -> Vec<Finding> {
    let here = Target { server: None, ..target.clone() };
    match up::ps(data) {
        Err(UpError::NoStack(_)) => vec![Finding::good("stack", format!("none in {}", data.display()))],
        Err(error) => vec![Finding::bad("stack", "cannot be read", error.to_string())],
        Ok(services) if services.is_empty() => {
            vec![Finding::good("stack", format!("not running, in {}", data.display()))]
        }
        Ok(services) => services
            .into_iter()
            .map(|service| Finding {
                what: "service",
                good: service.pid.is_some() && service.state == up::State::Ready,
                found: format!("{} {}", service.service, service.state),
                fix: here.command(&format!("logs {}", service.service)),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A stack's folder with weights in a folder of its own.
    fn stack_with_models(models: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["run", "settings", "weights/base"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for service in ["transcription", "batch-embedding"] {
            fs::write(dir.path().join(format!("settings/{service}.toml")), models).unwrap();
        }
        dir
    }

    #[test]
    fn weights_that_are_damaged_or_missing_are_found_where_the_workers_look() {
        let dir = stack_with_models("[models]\ncache = 'weights'\n");
        fs::write(dir.path().join("settings/ingest.toml"), "[defaults]\nspeech_model = 'small'\n").unwrap();
        fs::write(dir.path().join("weights/base/manifest.json"), "{").unwrap();
        let findings = models(dir.path());
        let fixes: Vec<_> = findings.iter().filter(|f| f.what == "model").map(|f| (f.good, f.fix.as_str())).collect();
        let expected = [
            (false, "warren models pull --force base"),
            (false, "warren models pull small"),
            (false, "warren models pull all-MiniLM-L6-v2"),
        ];
        assert_eq!(fixes, expected, "tiny.en is not used by this stack: {findings:?}");
        let weights = dir.path().join("weights").display().to_string();
        assert!(findings.iter().any(|f| f.what == "models' disk" && f.found.contains(&weights)), "{findings:?}");
    }

    #[test]
    fn settings_that_cannot_be_used_are_a_finding() {
        let dir = stack_with_models("[models]\nhub = 'hub.example'\n");
        let findings = models(dir.path());
        assert!(findings.len() == 1 && !findings[0].good && findings[0].found.contains("models.hub"), "{findings:?}");
    }

    #[test]
    fn a_stack_that_cannot_be_read_is_not_taken_for_none() {
        let dir = stack_with_models("");
        assert!(stack(&Target::default(), dir.path())[0].good, "none");
        fs::write(dir.path().join("stack.json"), "{").unwrap();
        let findings = stack(&Target::default(), dir.path());
        assert!(!findings[0].good && findings[0].fix.contains("stack.json"), "{findings:?}");
    }
}
