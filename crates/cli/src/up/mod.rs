//! `warren up` and its neighbours: a whole Warren on this machine, on loopback, in one folder.
//!
//! One supervisor process keeps a private RabbitMQ, a private S3 server and the services running. The other commands
//! find it through files in the folder: `stack.json` (ports, logins, counts), `run/` (who runs), `logs/`.

mod binaries;
mod board;
mod change;
mod error;
mod external;
mod folder;
mod keeper;
mod logs;
mod options;
mod parts;
mod probe;
mod ready;
mod record;
mod reset;
mod s3;
mod settings;
mod stack;
mod start;
mod status;
mod stop;
mod story;
mod supervisor;
mod workers;

pub(crate) use change::{Scalable, restart, scale};
pub(crate) use error::UpError;
pub(crate) use external::External;
pub(crate) use folder::{default_data_dir, free_bytes};
pub(crate) use logs::{follow_logs, logs, plain};
pub(crate) use options::{PortWishes, UpOptions};
pub(crate) use record::record;
pub(crate) use reset::{holding, reset};
pub(crate) use s3::serve_s3;
pub(crate) use settings::check_overrides;
pub(crate) use start::up;
pub(crate) use status::{Endpoints, State, endpoints, ps, settings_file};
pub(crate) use stop::{Stopped, down, kill};
pub(crate) use story::{Story, story};
pub(crate) use supervisor::supervise;
pub(crate) use workers::{WorkerKind, parse_workers};
