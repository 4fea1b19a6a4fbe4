//! The services' binaries, which are built into the same folder as `warren`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{UpError, stack::Instance};

/// The path of `warren-SERVICE`.
pub(super) fn service(service: &str) -> Result<PathBuf, UpError> {
    let path = warren()?.with_file_name(format!("warren-{service}"));
    if path.is_file() {
        return Ok(path);
    }
    let why = format!("{} is missing; build it with ./warren, or cargo build --workspace", path.display());
    Err(UpError::Prerequisite(why))
}

/// Runs `warren-SERVICE` with a file of settings and the part of this environment that it understands.
pub(super) fn run_service(service: &str, settings: &Path, sections: &Sections) -> Result<Command, UpError> {
    let mut command = Command::new(self::service(service)?);
    command.arg("--config").arg(settings);
    clean_environment(&mut command, |section| sections.has(service, section));
    Ok(command)
}

/// This program. The kernel marks a program that was rebuilt while it ran; the new one is at the same path.
pub(super) fn warren() -> Result<PathBuf, UpError> {
    let path = std::env::current_exe().map_err(UpError::io("find the warren program"))?;
    match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(path) => Ok(PathBuf::from(path)),
        None => Ok(path),
    }
}

/// Leaves out of a service's environment what its settings file says, and what it would not understand.
fn clean_environment(command: &mut Command, knows: impl Fn(&str) -> bool) {
    for (name, _) in std::env::vars_os() {
        if !passes(&name.to_string_lossy(), &knows) {
            command.env_remove(name);
        }
    }
    // Everything is on this machine; a proxy could not reach it.
    for name in ["NO_PROXY", "no_proxy"] {
        let mut hosts = std::env::var_os(name).unwrap_or_default();
        hosts.push(OsString::from(if hosts.is_empty() { "127.0.0.1,localhost" } else { ",127.0.0.1,localhost" }));
        command.env(name, hosts);
    }
}

/// What `warren up` writes for every process by itself; a variable would give all of them the same value.
const OURS: [&str; 12] = [
    "http__bind",
    "grpc__bind",
    "broker__url",
    "broker__management_url",
    "store__url",
    "blob__endpoint",
    "blob__bucket",
    "blob__access_key",
    "blob__secret_key",
    "leader__name",
    "leases__worker",
    "leases__coordinators",
];

fn passes(name: &str, knows: &impl Fn(&str) -> bool) -> bool {
    let Some(key) = name.strip_prefix("WARREN_").map(str::to_lowercase) else { return true };
    match key.split_once("__") {
        Some((section, _)) => !OURS.contains(&key.as_str()) && knows(section),
        None => key != "config",
    }
}

/// Which sections the settings of each service have.
#[derive(Clone, Debug, Default)]
pub(super) struct Sections(BTreeMap<String, BTreeSet<String>>);

impl Sections {
    /// Asks each binary once.
    pub(super) fn ask(instances: &[Instance]) -> Result<Self, UpError> {
        let services: BTreeSet<_> = instances.iter().map(|instance| instance.service).collect();
        let asked = services.into_iter().map(|name| Ok((name.to_owned(), ask(&service(name)?)?)));
        asked.collect::<Result<_, _>>().map(Self)
    }

    /// True also for a service that was not asked.
    pub(super) fn has(&self, service: &str, section: &str) -> bool {
        self.0.get(service).is_none_or(|sections| sections.contains(section))
    }

    /// True when some service has it, or none was asked.
    pub(super) fn known(&self, section: &str) -> bool {
        self.0.is_empty() || self.0.values().any(|sections| sections.contains(section))
    }

    #[cfg(test)]
    pub(super) fn of(known: &[(&str, &[&str])]) -> Self {
        let owned = |(service, sections): &(&str, &[&str])| {
            ((*service).to_owned(), sections.iter().map(|&section| section.to_owned()).collect())
        };
        Self(known.iter().map(owned).collect())
    }
}

fn ask(binary: &Path) -> Result<BTreeSet<String>, UpError> {
    let mut command = Command::new(binary);
    command.arg("--print-settings").stdin(Stdio::null());
    clean_environment(&mut command, |_| false);
    let output = command.output().map_err(UpError::io(format!("run {}", binary.display())))?;
    let settings = String::from_utf8_lossy(&output.stdout).parse::<toml::Table>();
    match settings {
        Ok(settings) if output.status.success() => Ok(settings.keys().cloned().collect()),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            let why = format!("{} --print-settings failed: {}", binary.display(), said.trim());
            Err(UpError::Prerequisite(why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_that_a_service_understands_pass() {
        let knows = |section: &str| section == "models" || section == "http";
        for (name, expected) in [
            ("PATH", true),
            ("WARREN_DATA", true),
            ("WARREN_MODELS__CACHE", true),
            ("WARREN_HTTP__BIND", false),
            ("WARREN_HTTP__KEEP_ALIVE", true),
            ("WARREN_DEFAULTS__SPEECH_MODEL", false),
            ("WARREN_CONFIG", false),
        ] {
            assert_eq!(passes(name, &knows), expected, "{name}");
        }
    }

    #[test]
    fn a_missing_binary_says_how_to_build_it() {
        let error = service("no-such-service").unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("cargo build"), "{error}");
    }
}
