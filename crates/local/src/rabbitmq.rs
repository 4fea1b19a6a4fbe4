//! A RabbitMQ node of one's own, from the distribution's package, without its system service.
//!
//! The server's start script is told to run the Erlang machine in place (`RUNNING_UNDER_SYSTEMD`), so the process
//! that was started is the broker itself and ends with its parent. The port mapper that Erlang would leave behind is
//! started beforehand, as a child too.

mod files;
mod shared;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub use files::server_script;
use serde::{Deserialize, Serialize};
pub use shared::{TestBroker, for_tests};
use warren_child::{Child, Limits};

use crate::{LocalError, error::tail, http, ports, random_hex};

/// Environment variable that names the start script of another RabbitMQ than the system's, e.g.
/// `/opt/rabbitmq/sbin/rabbitmq-server`. Its other programs are beside it.
pub const SERVER: &str = "WARREN_RABBITMQ_SERVER";
/// The package to install when the server is missing.
const PACKAGE: &str = "rabbitmq-server";

/// Where and for whom a node listens. Keep it with the node's folder: the login is made at the first start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RabbitSpec {
    /// AMQP 0-9-1.
    pub amqp_port: u16,
    /// Management pages and API.
    pub management_port: u16,
    /// `/metrics`.
    pub prometheus_port: u16,
    /// Erlang distribution.
    pub dist_port: u16,
    /// Erlang's port mapper.
    pub epmd_port: u16,
    /// The only user, an administrator of vhost `/`.
    pub user: String,
    /// Its password: letters and digits.
    pub password: String,
    /// Further arguments of the Erlang machine, e.g. how many schedulers.
    pub erl_args: String,
}

impl RabbitSpec {
    /// Free ports, a random password and one scheduler that does not spin while idle.
    ///
    /// # Errors
    /// When no ports are free.
    pub fn generate() -> io::Result<Self> {
        let free = ports::free(5)?;
        Ok(Self {
            amqp_port: free[0],
            management_port: free[1],
            prometheus_port: free[2],
            dist_port: free[3],
            epmd_port: free[4],
            user: "warren".to_owned(),
            password: random_hex(12),
            erl_args: "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none".to_owned(),
        })
    }

    /// `amqp://user:password@127.0.0.1:port/%2f`, the vhost `/`.
    pub fn amqp_url(&self) -> String {
        self.amqp_url_of("/")
    }

    /// The URL of another vhost.
    pub fn amqp_url_of(&self, vhost: &str) -> String {
        let Self { user, password, amqp_port, .. } = self;
        format!("amqp://{user}:{password}@127.0.0.1:{amqp_port}/{}", vhost.replace('/', "%2f"))
    }

    /// `http://127.0.0.1:port`, without the login.
    pub fn management_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.management_port)
    }

    /// Asks the management API; `path` starts with `/api/`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn management(&self, method: &str, path: &str, body: Option<&str>) -> io::Result<http::Answer> {
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, self.management_port));
        http::request(server, method, path, Some((&self.user, &self.password)), body, Duration::from_secs(10))
    }

    /// True once the broker accepts AMQP connections.
    pub fn is_ready(&self) -> bool {
        let path = format!("/api/health/checks/port-listener/{}", self.amqp_port);
        self.management("GET", &path, None).is_ok_and(|answer| answer.status == 200)
    }
}

/// How to start a node: first the port mapper, then the server. Both stay in the foreground.
#[derive(Debug)]
pub struct Commands {
    /// Erlang's port mapper.
    pub epmd: Command,
    /// The broker. SIGTERM stops it cleanly.
    pub server: Command,
}

/// Writes the node's configuration into `dir` (made if it is not there) and says how to start it.
///
/// # Errors
/// [`LocalError::Missing`] when RabbitMQ is not installed.
pub fn prepare(dir: &Path, spec: &RabbitSpec) -> Result<Commands, LocalError> {
    let server = files::server_script()?;
    let epmd = files::epmd()?;
    files::write(dir, spec)?;
    let mut epmd = Command::new(epmd);
    epmd.arg("-port").arg(spec.epmd_port.to_string());
    let mut server = Command::new(server);
    for command in [&mut epmd, &mut server] {
        command.current_dir(dir).stdin(Stdio::null());
        files::environment(command, dir, spec);
    }
    Ok(Commands { epmd, server })
}

/// Asks the broker with the process id `pid`, one of this user's, by its own `rabbitmqctl`. Returns what it printed.
///
/// # Errors
/// When there is no such process, or what `rabbitmqctl` says is wrong.
pub fn control(pid: u32, arguments: &[&str]) -> Result<String, LocalError> {
    let environment = format!("/proc/{pid}/environ");
    let environment = std::fs::read(&environment).map_err(LocalError::io(format!("read {environment}")))?;
    let variables = environment.split(|byte| *byte == 0).filter_map(|variable| {
        let text = std::str::from_utf8(variable).ok()?;
        text.split_once('=')
    });
    let mut command = Command::new(files::server_script()?.with_file_name("rabbitmqctl"));
    command.env_clear().envs(variables).args(["--quiet", "--timeout", "60"]).args(arguments).stdin(Stdio::null());
    let output = command.output().map_err(LocalError::io("run rabbitmqctl"))?;
    if !output.status.success() {
        let why = format!("rabbitmqctl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        return Err(LocalError::NotReady { part: "rabbitmq", why });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A running node and its port mapper; dropping it kills both.
#[derive(Debug)]
pub struct Node {
    /// Declared first: the broker must go before its port mapper.
    server: Child,
    epmd: Child,
    spec: RabbitSpec,
    log: PathBuf,
}

impl Node {
    /// Starts a node whose files are in `dir`; a folder used before resumes with its queues.
    ///
    /// # Errors
    /// [`LocalError::Missing`] when RabbitMQ is not installed.
    pub fn start(dir: &Path, spec: &RabbitSpec) -> Result<Self, LocalError> {
        let Commands { mut epmd, mut server } = prepare(dir, spec)?;
        let log = dir.join("rabbitmq.log");
        let output = std::fs::File::create(&log).map_err(LocalError::io(format!("write {}", log.display())))?;
        for command in [&mut epmd, &mut server] {
            let copy = || output.try_clone().map_err(LocalError::io("share the log of RabbitMQ"));
            command.stdout(copy()?).stderr(copy()?);
        }
        let epmd = warren_child::spawn(epmd, Limits::NONE).map_err(LocalError::io("start epmd"))?;
        let server = warren_child::spawn(server, Limits::NONE).map_err(LocalError::io("start rabbitmq-server"))?;
        Ok(Self { server, epmd, spec: spec.clone(), log })
    }

    /// Ports and login.
    pub fn spec(&self) -> &RabbitSpec {
        &self.spec
    }

    /// The broker's process id (the Erlang machine itself).
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// Has the process that leads a quorum queue of vhost `/` stand still: it takes messages and confirms none.
    ///
    /// # Errors
    /// As [`control`].
    pub fn suspend_queue(&self, queue: &str) -> Result<(), LocalError> {
        self.queue_leader("suspend", queue)
    }

    /// Ends [`Node::suspend_queue`].
    ///
    /// # Errors
    /// As [`control`].
    pub fn resume_queue(&self, queue: &str) -> Result<(), LocalError> {
        self.queue_leader("resume", queue)
    }

    fn queue_leader(&self, what: &str, queue: &str) -> Result<(), LocalError> {
        control(self.pid(), &["eval", &format!("sys:{what}(whereis('%2F_{queue}')).")]).map(drop)
    }

    /// Waits until the broker accepts connections: 5 to 10 s on two cores.
    ///
    /// # Errors
    /// [`LocalError::NotReady`] with the end of its log, when it ended or `timeout` has passed.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<(), LocalError> {
        let start = Instant::now();
        while !self.spec.is_ready() {
            let ended = self.server.try_wait().map_err(LocalError::io("wait for rabbitmq-server"))?;
            let why = match ended {
                Some(status) => format!("it ended with {status}"),
                None if start.elapsed() >= timeout => format!("no answer within {} s", timeout.as_secs()),
                None => {
                    thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            let why = format!("{why}; the end of {}:\n{}", self.log.display(), tail(&self.log, 20));
            return Err(LocalError::NotReady { part: "rabbitmq", why });
        }
        Ok(())
    }

    /// Stops the broker cleanly, killing it after 30 s, then its port mapper. Takes about 6 s.
    ///
    /// # Errors
    /// When the kernel will not say how they ended.
    pub fn stop(mut self) -> Result<(), LocalError> {
        self.server.terminate(Duration::from_secs(30)).map_err(LocalError::io("stop rabbitmq-server"))?;
        self.epmd.terminate(Duration::from_secs(2)).map_err(LocalError::io("stop epmd"))?;
        Ok(())
    }

    /// Kills the broker and its port mapper as a power cut would.
    pub fn kill(self) {
        drop(self);
    }
}

#[cfg(test)]
mod tests;
