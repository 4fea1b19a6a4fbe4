//! From a package in a registry to checked recordings in a folder.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use zip::ZipArchive;

use crate::{
    RecordingsError,
    catalogue::{Package, Registry},
    files, node,
    progress::{Phase, Progress, Tell},
    tool::{self, Job},
};

/// Fetches the package and puts its recordings into `place`. What was fetched before an interruption is used; only
/// complete and checked files get their final names. `staging` belongs to this call alone.
pub(crate) fn fetch(package: &Package, staging: &Path, place: &Path, tell: Tell<'_>) -> Result<(), RecordingsError> {
    let io = RecordingsError::io;
    fs::create_dir_all(staging).map_err(io(staging))?;
    let archive = staging.join(&package.archive);
    if !files::is_right(&archive, &package.sha256).map_err(io(&archive))? {
        download(package, staging, &archive, tell)?;
    }
    tell(Progress {
        package: &package.title(),
        phase: Phase::Unpacking,
        bytes_done: package.size,
        bytes_total: package.size,
    });
    let fresh = staging.join("fresh");
    files::remove(&fresh).map_err(io(&fresh))?;
    fs::create_dir_all(&fresh).map_err(io(&fresh))?;
    match package.registry {
        Registry::Npm => unpack_tar(package, &archive, &fresh, staging, tell)?,
        Registry::Pypi => unpack_zip(package, &archive, &fresh)?,
    }
    for entry in &package.recordings {
        let file = fresh.join(entry.file_name());
        if !files::is_right(&file, &entry.sha256).map_err(io(&file))? {
            return Err(broken(package, format!("{} differs from what it should be", entry.file)));
        }
    }
    files::remove(place).map_err(io(place))?;
    fs::rename(&fresh, place).map_err(io(place))?;
    files::remove(staging).map_err(io(staging))
}

fn broken(package: &Package, reason: impl Into<String>) -> RecordingsError {
    RecordingsError::Source { package: package.title(), reason: reason.into() }
}

fn download(package: &Package, staging: &Path, archive: &Path, tell: Tell<'_>) -> Result<(), RecordingsError> {
    let io = RecordingsError::io;
    // Neither program can go on where an earlier one stopped, so what a killed one left behind is of no use.
    let (work, arrived) = (staging.join("work"), staging.join("arrived"));
    for folder in [&work, &arrived] {
        files::remove(folder).map_err(io(folder))?;
        fs::create_dir_all(folder).map_err(io(folder))?;
    }
    match package.registry {
        Registry::Npm => {
            let npm = node::npm(std::env::var_os("PATH").as_deref(), &work, tell)?;
            node::pack(npm, package, &work, &arrived, tell)?;
        }
        Registry::Pypi => {
            let mut pip = pip(&arrived, &work);
            pip.arg(format!("{}=={}", package.name, package.version));
            let job = Job {
                package: &package.title(),
                install: "python3 and pip",
                growing: staging,
                bytes: package.size,
                log: &staging.join("log"),
            };
            tool::run(pip, &job, tell)?;
        }
    }
    let found = arrived.join(&package.archive);
    if !files::is_right(&found, &package.sha256).map_err(io(&found))? {
        return Err(broken(package, format!("{} is missing or its sha256 differs", package.archive)));
    }
    File::open(&found).and_then(|file| file.sync_all()).map_err(io(&found))?;
    fs::rename(&found, archive).map_err(io(archive))?;
    files::remove(&work).map_err(io(&work))
}

/// `pip download` of wheels alone, which runs nothing of theirs; the package is still to be named.
pub(crate) fn pip(arrived: &Path, temporary: &Path) -> Command {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--progress-bar", "off"])
        .args(["--disable-pip-version-check", "--no-cache-dir", "--retries", "2", "-d"])
        .arg(arrived)
        // pip writes to its temporary folder first: there its progress can be seen.
        .env("TMPDIR", temporary)
        // Nothing is installed, so a machine that wants virtual environments need not object.
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .stdout(Stdio::null());
    pip
}

fn unpack_zip(package: &Package, archive: &Path, to: &Path) -> Result<(), RecordingsError> {
    let io = RecordingsError::io;
    let file = File::open(archive).map_err(io(archive))?;
    let said = |error: zip::result::ZipError| broken(package, format!("{}: {error}", package.archive));
    let mut archive = ZipArchive::new(io::BufReader::new(file)).map_err(said)?;
    for entry in &package.recordings {
        let place = to.join(entry.file_name());
        let mut member = archive.by_name(&entry.file).map_err(said)?;
        let mut file = File::create(&place).map_err(io(&place))?;
        io::copy(&mut member, &mut file).and_then(|_| file.sync_all()).map_err(io(&place))?;
    }
    Ok(())
}

fn unpack_tar(
    package: &Package,
    archive: &Path,
    to: &Path,
    staging: &Path,
    tell: Tell<'_>,
) -> Result<(), RecordingsError> {
    for entry in &package.recordings {
        let place: PathBuf = to.join(entry.file_name());
        let file = File::create(&place).map_err(RecordingsError::io(&place))?;
        let mut tar = Command::new("tar");
        tar.arg("-xzOf").arg(archive).arg(&entry.file).stdout(file);
        let job = Job {
            package: &package.title(),
            install: "tar and gzip",
            growing: to,
            bytes: package.size,
            log: &staging.join("log"),
        };
        tool::run(tar, &job, tell)?;
    }
    Ok(())
}
