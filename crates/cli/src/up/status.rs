//! What other commands ask about a stack: `ps` and `endpoints`.

use std::{
    path::{Path, PathBuf},
    thread,
};

use serde::Serialize;

use super::{
    UpError,
    binaries::Sections,
    board::{self, Entry},
    folder::Folder,
    parts,
    probe::Probe,
    settings,
    stack::{INGEST, Stack},
};

/// One line of `warren ps`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ServiceStatus {
    /// E.g. `rabbitmq`, `transcription-2`.
    pub service: String,
    /// `None` while it is down.
    pub pid: Option<u32>,
    /// What it does at the moment.
    pub state: State,
    /// Starts after the first, since the stack was started.
    pub restarts: u32,
    /// How it ended last, when it ended by itself.
    pub last_end: Option<String>,
    /// Address of `/health` and `/metrics`; `None` for parts that are no services of Warren.
    pub http: Option<String>,
}

/// What a service does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It runs and is not ready yet, or not ready any more.
    Starting,
    /// It runs and can be used.
    Ready,
    /// It ended and is started again after a delay.
    Restarting,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Restarting => "restarting",
        })
    }
}

/// Where to reach one part, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Endpoint {
    /// Its address.
    pub url: String,
    /// `None`: no login is needed, or it is in the address.
    pub user: Option<String>,
    /// As `user`.
    pub password: Option<String>,
}

/// Where to reach the parts of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Endpoints {
    /// The door for callers.
    pub grpc: Endpoint,
    /// Health and metrics of ingest.
    pub http: Endpoint,
    /// RabbitMQ; the address includes the login.
    pub amqp: Endpoint,
    /// RabbitMQ's management page and API.
    pub management: Endpoint,
    /// Object storage; user and password are the access key and its secret.
    pub s3: Endpoint,
    /// The SQLite file or the PostgreSQL address.
    pub database: Endpoint,
}

/// The services of the stack in `data` that its supervisor keeps; empty when the stack is not running. Blocks for as
/// long as the services take to answer (at most 5 s).
///
/// # Errors
/// [`UpError::NoStack`] when nothing was ever started in `data`.
pub(crate) fn ps(data: &Path) -> Result<Vec<ServiceStatus>, UpError> {
    let folder = Folder::open(data)?;
    let stack = load(&folder)?;
    if folder.live_supervisor().is_none() {
        return Ok(Vec::new());
    }
    let entries = board::read(&folder.services());
    let parts = parts::all(&folder, &stack, &Sections::default());
    let listed: Vec<(Entry, Option<Probe>)> = parts
        .into_iter()
        .filter_map(|part| Some((entries.iter().find(|entry| entry.service == part.name)?.clone(), part.probe)))
        .filter(|(entry, _)| !entry.hidden)
        .collect();
    Ok(thread::scope(|scope| {
        let asked: Vec<_> =
            listed.iter().map(|(entry, probe)| scope.spawn(move || status(entry, probe.as_ref()))).collect();
        asked.into_iter().filter_map(|asked| asked.join().ok()).collect()
    }))
}

fn status(entry: &Entry, probe: Option<&Probe>) -> ServiceStatus {
    let process = entry.process.filter(|process| process.alive());
    let state = match (process, probe) {
        (None, _) => State::Restarting,
        (Some(_), Some(probe)) if probe.check().is_err() => State::Starting,
        (Some(_), _) => State::Ready,
    };
    ServiceStatus {
        service: entry.service.clone(),
        pid: process.map(|process| process.pid),
        state,
        restarts: entry.restarts,
        last_end: entry.last_end.clone(),
        http: match probe {
            Some(Probe::Health(port)) => Some(http_url(*port)),
            _ => None,
        },
    }
}

/// Addresses and logins of the stack in `data`, running or not: they stay the same.
///
/// # Errors
/// [`UpError::NoStack`] when nothing was ever started in `data`.
pub(crate) fn endpoints(data: &Path) -> Result<Endpoints, UpError> {
    let folder = Folder::open(data)?;
    Ok(of_stack(&folder, &load(&folder)?))
}

fn http_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// The settings that a service of the stack in `data` was started with last; `None` when there is no such stack.
pub(crate) fn settings_file(data: &Path, service: &str) -> Option<PathBuf> {
    Some(Folder::of_stack(data).ok()?.settings(service)).filter(|file| file.exists())
}

fn load(folder: &Folder) -> Result<Stack, UpError> {
    Stack::load(folder)?.ok_or_else(|| UpError::NoStack(folder.root().to_owned()))
}

pub(super) fn of_stack(folder: &Folder, stack: &Stack) -> Endpoints {
    let open = |url: String| Endpoint { url, user: None, password: None };
    let login = |url: String, user: &str, password: &str| Endpoint {
        url,
        user: Some(user.to_owned()),
        password: Some(password.to_owned()),
    };
    let (amqp, management) = match &stack.external.broker {
        Some(broker) => (open(broker.url.clone()), open(broker.management_url.clone())),
        None => {
            let spec = &stack.rabbitmq;
            let (user, password) = (&spec.user, &spec.password);
            (login(spec.amqp_url(), user, password), login(spec.management_url(), user, password))
        }
    };
    let s3 = match &stack.external.blob {
        Some(blob) => login(blob.endpoint.clone(), &blob.access_key, &blob.secret_key),
        None => login(settings::s3_endpoint(stack), &stack.s3.access_key, &stack.s3.secret_key),
    };
    Endpoints {
        grpc: open(settings::grpc_url(stack)),
        http: open(http_url(stack.port(&format!("{INGEST}.http")))),
        amqp,
        management,
        s3,
        database: open(settings::store_url(folder, stack)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::options::PortWishes;

    #[test]
    fn endpoints_have_the_contracts_shape() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        let mut stack = Stack::generate().unwrap();
        stack.choose_ports(&PortWishes::default(), false).unwrap();
        stack.save(&folder).unwrap();
        let json = serde_json::to_value(endpoints(dir.path()).unwrap()).unwrap();
        for part in ["grpc", "http", "amqp", "management", "s3", "database"] {
            let keys: Vec<_> = json[part].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["password", "url", "user"], "{part}");
        }
        assert!(json["amqp"]["url"].as_str().unwrap().ends_with("/%2f"));
    }

    #[test]
    fn a_stopped_stack_has_no_processes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        assert!(matches!(ps(dir.path()), Err(UpError::NoStack(_))));
        Stack::generate().unwrap().save(&folder).unwrap();
        assert_eq!(ps(dir.path()).unwrap(), []);
    }

    #[test]
    fn states_read_as_words() {
        let status = ServiceStatus {
            service: "s3".to_owned(),
            pid: Some(7),
            state: State::Ready,
            restarts: 0,
            last_end: None,
            http: None,
        };
        let json = serde_json::to_value(&status).unwrap();
        let expected = serde_json::json!({
            "service": "s3", "pid": 7, "state": "ready", "restarts": 0, "last_end": null, "http": null,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn services_have_an_address_for_health_and_metrics() {
        let entry = |service: &str| Entry {
            service: service.to_owned(),
            process: None,
            restarts: 0,
            last_end: None,
            last_code: None,
            hidden: false,
        };
        let worker = status(&entry("transcription-2"), Some(&Probe::Health(8123)));
        assert_eq!(worker.http.as_deref(), Some("http://127.0.0.1:8123"));
        assert_eq!(status(&entry("s3"), Some(&Probe::Open(9000))).http, None);
    }
}
