//! The settings files of a stack's services: generated at every start, changed by `overrides.toml`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use toml::{Table, Value, de::DeTable};

use super::{
    UpError, WorkerKind,
    binaries::{self, Sections},
    folder::{Folder, write_file},
    stack::{COORDINATOR, INGEST, Instance, Stack},
    workers::instance,
};

/// Written into a new folder, so that a person who looks finds out.
const OVERRIDES: &str = "\
# Changes to the generated settings of this stack, by service or by one process of it; read at every start.
# `all` reaches every service. What can be set: warren-SERVICE --print-settings. For example:
#
# [all.telemetry]
# log = \"debug\"
#
# [transcription-2.leases]
# device = \"cuda:0\"
";

/// Changes to the generated settings: a table for each service or process, and `all`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Overrides {
    /// Where they were read.
    file: PathBuf,
    text: String,
    tables: Table,
}

impl Overrides {
    /// Those of the stack; the template when there are none yet.
    ///
    /// # Errors
    /// [`UpError::Usage`] with the file and the line.
    pub(super) fn of(folder: &Folder) -> Result<Self, UpError> {
        let file = folder.overrides();
        if file.exists() { Self::read(file) } else { Self::parse(file, OVERRIDES.to_owned()) }
    }

    /// Those of a person's file.
    ///
    /// # Errors
    /// As [`Overrides::of`].
    pub(super) fn read(file: PathBuf) -> Result<Self, UpError> {
        let text = fs::read_to_string(&file).map_err(|error| UpError::Usage(format!("{}: {error}", file.display())))?;
        Self::parse(file, text)
    }

    fn parse(file: PathBuf, text: String) -> Result<Self, UpError> {
        // The line itself is not shown: it may hold a secret.
        let refused = |at: usize, why: &str| {
            let line = text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
            UpError::Usage(format!("{}, line {line}: {why}; correct it and run the command again", file.display()))
        };
        let syntax = |error: toml::de::Error| {
            let why = error.message().lines().next().unwrap_or_default().to_owned();
            refused(error.span().map_or(0, |span| span.start), &why)
        };
        for (name, table) in DeTable::parse(&text).map_err(syntax)?.get_ref() {
            let (name, at) = (name.get_ref(), name.span().start);
            if table.get_ref().as_table().is_none() {
                return Err(refused(at, &format!("`{name}` must be a table named after a service, or `all`")));
            }
            if !is_target(name) {
                let services = services().join(", ");
                let why = format!("there is no service `{name}`; there are all, {services}, transcription-2 and so on");
                return Err(refused(at, &why));
            }
        }
        let tables = text.parse().map_err(syntax)?;
        Ok(Self { file, text, tables })
    }

    /// True when the stack's own file says the same.
    pub(super) fn are_in(&self, folder: &Folder) -> bool {
        fs::read_to_string(folder.overrides()).is_ok_and(|text| text == self.text)
    }

    /// Makes them the stack's.
    pub(super) fn save(&self, folder: &Folder) -> Result<(), UpError> {
        if self.are_in(folder) { Ok(()) } else { write_file(&folder.overrides(), &self.text) }
    }

    fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name).and_then(Value::as_table)
    }
}

/// Whether the changes to the settings of the stack in `data`, if there is one, can be read.
///
/// # Errors
/// [`UpError::Usage`] with the file and the line.
pub(crate) fn check_overrides(data: &Path) -> Result<(), UpError> {
    match Folder::of_stack(data) {
        Ok(folder) => Overrides::of(&folder).map(drop),
        Err(UpError::NoStack(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn services() -> Vec<&'static str> {
    [INGEST, COORDINATOR].into_iter().chain(WorkerKind::ALL.map(WorkerKind::service)).collect()
}

/// Whether a table of this name can reach a process, now or when there are more of them.
fn is_target(name: &str) -> bool {
    let (service, number) = match name.rsplit_once('-') {
        Some((service, number)) if number.parse::<u16>().is_ok_and(|number| number > 1) => (service, Some(number)),
        _ => (name, None),
    };
    name == "all" || (services().contains(&service) && !(service == INGEST && number.is_some()))
}

/// Writes one file for each instance, and the overrides' template when there is none. `sections`: what each service
/// knows; it would refuse others.
pub(super) fn write(folder: &Folder, stack: &Stack, sections: &Sections, overrides: &Overrides) -> Result<(), UpError> {
    overrides.save(folder)?;
    for instance in stack.instances() {
        let text = text(folder, stack, &instance, sections, overrides);
        write_file(&folder.settings(&instance.name), &text)?;
    }
    Ok(())
}

fn text(folder: &Folder, stack: &Stack, instance: &Instance, sections: &Sections, overrides: &Overrides) -> String {
    let mut settings = generate(folder, stack, instance);
    if let Some(changes) = overrides.table("all") {
        merge(&mut settings, changes);
    }
    settings.retain(|section, _| sections.has(instance.service, section));
    for name in [instance.service, &instance.name] {
        if let Some(changes) = overrides.table(name) {
            merge(&mut settings, changes);
        }
    }
    format!("# Written by warren up at every start; make changes in overrides.toml.\n{settings}")
}

/// Asks every service whether it takes its settings, with these overrides and this environment. Changes nothing.
///
/// # Errors
/// [`UpError::Usage`] with what the service says, and where to mend it.
pub(super) fn check(folder: &Folder, stack: &Stack, sections: &Sections, overrides: &Overrides) -> Result<(), UpError> {
    let file = overrides.file.display();
    if let Some(section) = overrides.table("all").and_then(|all| all.keys().find(|section| !sections.known(section))) {
        return Err(UpError::Usage(format!("{file}: [all.{section}]: no service has a section `{section}`")));
    }
    let trial = folder.trial();
    let trial = tempfile::tempdir_in(&trial).map_err(UpError::io(format!("make a folder in {}", trial.display())))?;
    for instance in stack.instances() {
        // Others of the same service differ in names and ports alone.
        if instance.name != instance.service && overrides.table(&instance.name).is_none() {
            continue;
        }
        let name = format!("{}.toml", instance.name);
        write_file(&trial.path().join(&name), &text(folder, stack, &instance, sections, overrides))?;
        let mut command = binaries::run_service(instance.service, Path::new(&name), sections)?;
        let command = command.arg("--print-settings").current_dir(trial.path()).stdin(Stdio::null());
        let output = command.output().map_err(UpError::io(format!("run {}", instance.service)))?;
        if !output.status.success() {
            let said =
                String::from_utf8_lossy(&output.stderr).replace(&format!("(in {name})"), &format!("(in {file})"));
            let why = format!(
                "{}\nThe settings of {} come from {file} and the variables WARREN_…; correct them and run the command \
                 again. Nothing was started or changed.",
                said.trim(),
                instance.name
            );
            return Err(UpError::Usage(why));
        }
    }
    Ok(())
}

/// Sets what `changes` sets, table by table.
fn merge(settings: &mut Table, changes: &Table) {
    for (key, change) in changes {
        match (settings.get_mut(key), change) {
            (Some(Value::Table(inner)), Value::Table(change)) => merge(inner, change),
            _ => {
                settings.insert(key.clone(), change.clone());
            }
        }
    }
}

fn generate(folder: &Folder, stack: &Stack, instance: &Instance) -> Table {
    let mut settings = Table::new();
    let mut section = |name: &str, values: Vec<(&str, Value)>| {
        let values = values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        settings.insert(name.to_owned(), Value::Table(values));
    };
    let loopback = |using: &str| Value::from(format!("127.0.0.1:{}", stack.port(using)));
    section("http", vec![("bind", loopback(&format!("{}.http", instance.name)))]);
    section("telemetry", vec![("format", "json".into())]);
    section("broker", broker(stack));
    section("blob", blob(stack));
    if instance.worker {
        let coordinators = (1..=stack.coordinators).map(|number| Value::from(coordinator_url(stack, number)));
        section(
            "leases",
            vec![("worker", instance.name.as_str().into()), ("coordinators", coordinators.collect::<Vec<_>>().into())],
        );
    } else {
        section("store", vec![("url", store_url(folder, stack).into())]);
        section("grpc", vec![("bind", loopback(&format!("{}.grpc", instance.name)))]);
    }
    if instance.service == INGEST && stack.external.blob.is_none() {
        section("limits", vec![("disk", folder.s3().display().to_string().into())]);
    }
    if instance.service == COORDINATOR {
        section("leader", vec![("name", instance.name.as_str().into())]);
    }
    settings
}

fn broker(stack: &Stack) -> Vec<(&'static str, Value)> {
    let (url, management_url) = match &stack.external.broker {
        Some(broker) => (broker.url.clone(), broker.management_url.clone()),
        None => (stack.rabbitmq.amqp_url(), stack.rabbitmq.management_url()),
    };
    vec![("url", url.into()), ("management_url", management_url.into())]
}

fn blob(stack: &Stack) -> Vec<(&'static str, Value)> {
    let (bucket, access_key, secret_key) = match &stack.external.blob {
        Some(blob) => (&blob.bucket, &blob.access_key, &blob.secret_key),
        None => (&stack.s3.bucket, &stack.s3.access_key, &stack.s3.secret_key),
    };
    vec![
        ("endpoint", s3_endpoint(stack).into()),
        ("bucket", bucket.as_str().into()),
        ("access_key", access_key.as_str().into()),
        ("secret_key", secret_key.as_str().into()),
    ]
}

/// Where S3 is, private or elsewhere.
pub(super) fn s3_endpoint(stack: &Stack) -> String {
    match &stack.external.blob {
        Some(blob) => blob.endpoint.clone(),
        None => format!("http://127.0.0.1:{}", stack.port("s3")),
    }
}

/// The database, private or elsewhere.
pub(super) fn store_url(folder: &Folder, stack: &Stack) -> String {
    stack.external.store_url.clone().unwrap_or_else(|| format!("sqlite:{}", folder.database().display()))
}

/// The door for callers.
pub(super) fn grpc_url(stack: &Stack) -> String {
    format!("http://127.0.0.1:{}", stack.port(&format!("{INGEST}.grpc")))
}

fn coordinator_url(stack: &Stack, number: u16) -> String {
    format!("http://127.0.0.1:{}", stack.port(&format!("{}.grpc", instance(COORDINATOR, number))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::{WorkerKind, options::PortWishes};

    fn written(overrides: &str) -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        let mut stack = Stack::generate().unwrap();
        stack.coordinators = 2;
        stack.workers.insert(WorkerKind::Transcription, 2);
        stack.choose_ports(&PortWishes::default(), false).unwrap();
        if !overrides.is_empty() {
            fs::write(folder.overrides(), overrides).unwrap();
        }
        let sections = Sections::of(&[("ingest", &["telemetry", "store"])]);
        write(&folder, &stack, &sections, &Overrides::of(&folder).unwrap()).unwrap();
        (dir, folder)
    }

    fn read(folder: &Folder, name: &str) -> Table {
        fs::read_to_string(folder.settings(name)).unwrap().parse().unwrap()
    }

    #[test]
    fn workers_know_every_coordinator_and_no_database() {
        let (_dir, folder) = written("");
        let worker = read(&folder, "transcription-2");
        assert_eq!(worker["leases"]["worker"].as_str(), Some("transcription-2"));
        assert_eq!(worker["leases"]["coordinators"].as_array().map(Vec::len), Some(2));
        assert!(!worker.contains_key("store"));
        assert_eq!(read(&folder, "coordinator-2")["leader"]["name"].as_str(), Some("coordinator-2"));
        assert!(read(&folder, "ingest")["store"]["url"].as_str().unwrap().starts_with("sqlite:/"));
    }

    #[test]
    fn overrides_reach_all_or_one() {
        let (_dir, folder) = written(
            "[all.telemetry]\nlog = 'debug'\n[transcription.leases]\ndevice = 'cpu'\n[transcription-2.leases]\ndevice = \
             'cuda:0'\n",
        );
        assert_eq!(read(&folder, "ingest")["telemetry"]["log"].as_str(), Some("debug"));
        assert_eq!(read(&folder, "ingest")["telemetry"]["format"].as_str(), Some("json"));
        assert_eq!(read(&folder, "transcription")["leases"]["device"].as_str(), Some("cpu"));
        assert_eq!(read(&folder, "transcription-2")["leases"]["device"].as_str(), Some("cuda:0"));
    }

    #[test]
    fn sections_that_a_service_does_not_know_are_left_out() {
        let (_dir, folder) = written("[all.models]\nhub = 'http://127.0.0.1:1'\n");
        assert!(!read(&folder, "ingest").contains_key("models"));
        assert!(read(&folder, "transcription").contains_key("models"));
    }

    #[test]
    fn the_template_changes_nothing() {
        let (_dir, folder) = written("");
        assert!(folder.overrides().exists());
        assert!(Overrides::of(&folder).unwrap().tables.is_empty());
    }

    #[test]
    fn damaged_overrides_are_placed_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        for (text, line, says) in [
            ("[", 1, ""),
            ("log = 1", 1, "`log` must be a table"),
            ("[ingest.auth]\n\nkeys = hunter2\n", 3, ""),
            ("# all\n[transcripton.leases]\ndevice = 'cpu'\n", 2, "no service `transcripton`"),
            ("[ingest-2.telemetry]\n", 1, "no service `ingest-2`"),
            ("[transcription-1.leases]\n", 1, "no service `transcription-1`"),
            ("[all.telemetry]\nlog = 'a'\nlog = 'b'\n", 3, "duplicate"),
        ] {
            fs::write(folder.overrides(), text).unwrap();
            let error = Overrides::of(&folder).unwrap_err();
            let told = error.to_string();
            assert!(error.exit_code() == 2 && told.contains(says) && !told.contains("hunter2"), "{told}");
            assert!(told.contains(&format!("overrides.toml, line {line}: ")), "{told}");
        }
        for sound in ["[transcription-9.leases]\n", "[coordinator-2.leader]\n", "[all]\n", ""] {
            fs::write(folder.overrides(), sound).unwrap();
            assert!(Overrides::of(&folder).is_ok(), "{sound}");
        }
    }

    #[test]
    fn a_section_that_no_service_has_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        fs::write(folder.overrides(), "[all.modles]\nhub = 'http://127.0.0.1:1'\n").unwrap();
        let sections = Sections::of(&[("transcription", &["models"])]);
        let overrides = Overrides::of(&folder).unwrap();
        let error = check(&folder, &Stack::generate().unwrap(), &sections, &overrides).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("[all.modles]"), "{error}");
    }
}
