//! The stack's folder and what is where in it.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};
use warren_local::process::Identity;

use super::UpError;

/// Where `warren up` keeps everything unless told otherwise: `$XDG_DATA_HOME/warren`, else `~/.local/share/warren`.
pub(crate) fn default_data_dir() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/share")))
        .unwrap_or_else(std::env::temp_dir)
        .join("warren")
}

/// Bytes free for this user on the disk of a folder; `None`: that cannot be known.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = nix::sys::statvfs::statvfs(folder).ok()?;
    Some(disk.blocks_available() * disk.fragment_size())
}

/// One stack's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes the folder, readable by this user only.
    pub(super) fn create(data: &Path) -> Result<Self, UpError> {
        make(data)?;
        let folder = Self::open(data)?;
        // The database's address is a URL.
        if folder.root.to_string_lossy().contains(['%', '?', '#']) {
            let why = format!("--data {}: the path may not contain %, ? or #", folder.root.display());
            return Err(UpError::Usage(why));
        }
        for part in ["settings", "run", "logs", "store", "s3", "rabbitmq"] {
            make(&folder.root.join(part))?;
        }
        Ok(folder)
    }

    /// The folder, which must exist.
    pub(super) fn open(data: &Path) -> Result<Self, UpError> {
        match data.canonicalize() {
            Ok(root) => Ok(Self { root }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(UpError::NoStack(data.to_owned())),
            Err(error) => Err(UpError::io(format!("open {}", data.display()))(error)),
        }
    }

    /// The folder of a stack, running or not.
    pub(super) fn of_stack(data: &Path) -> Result<Self, UpError> {
        let folder = Self::open(data)?;
        match fs::metadata(folder.root.join("run")) {
            Ok(run) if run.is_dir() => Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let why = format!(
                    "{} is another user's folder; use that user's stack with --server URL",
                    folder.root.display()
                );
                Err(UpError::Usage(why))
            }
            _ => Err(UpError::NoStack(folder.root)),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Ports and logins.
    pub(super) fn stack(&self) -> PathBuf {
        self.root.join("stack.json")
    }

    /// Changes to the generated settings, made by a person.
    pub(super) fn overrides(&self) -> PathBuf {
        self.root.join("overrides.toml")
    }

    /// Settings of one service, or of the S3 server.
    pub(super) fn settings(&self, service: &str) -> PathBuf {
        self.root.join("settings").join(format!("{service}.toml"))
    }

    /// The current log of a service.
    pub(super) fn log(&self, service: &str) -> PathBuf {
        self.root.join("logs").join(format!("{service}.log"))
    }

    /// Where settings are laid out that a service is asked about before they hold.
    pub(super) fn trial(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(super) fn rabbitmq(&self) -> PathBuf {
        self.root.join("rabbitmq")
    }

    pub(super) fn s3(&self) -> PathBuf {
        self.root.join("s3")
    }

    pub(super) fn database(&self) -> PathBuf {
        self.root.join("store/warren.sqlite")
    }

    fn run(&self, name: &str) -> PathBuf {
        self.root.join("run").join(name)
    }

    /// What runs, kept by the supervisor.
    pub(super) fn services(&self) -> PathBuf {
        self.run("services.json")
    }

    /// Who supervises.
    pub(super) fn supervisor(&self) -> PathBuf {
        self.run("supervisor.json")
    }

    /// The generation of `stack.json` that the supervisor runs.
    pub(super) fn applied(&self) -> PathBuf {
        self.run("applied.json")
    }

    /// Why the supervisor gave up, if it did.
    pub(super) fn failure(&self) -> PathBuf {
        self.run("failure.txt")
    }

    /// Waits until no other command changes this stack; the kernel drops the lock when its holder ends.
    pub(super) fn lock(&self, progress: &mut dyn FnMut(&str)) -> Result<File, UpError> {
        let start = Instant::now();
        let mut said = 0;
        loop {
            if let Some(lock) = try_lock(&self.run("command.lock"))? {
                return Ok(lock);
            }
            if start.elapsed().as_secs() / 5 > said {
                said = start.elapsed().as_secs() / 5;
                progress("waiting for another warren command in this folder");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The right to supervise this stack, or `None` when another process has it.
    pub(super) fn supervisor_lock(&self) -> Result<Option<File>, UpError> {
        try_lock(&self.run("supervisor.lock"))
    }

    /// The live supervisor, if there is one.
    pub(super) fn live_supervisor(&self) -> Option<Identity> {
        read_json::<Identity>(&self.supervisor()).filter(|identity| identity.alive())
    }
}

fn make(folder: &Path) -> Result<(), UpError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(UpError::io(format!("make folder {}", folder.display())))
}

fn try_lock(path: &Path) -> Result<Option<File>, UpError> {
    let failed = || UpError::io(format!("lock {}", path.display()));
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(failed())?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed()(error)),
    }
}

/// Writes a file that only this user can read, whole or not at all.
pub(super) fn write_file(path: &Path, text: &str) -> Result<(), UpError> {
    let aside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().map_err(UpError::io(format!("write {}", path.display())))
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), UpError> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other);
    let text = text.map_err(UpError::io(format!("write {}", path.display())))?;
    write_file(path, &(text + "\n"))
}

/// The value of a file, or `None` when there is none or it is damaged.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_may_supervise() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("a b")).unwrap();
        assert_eq!(folder.live_supervisor(), None);
        let held = folder.supervisor_lock().unwrap();
        assert!(held.is_some() && folder.supervisor_lock().unwrap().is_none());
        write_json(&folder.supervisor(), &Identity::me()).unwrap();
        assert_eq!(folder.live_supervisor(), Identity::me());
        drop(held);
        // A process that another test is starting has the lock's file open, too, until it runs its own program.
        let start = std::time::Instant::now();
        while folder.supervisor_lock().unwrap().is_none() {
            assert!(start.elapsed() < std::time::Duration::from_secs(10), "still locked");
            std::thread::yield_now();
        }
    }

    #[test]
    fn files_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        write_file(&folder.stack(), "{}").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.stack()), 0o600);
        assert_eq!(mode(&folder.s3()), 0o700);
    }

    #[test]
    fn a_folder_never_used_says_how_to_start() {
        let dir = tempfile::tempdir().unwrap();
        for data in [dir.path(), Path::new("/no/such/folder")] {
            let error = Folder::of_stack(data).unwrap_err();
            assert!(error.to_string().contains("warren up --data"), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
