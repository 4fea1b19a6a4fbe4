//! A PostgreSQL cluster of one's own, for tests, from the distribution's package without its system service.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, geteuid},
};
use warren_child::{Child, Limits};

use crate::{LocalError, Scratch, error::tail, ports, process::Identity};

const PACKAGE: &str = "postgresql";
/// Its name inside the cluster; connections from loopback need no password.
const USER: &str = "warren";

/// How careful a cluster is with what it has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `fsync = off`: fast, for tests whose machine does not crash.
    Fast,
    /// `fsync = on`.
    Safe,
}

/// A running cluster in a temporary folder; dropping it stops it and removes the folder.
#[derive(Debug)]
pub struct Cluster {
    server: Child,
    home: Home,
    port: u16,
    durability: Durability,
    databases: AtomicU32,
    /// Declared last: removed after the server is gone.
    _folder: Scratch,
}

/// Where a cluster's files are and who runs its programs.
#[derive(Debug)]
struct Home {
    bin: PathBuf,
    folder: PathBuf,
    owner: Option<User>,
}

impl Home {
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn command(&self, program: &str) -> Result<Command, LocalError> {
        let log = self.log();
        let output = fs::OpenOptions::new().append(true).create(true).open(&log);
        let output = output.map_err(LocalError::io(format!("write {}", log.display())))?;
        let copy = output.try_clone().map_err(LocalError::io("share PostgreSQL's log"))?;
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(&self.folder).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command.stdout(output).stderr(copy);
        if let Some(user) = &self.owner {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        Ok(command)
    }

    fn serve(&self, port: u16, durability: Durability) -> Result<Child, LocalError> {
        let mut server = self.command("postgres")?;
        server.arg("-D").arg(self.data()).args(["-p", &port.to_string()]);
        let fsync = if durability == Durability::Safe { "fsync=on" } else { "fsync=off" };
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "shared_buffers=32MB",
            "max_connections=200",
            fsync,
        ] {
            server.args(["-c", setting]);
        }
        warren_child::spawn(server, Limits::NONE).map_err(LocalError::io("start postgres"))
    }
}

impl Cluster {
    /// Makes a new cluster and waits until it accepts connections: 1 to 6 s. As root it runs as `nobody`, because
    /// PostgreSQL refuses to run as root.
    ///
    /// # Errors
    /// [`LocalError::Missing`] when PostgreSQL is not installed.
    pub fn start(durability: Durability) -> Result<Self, LocalError> {
        let bin = installed()?;
        let folder = Scratch::new("postgres").map_err(LocalError::io("make a temporary folder"))?;
        let owner = unprivileged()?;
        if let Some(user) = &owner {
            chown(folder.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(LocalError::io(format!(
                "give {} to {}",
                folder.path().display(),
                user.name
            )))?;
        }
        let home = Home { bin, folder: folder.path().to_owned(), owner };
        let mut initdb = home.command("initdb")?;
        initdb.arg("-D").arg(home.data());
        initdb.args(["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        run(initdb, "initdb", &home.log())?;

        let port = ports::free(1).map_err(LocalError::io("find a free port"))?[0];
        let server = home.serve(port, durability)?;
        let mut cluster = Self { server, home, port, durability, databases: AtomicU32::new(0), _folder: folder };
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// Kills the server and all its processes at once, as a crash of the machine would, and starts it again; waits until
    /// it has recovered and accepts connections.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn crash(&mut self) -> Result<(), LocalError> {
        // Each of its processes leads a group of its own, and a new server waits for the last of them.
        let processes = Identity::children_of(self.server.id());
        self.server.kill().map_err(LocalError::io("kill postgres"))?;
        processes.into_iter().for_each(Identity::kill);
        self.server = self.home.serve(self.port, self.durability)?;
        self.wait_ready()
    }

    /// Makes an empty database and returns its URL, `postgres://warren@127.0.0.1:port/name`.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn create_database(&self) -> Result<String, LocalError> {
        let name = format!("test_{}_{}", std::process::id(), self.databases.fetch_add(1, Ordering::Relaxed));
        let output = Command::new(self.home.bin.join("createdb"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, &name])
            .env_remove("PGPASSWORD")
            .stdin(Stdio::null())
            .output()
            .map_err(LocalError::io("run createdb"))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(LocalError::NotReady { part: "postgresql", why });
        }
        Ok(format!("postgres://{USER}@127.0.0.1:{}/{name}", self.port))
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    fn wait_ready(&mut self) -> Result<(), LocalError> {
        let start = Instant::now();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        loop {
            // The port opens before recovery is over, so ask the server, but only once it listens.
            if TcpStream::connect(address).is_ok() && self.accepts() {
                return Ok(());
            }
            let ended = self.server.try_wait().map_err(LocalError::io("wait for postgres"))?;
            let why = match ended {
                Some(status) => format!("it ended with {status}"),
                None if start.elapsed() > Duration::from_secs(60) => "no answer within 60 s".to_owned(),
                None => {
                    thread::sleep(Duration::from_millis(20));
                    continue;
                }
            };
            return Err(LocalError::NotReady {
                part: "postgresql",
                why: format!("{why}; its log:\n{}", tail(&self.home.log(), 20)),
            });
        }
    }

    fn accepts(&self) -> bool {
        Command::new(self.home.bin.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's "fast" shutdown: it ends sessions instead of waiting for them.
        let _ = kill(Pid::from_raw(self.server.id().cast_signed()), Signal::SIGINT);
        let _ = self.server.wait_for(Duration::from_secs(10));
    }
}

fn run(command: Command, name: &str, log: &Path) -> Result<(), LocalError> {
    let status = warren_child::spawn(command, Limits::NONE)
        .and_then(|mut child| child.wait())
        .map_err(LocalError::io(format!("run {name}")))?;
    if status.success() {
        return Ok(());
    }
    Err(LocalError::NotReady { part: "postgresql", why: format!("{name} ended with {status}:\n{}", tail(log, 20)) })
}

/// The folder of the programs, of the newest version: Debian keeps them off the path.
///
/// # Errors
/// [`LocalError::Missing`].
pub fn installed() -> Result<PathBuf, LocalError> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists() && bin.join("postgres").exists())
        .max();
    newest.map(|(_, bin)| bin).ok_or(LocalError::Missing { program: PACKAGE, package: PACKAGE })
}

/// Whom to run as instead of root; `None` for an ordinary user.
fn unprivileged() -> Result<Option<User>, LocalError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("nobody").map_err(|error| LocalError::io("look up user nobody")(error.into()))?;
    user.map(Some).ok_or_else(|| LocalError::NotReady {
        part: "postgresql",
        why: "it refuses to run as root and there is no user nobody; run the tests as an ordinary user".to_owned(),
    })
}

static SHARED: Mutex<Option<Cluster>> = Mutex::new(None);

/// The URL of an empty database on this process's cluster, which the first call starts. Blocks; call it from any
/// thread. The cluster ends with the process.
///
/// # Panics
/// When PostgreSQL cannot be started, saying how to get it.
pub fn for_tests() -> String {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let url = match shared.as_ref() {
        Some(cluster) => cluster.create_database(),
        None => Cluster::start(Durability::Fast).and_then(|cluster| shared.insert(cluster).create_database()),
    };
    url.unwrap_or_else(|error| panic!("this test needs PostgreSQL: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_separate_and_the_server_stops_with_its_handle() {
        let cluster = Cluster::start(Durability::Safe).unwrap();
        let (one, two) = (cluster.create_database().unwrap(), cluster.create_database().unwrap());
        assert_ne!(one, two);
        let server = Identity::of(cluster.pid()).unwrap();
        let answer = Command::new(cluster.home.bin.join("psql")).args([&one, "-Atc", "SHOW fsync"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "on");
        let folder = cluster.home.folder.clone();
        drop(cluster);
        assert!(!server.alive());
        assert!(!folder.exists());
    }

    #[test]
    fn what_was_committed_outlives_a_crash() {
        let mut cluster = Cluster::start(Durability::Safe).unwrap();
        let (url, server) = (cluster.create_database().unwrap(), Identity::of(cluster.pid()).unwrap());
        let psql =
            |sql: &str| Command::new(installed().unwrap().join("psql")).args([&url, "-Atc", sql]).output().unwrap();
        assert!(psql("CREATE TABLE kept (number INT); INSERT INTO kept VALUES (7)").status.success());
        cluster.crash().unwrap();
        assert!(!server.alive());
        assert_eq!(String::from_utf8_lossy(&psql("SELECT number FROM kept").stdout).trim(), "7");
    }

    #[test]
    fn tests_share_a_cluster() {
        let (one, two) = (for_tests(), for_tests());
        assert_eq!(one.rsplit_once('/').unwrap().0, two.rsplit_once('/').unwrap().0);
        assert_ne!(one, two);
    }
}
