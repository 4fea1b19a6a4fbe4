//! The settings files of a stack's services: generated at every start, changed by `overrides.toml`.

use std::fs;

use toml::{Table, Value};

use super::{
    UpError,
    binaries::Sections,
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

/// Writes one file for each instance, and the overrides' template when there is none. `sections`: what each service
/// knows; it would refuse others.
pub(super) fn write(folder: &Folder, stack: &Stack, sections: &Sections) -> Result<(), UpError> {
    if !folder.overrides().exists() {
        write_file(&folder.overrides(), OVERRIDES)?;
    }
    let overrides = overrides(folder)?;
    for instance in stack.instances() {
        let mut settings = generate(folder, stack, &instance);
        if let Some(Value::Table(changes)) = overrides.get("all") {
            merge(&mut settings, changes);
        }
        settings.retain(|section, _| sections.has(instance.service, section));
        for name in [instance.service, &instance.name] {
            if let Some(Value::Table(changes)) = overrides.get(name) {
                merge(&mut settings, changes);
            }
        }
        let text = format!("# Written by warren up at every start; make changes in overrides.toml.\n{settings}");
        write_file(&folder.settings(&instance.name), &text)?;
    }
    Ok(())
}

/// Reads `overrides.toml`.
fn overrides(folder: &Folder) -> Result<Table, UpError> {
    let path = folder.overrides();
    let text = fs::read_to_string(&path).map_err(UpError::io(format!("read {}", path.display())))?;
    parse_overrides(&text).map_err(|error| UpError::Usage(format!("{}: {error}", path.display())))
}

/// A table for each service; says what is wrong otherwise.
pub(super) fn parse_overrides(text: &str) -> Result<Table, String> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    match table.iter().find(|(_, value)| !value.is_table()) {
        Some((key, _)) => Err(format!("`{key}` must be a table named after a service, or `all`")),
        None => Ok(table),
    }
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
    section("telemetry", vec![("format", "text".into())]);
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
        write(&folder, &stack, &Sections::of(&[("ingest", &["telemetry", "store"])])).unwrap();
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
        assert_eq!(read(&folder, "ingest")["telemetry"]["format"].as_str(), Some("text"));
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
        assert!(overrides(&folder).unwrap().is_empty());
    }

    #[test]
    fn damaged_overrides_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        for text in ["[", "log = 1"] {
            fs::write(folder.overrides(), text).unwrap();
            assert!(overrides(&folder).unwrap_err().to_string().contains("overrides.toml"));
        }
    }
}
