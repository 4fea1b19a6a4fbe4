//! `warren reset`: a stack as if nothing had ever been done with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use warren_clock::Clock;
use warren_jobs::JobState;
use warren_store::{Store, StoreSettings, migrate};

use super::{UpError, folder::Folder, settings, stack::Stack};

/// What a stack holds, and a reset destroys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    /// Jobs in the database, whatever became of them; `None`: it cannot be read.
    pub jobs: Option<u64>,
    /// Of those, the ones that have not ended.
    pub open_jobs: Option<u64>,
    /// Each folder that is deleted, with the bytes in it.
    pub folders: Vec<(PathBuf, u64)>,
}

/// What the stack in `data` holds. Changes nothing.
///
/// # Errors
/// [`UpError::NoStack`]; [`UpError::Usage`] when the stack runs, or keeps something elsewhere: that is not this
/// command's to destroy.
pub(crate) async fn holding(data: &Path) -> Result<Holding, UpError> {
    let folder = Folder::of_stack(data)?;
    let stack = Stack::load(&folder)?.ok_or_else(|| UpError::NoStack(folder.root().to_owned()))?;
    if folder.live_supervisor().is_some() {
        let root = folder.root();
        return Err(UpError::Usage(format!("the stack runs; stop it first: warren down --data {root:?}")));
    }
    let external = &stack.external;
    let elsewhere = [
        ("the broker", external.broker.is_some()),
        ("the database", external.store_url.is_some()),
        ("object storage", external.blob.is_some()),
    ];
    let elsewhere: Vec<_> = elsewhere.into_iter().filter(|(_, is)| *is).map(|(part, _)| part).collect();
    if !elsewhere.is_empty() {
        let parts = elsewhere.join(" and ");
        return Err(UpError::Usage(format!(
            "{parts} of this stack is elsewhere; what is there is not deleted from here"
        )));
    }
    let counts = count(&settings::store_url(&folder, &stack)).await;
    let folders = places(&folder).map(|place| {
        let bytes = size(&place);
        (place, bytes)
    });
    Ok(Holding { jobs: counts.map(|(all, _)| all), open_jobs: counts.map(|(_, open)| open), folders: folders.into() })
}

/// Deletes everything that [`holding`] names, and makes an empty database. Ports, logins, settings and logs stay.
///
/// # Errors
/// As [`holding`]; [`UpError::Io`] names what could not be deleted.
pub(crate) async fn reset(data: &Path) -> Result<Holding, UpError> {
    let held = holding(data).await?;
    let folder = Folder::of_stack(data)?;
    let _lock = folder.lock(&mut |_| ())?;
    let Some(_alone) = folder.supervisor_lock()? else {
        return Err(UpError::Usage("the stack is being started; nothing was deleted".to_owned()));
    };
    for (place, _) in &held.folders {
        match fs::remove_dir_all(place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(UpError::io(format!("delete {}", place.display()))(error));
            }
            _ => {}
        }
    }
    let folder = Folder::create(folder.root())?;
    let stack = Stack::load(&folder)?.ok_or_else(|| UpError::NoStack(folder.root().to_owned()))?;
    let made = migrate::up(&settings::store_url(&folder, &stack)).await;
    made.map_err(|error| UpError::NotReady(format!("the new database could not be made: {error}")))?;
    Ok(held)
}

fn places(folder: &Folder) -> [PathBuf; 3] {
    let store = folder.database().parent().map(Path::to_owned).unwrap_or_default();
    [store, folder.s3(), folder.rabbitmq()]
}

/// All jobs, and those that are open.
async fn count(url: &str) -> Option<(u64, u64)> {
    let store = Store::open(&StoreSettings::at(url), Clock::system()).await.ok()?;
    let counts = store.read().job_counts().await.ok()?;
    let open = |state: JobState| !state.is_ended();
    let sum = |wanted: &dyn Fn(JobState) -> bool| {
        counts.iter().filter(|(_, state, _)| wanted(*state)).map(|(_, _, jobs)| jobs).sum()
    };
    let found = (sum(&|_| true), sum(&open));
    store.close().await.ok()?;
    Some(found)
}

fn size(place: &Path) -> u64 {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_of_its_own_goes_and_ports_and_settings_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        assert!(matches!(holding(dir.path()).await, Err(UpError::NoStack(_))));
        let stack = Stack::generate().unwrap();
        stack.save(&folder).unwrap();
        fs::write(folder.s3().join("recording"), "abc").unwrap();
        fs::write(folder.overrides(), "").unwrap();
        let held = holding(dir.path()).await.unwrap();
        assert_eq!((held.jobs, held.folders[1].1), (None, 3));
        assert!(folder.s3().join("recording").exists(), "looking deletes nothing");

        assert_eq!(reset(dir.path()).await.unwrap(), held);
        assert!(!folder.s3().join("recording").exists() && folder.overrides().exists());
        assert_eq!(Stack::load(&folder).unwrap(), Some(stack));
        let held = holding(dir.path()).await.unwrap();
        assert_eq!((held.jobs, held.open_jobs), (Some(0), Some(0)), "an empty database");
    }

    #[tokio::test]
    async fn what_is_elsewhere_is_not_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        let mut stack = Stack::generate().unwrap();
        stack.external.store_url = Some("postgres://there/warren".to_owned());
        stack.save(&folder).unwrap();
        let error = reset(dir.path()).await.unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("the database"), "{error}");
    }
}
