//! The demo's own folder, which never is anybody else's.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use warren_models::ModelsSettings;

use crate::{
    error::CliError,
    up::{self, UpError},
};

/// Tells a demo's folder from all others, and is locked while a demo runs.
const MARK: &str = "demo.lock";
/// So many demos may run at once without naming folders.
const FOLDERS: u32 = 9;

/// An empty folder for one demo.
#[derive(Debug)]
pub(super) struct Place {
    /// Its path.
    pub data: PathBuf,
    _lock: File,
}

impl Place {
    /// Removes it.
    pub(super) fn remove(self) {
        if let Err(error) = empty(&self.data).and_then(|()| fs::remove_dir_all(&self.data)) {
            eprintln!("{} could not be removed: {error}", self.data.display());
        }
    }
}

/// The named folder, or one in the user's cache folder. What an earlier demo left in it is removed.
///
/// # Errors
/// [`CliError::Usage`] when it is not a demo's, or is in use.
pub(super) fn claim(data: Option<PathBuf>) -> Result<Place, CliError> {
    if let Some(data) = data {
        return try_claim(&data)?.ok_or_else(|| {
            CliError::Usage(format!("--data {}: in use by another demo; name another folder", data.display()))
        });
    }
    let models = ModelsSettings::default().cache;
    let parent = models.parent().unwrap_or(&models);
    for number in 1..=FOLDERS {
        let name = if number == 1 { "demo".to_owned() } else { format!("demo-{number}") };
        if let Some(place) = try_claim(&parent.join(name))? {
            return Ok(place);
        }
    }
    Err(CliError::Usage(format!("{FOLDERS} demos run already; name a folder with --data DIR")))
}

/// `None` when it is in use.
fn try_claim(data: &Path) -> Result<Option<Place>, CliError> {
    let failed = |path: &Path| CliError::file(path.display().to_string());
    fs::create_dir_all(data).map_err(failed(data))?;
    let data = data.canonicalize().map_err(failed(data))?;
    let mark = data.join(MARK);
    let mut entries = fs::read_dir(&data).map_err(failed(&data))?;
    if !mark.exists() && entries.next().is_some() {
        let why = "holds something else than an earlier demo; name an empty folder";
        return Err(CliError::Usage(format!("--data {}: {why}", data.display())));
    }
    let lock = File::create(&mark).map_err(failed(&mark))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(failed(&mark)(error)),
    }
    match up::ps(&data) {
        Err(UpError::NoStack(_)) => {}
        // A kept one was started again with `warren up`.
        Ok(services) if !services.is_empty() => return Ok(None),
        // Whatever a killed demo left behind is stopped.
        Ok(_) | Err(_) => {
            up::down(&data, &mut |line| eprintln!("{line}"))?;
        }
    }
    empty(&data).map_err(failed(&data))?;
    Ok(Some(Place { data, _lock: lock }))
}

/// Removes all but the mark.
fn empty(data: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name() == MARK {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_folder_or_a_demo_s_own_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let fresh = root.path().join("a b/fresh");
        let place = claim(Some(fresh.clone())).unwrap();
        assert!(claim(Some(fresh.clone())).unwrap_err().to_string().contains("in use"));
        fs::create_dir(place.data.join("store")).unwrap();
        fs::write(place.data.join("store/file"), "old").unwrap();
        drop(place);
        let again = claim(Some(fresh.clone())).unwrap();
        assert_eq!(fs::read_dir(&fresh).unwrap().count(), 1, "emptied");
        again.remove();
        assert!(!fresh.exists());

        fs::write(root.path().join("letter"), "dear").unwrap();
        let error = claim(Some(root.path().to_owned())).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("something else"), "{error}");
        assert!(root.path().join("letter").exists());
    }
}
