//! The processes of a stack and how each is started.

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use warren_local::rabbitmq;

use super::{
    UpError,
    binaries::{self, Sections},
    folder::Folder,
    probe::Probe,
    settings::{self, Overrides},
    stack::{COORDINATOR, INGEST, Stack},
};

/// When a part is stopped: workers first, what they depend on last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Workers,
    Ingest,
    Coordinators,
    S3,
    RabbitMq,
    PortMapper,
}

impl Phase {
    pub(super) const STOP_ORDER: [Self; 6] =
        [Self::Workers, Self::Ingest, Self::Coordinators, Self::S3, Self::RabbitMq, Self::PortMapper];
}

/// Makes the command anew for every start.
type Recipe = Arc<dyn Fn() -> Result<Command, UpError> + Send + Sync>;

/// One process to keep running.
#[derive(Clone)]
pub(super) struct Part {
    pub name: String,
    pub phase: Phase,
    /// How long it may take to stop before it is killed.
    pub grace: Duration,
    pub log: PathBuf,
    /// `None`: not listed, a part of another one.
    pub probe: Option<Probe>,
    pub command: Recipe,
}

/// Longer than the services' own drain of 30 s, so that they end by themselves.
const SERVICE_GRACE: Duration = Duration::from_secs(35);

/// All parts of a stack, in the order in which they are listed.
pub(super) fn all(folder: &Folder, stack: &Stack, sections: &Sections) -> Vec<Part> {
    let mut parts = Vec::new();
    if stack.external.broker.is_none() {
        parts.extend(rabbitmq(folder, stack));
    }
    if stack.external.blob.is_none() {
        parts.push(s3(folder, stack));
    }
    parts.extend(services(folder, stack, sections));
    parts
}

fn rabbitmq(folder: &Folder, stack: &Stack) -> [Part; 2] {
    let (dir, spec) = (folder.rabbitmq(), stack.rabbitmq.clone());
    let recipe = |pick: fn(rabbitmq::Commands) -> Command| -> Recipe {
        let (dir, spec) = (dir.clone(), spec.clone());
        Arc::new(move || Ok(pick(rabbitmq::prepare(&dir, &spec)?)))
    };
    [
        Part {
            name: "epmd".to_owned(),
            phase: Phase::PortMapper,
            grace: Duration::from_secs(2),
            log: folder.log("rabbitmq"),
            probe: None,
            command: recipe(|commands| commands.epmd),
        },
        Part {
            name: "rabbitmq".to_owned(),
            phase: Phase::RabbitMq,
            grace: Duration::from_secs(30),
            log: folder.log("rabbitmq"),
            probe: Some(Probe::RabbitMq(stack.rabbitmq.clone())),
            command: recipe(|commands| commands.server),
        },
    ]
}

fn s3(folder: &Folder, stack: &Stack) -> Part {
    let settings = folder.settings("s3");
    Part {
        name: "s3".to_owned(),
        phase: Phase::S3,
        grace: Duration::from_secs(12),
        log: folder.log("s3"),
        probe: Some(Probe::Open(stack.port("s3"))),
        command: Arc::new(move || {
            let mut command = Command::new(binaries::warren()?);
            command.arg("s3").arg("--config").arg(&settings);
            Ok(command)
        }),
    }
}

fn services(folder: &Folder, stack: &Stack, sections: &Sections) -> Vec<Part> {
    let part = |instance: super::stack::Instance| {
        let phase = match instance.service {
            INGEST => Phase::Ingest,
            COORDINATOR => Phase::Coordinators,
            _ => Phase::Workers,
        };
        let (settings, sections, root) = (folder.settings(&instance.name), sections.clone(), folder.root().to_owned());
        let service = instance.service;
        Part {
            phase,
            grace: SERVICE_GRACE,
            log: folder.log(&instance.name),
            probe: Some(Probe::Health(stack.port(&format!("{}.http", instance.name)))),
            name: instance.name,
            command: Arc::new(move || {
                let mut command = binaries::run_service(service, &settings, &sections)?;
                command.current_dir(&root);
                Ok(command)
            }),
        }
    };
    stack.instances().into_iter().map(part).collect()
}

/// Writes all settings files of the stack.
pub(super) fn write_settings(folder: &Folder, stack: &Stack, sections: &Sections) -> Result<(), UpError> {
    if stack.external.blob.is_none() {
        super::s3::write_settings(folder, stack)?;
    }
    settings::write(folder, stack, sections, &Overrides::of(folder)?)
}
