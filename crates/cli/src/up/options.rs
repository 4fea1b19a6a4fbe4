//! What the caller of `warren up` may choose.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{External, WorkerKind};

/// Options of [`super::up`]. What is `None` or absent stays as it was, or has its default.
#[derive(Clone, Debug)]
pub(crate) struct UpOptions {
    /// The stack's folder; see [`super::default_data_dir`].
    pub data: PathBuf,
    /// Leave the stack running in the background.
    pub detach: bool,
    /// How many coordinators; default 1.
    pub coordinators: Option<u16>,
    /// How many workers of each kind; default 1.
    pub workers: BTreeMap<WorkerKind, u16>,
    /// Ports to use instead of free ones.
    pub ports: PortWishes,
    /// Parts that run elsewhere.
    pub external: External,
    /// A TOML file of changes to the generated settings, copied into the folder; see `overrides.toml` there.
    pub settings: Option<PathBuf>,
    /// How long everything may take to become ready. Default five minutes.
    pub timeout: Duration,
}

impl UpOptions {
    /// The defaults, with parts elsewhere as the environment names them.
    pub(crate) fn new(data: PathBuf) -> Self {
        Self {
            data,
            detach: false,
            coordinators: None,
            workers: BTreeMap::new(),
            ports: PortWishes::default(),
            external: External::from_env(),
            settings: None,
            timeout: Duration::from_secs(300),
        }
    }
}

/// Ports that were asked for; the others are free ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortWishes {
    /// The door for callers.
    pub grpc: Option<u16>,
    /// Ingest's HTTP.
    pub http: Option<u16>,
    /// RabbitMQ.
    pub amqp: Option<u16>,
    /// RabbitMQ's management page.
    pub management: Option<u16>,
    /// The S3 server.
    pub s3: Option<u16>,
}
