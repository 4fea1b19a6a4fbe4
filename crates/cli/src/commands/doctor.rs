//! `warren doctor`: is everything here that Warren needs, and does the stack work?

use std::{path::Path, process::Command};

use serde_json::json;
use warren_models::{Cache, Catalogue, ModelsSettings, Status};

use crate::{error::CliError, output, up};

/// One thing looked at.
struct Finding {
    what: &'static str,
    good: bool,
    found: String,
    fix: String,
}

/// Looks at everything and says what to do.
///
/// # Errors
/// [`CliError::Failed`] when something has to be mended.
pub(crate) fn run(data: &Path, json: bool) -> Result<(), CliError> {
    let mut findings = vec![
        program("rabbitmq", "/usr/lib/rabbitmq/bin/rabbitmq-server", &[], "apt-get install rabbitmq-server"),
        program("ffmpeg", "ffmpeg", &["-version"], "apt-get install ffmpeg (for opus and rare formats)"),
        program(
            "python3 pip",
            "python3",
            &["-m", "pip", "--version"],
            "apt-get install python3-pip (to download models)",
        ),
        disk(data),
    ];
    findings.extend(models());
    findings.extend(stack(data));
    let sound = findings.iter().all(|finding| finding.good);
    if json {
        for finding in &findings {
            output::json_line(&json!({
                "what": finding.what, "good": finding.good, "found": finding.found, "fix": finding.fix,
            }));
        }
    } else {
        let mut table = output::table(&["", "what", "found", "what to do"]);
        for finding in &findings {
            let mark = if finding.good { "✓" } else { "✗" };
            table.add_row([mark, finding.what, &finding.found, if finding.good { "" } else { &finding.fix }]);
        }
        println!("{table}");
    }
    if sound { Ok(()) } else { Err(CliError::Failed) }
}

fn program(what: &'static str, path: &str, arguments: &[&str], fix: &str) -> Finding {
    let fix = fix.to_owned();
    if arguments.is_empty() {
        let good = Path::new(path).exists();
        let found = if good { path.to_owned() } else { "not installed".to_owned() };
        return Finding { what, good, found, fix };
    }
    let output = Command::new(path).args(arguments).output().ok().filter(|output| output.status.success());
    let first_line =
        output.as_ref().map(|output| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").to_owned());
    let found = first_line.unwrap_or_else(|| "not found".to_owned());
    Finding { what, good: output.is_some(), found: found.chars().take(60).collect(), fix }
}

fn disk(data: &Path) -> Finding {
    let existing = data.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let free = nix::sys::statvfs::statvfs(existing).map(|stat| stat.blocks_available() * stat.fragment_size());
    let gib = free.unwrap_or(0) as f64 / f64::from(1 << 30);
    Finding {
        what: "free disk",
        good: gib >= 2.0,
        found: format!("{gib:.1} GiB in {}", existing.display()),
        fix: "make room, or choose another folder with --data DIR".to_owned(),
    }
}

fn models() -> Vec<Finding> {
    let (catalogue, cache) = (Catalogue::builtin(), Cache::with(&ModelsSettings::default()));
    let damaged = catalogue.models().iter().filter_map(|model| match cache.status(model) {
        Status::Corrupt { file, reason } => Some(Finding {
            what: "model",
            good: false,
            found: format!("{}: {file}: {reason}", model.name),
            fix: format!("warren models pull --force {}", model.name),
        }),
        Status::Ready | Status::Missing => None,
    });
    damaged.collect()
}

fn stack(data: &Path) -> Vec<Finding> {
    match up::ps(data) {
        Err(_) => vec![Finding {
            what: "stack",
            good: true,
            found: format!("none in {}", data.display()),
            fix: String::new(),
        }],
        Ok(services) => services
            .into_iter()
            .map(|service| Finding {
                what: "service",
                good: service.pid.is_some() && service.state == up::State::Ready,
                found: format!("{} {}", service.service, service.state),
                fix: format!("warren logs {}", service.service),
            })
            .collect(),
    }
}
