//! One node for all tests of a process.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{Node, RabbitSpec};
use crate::{LocalError, Scratch};

/// Names a running node to test processes, as JSON of [`RabbitSpec`]; they then start none of their own.
const SHARED: &str = "WARREN_TEST_RABBITMQ";

static NODE: Mutex<Option<(RabbitSpec, Option<Running>)>> = Mutex::new(None);
static VHOSTS: AtomicU32 = AtomicU32::new(0);

/// Kept for the life of the process; the kernel kills the node and the janitor removes the folder when it ends.
#[derive(Debug)]
struct Running {
    _node: Node,
    _folder: Scratch,
}

/// An empty vhost on the shared node.
#[derive(Clone, Debug)]
pub struct TestBroker {
    /// `amqp://…/vhost`.
    pub amqp_url: String,
    /// `http://127.0.0.1:port`, without the login.
    pub management_url: String,
    /// An administrator.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The vhost's name as URLs have it.
    pub vhost: String,
    /// The node.
    pub spec: RabbitSpec,
}

impl TestBroker {
    /// A vhost of a node.
    pub fn of(spec: &RabbitSpec, vhost: &str) -> Self {
        Self {
            amqp_url: spec.amqp_url_of(vhost),
            management_url: spec.management_url(),
            user: spec.user.clone(),
            password: spec.password.clone(),
            vhost: vhost.replace('/', "%2F"),
            spec: spec.clone(),
        }
    }

    /// Asks the management API about this vhost's part `path`, e.g. `("GET", "queues", "", None)` for
    /// `/api/queues/VHOST`; `rest` follows the vhost, e.g. `/NAME/get`.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn management(
        &self,
        method: &str,
        path: &str,
        rest: &str,
        body: Option<&str>,
    ) -> std::io::Result<crate::http::Answer> {
        self.spec.management(method, &format!("/api/{path}/{}{rest}", self.vhost), body)
    }

    /// Closes every AMQP connection of this vhost from the broker's side, as a failing network would.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn close_connections(&self) -> std::io::Result<usize> {
        let answer = self.management("GET", "vhosts", "/connections", None)?;
        let connections: Vec<serde_json::Value> = serde_json::from_str(&answer.body)?;
        for connection in &connections {
            let name = connection["name"].as_str().unwrap_or_default();
            let name = name.replace(' ', "%20").replace('>', "%3E").replace(':', "%3A");
            self.spec.management("DELETE", &format!("/api/connections/{name}"), None)?;
        }
        Ok(connections.len())
    }
}

/// A fresh vhost on this process's node, which the first call starts (5 to 10 s). Blocks; call it from any thread.
///
/// # Panics
/// When RabbitMQ cannot be started, saying how to get it.
pub fn for_tests() -> TestBroker {
    fresh_vhost().unwrap_or_else(|error| panic!("this test needs RabbitMQ: {error}"))
}

fn fresh_vhost() -> Result<TestBroker, LocalError> {
    let spec = shared_node()?;
    let number = VHOSTS.fetch_add(1, Ordering::Relaxed);
    let vhost = format!("test-{}-{number}", std::process::id());
    for (path, body) in [
        (format!("/api/vhosts/{vhost}"), "{}"),
        (format!("/api/permissions/{vhost}/{}", spec.user), r#"{"configure":".*","write":".*","read":".*"}"#),
    ] {
        let answer = spec.management("PUT", &path, Some(body)).map_err(LocalError::io(format!("PUT {path}")))?;
        if !matches!(answer.status, 201 | 204) {
            let why = format!("PUT {path} answered {}: {}", answer.status, answer.body);
            return Err(LocalError::NotReady { part: "rabbitmq", why });
        }
    }
    Ok(TestBroker::of(&spec, &vhost))
}

fn shared_node() -> Result<RabbitSpec, LocalError> {
    let mut shared = NODE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((spec, _)) = shared.as_ref() {
        return Ok(spec.clone());
    }
    let (spec, running) = match std::env::var(SHARED) {
        Ok(json) => {
            let spec = serde_json::from_str(&json).map_err(|error| LocalError::NotReady {
                part: "rabbitmq",
                why: format!("{SHARED} is not the JSON of a node: {error}"),
            })?;
            (spec, None)
        }
        Err(_) => start_node().map(|(spec, running)| (spec, Some(running)))?,
    };
    *shared = Some((spec.clone(), running));
    Ok(spec)
}

fn start_node() -> Result<(RabbitSpec, Running), LocalError> {
    let folder = Scratch::new("rabbitmq").map_err(LocalError::io("make a temporary folder"))?;
    let spec = RabbitSpec::generate().map_err(LocalError::io("find free ports"))?;
    let mut node = Node::start(folder.path(), &spec)?;
    node.wait_ready(Duration::from_secs(120))?;
    Ok((spec, Running { _node: node, _folder: folder }))
}
