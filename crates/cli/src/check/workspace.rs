//! Where the sources are, and which test targets they have.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::error::CliError;

/// The package of end-to-end suites.
pub(crate) const TESTS: &str = "warren-tests";

/// A checkout of this repository.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    /// Its top folder.
    pub root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
    /// Names of the end-to-end suites, in order.
    pub end_to_end: Vec<String>,
}

impl Workspace {
    /// The checkout that `./warren` belongs to, else the one around the current folder.
    ///
    /// # Errors
    /// [`CliError::Usage`] when there is none, or no cargo.
    pub(crate) fn find() -> Result<Self, CliError> {
        let is_root = |folder: &Path| folder.join("crates/cli/Cargo.toml").is_file() && folder.join("proto").is_dir();
        let here = std::env::current_dir().map_err(CliError::file("find the current folder"))?;
        let named = std::env::var_os("WARREN_ROOT").map(PathBuf::from).into_iter();
        let root = named
            .chain(here.ancestors().map(Path::to_owned))
            .find(|folder| is_root(folder))
            .ok_or_else(|| CliError::Usage("the tests are in the sources; run ./warren test there".to_owned()))?;
        let output = Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
            .current_dir(&root)
            .output()
            .map_err(|error| CliError::Usage(format!("cargo: {error}; install rustup from https://rustup.rs")))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(CliError::Usage(format!("cargo metadata: {why}")));
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| CliError::Usage(format!("cargo metadata printed no JSON: {error}")))?;
        Ok(Self::read(root, &metadata))
    }

    fn read(root: PathBuf, metadata: &Value) -> Self {
        let target = metadata["target_directory"].as_str().map_or_else(|| root.join("target"), PathBuf::from);
        let package = array(&metadata["packages"]).iter().find(|package| package["name"] == TESTS);
        let mut end_to_end = Vec::new();
        if let Some(package) = package {
            let targets = array(&package["targets"]).iter();
            let tests = targets.filter(|target| array(&target["kind"]).iter().any(|kind| kind == "test"));
            end_to_end = tests.filter_map(|target| target["name"].as_str()).map(str::to_owned).collect();
            end_to_end.sort();
        }
        Self { root, target, end_to_end }
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn suites_are_the_test_targets() {
        let metadata = json!({
            "target_directory": "/elsewhere",
            "packages": [
                {"name": "warren-jobs", "targets": [{"name": "x", "kind": ["test"]}]},
                {"name": "warren-tests", "targets": [
                    {"name": "warren-tests", "kind": ["lib"]},
                    {"name": "long", "kind": ["test"]},
                    {"name": "clip", "kind": ["test"]},
                ]},
            ],
        });
        let workspace = Workspace::read(PathBuf::from("/here"), &metadata);
        assert_eq!(workspace.target, Path::new("/elsewhere"));
        assert_eq!(workspace.end_to_end, ["clip", "long"]);
    }
}
