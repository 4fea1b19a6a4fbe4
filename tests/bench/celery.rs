//! The other side: Celery, with as much care for what it was given.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use warren_local::{
    postgres::{Cluster, Durability},
    rabbitmq::{Node, RabbitSpec},
};
use warren_tests::command::run;

use crate::figures::BySecond;

/// How many messages each process takes in advance; the best counts.
pub(crate) const PREFETCHES: [u32; 3] = [1, 4, 64];

/// A broker and a database of its own, with the settings that Warren's have.
pub(crate) struct Celery {
    packages: PathBuf,
    url: String,
    broker: Node,
    _database: Cluster,
    _folder: TempDir,
}

/// Worker processes; ended when dropped.
struct Workers(warren_child::Child);

impl Drop for Workers {
    fn drop(&mut self) {
        let _ = self.0.terminate(Duration::from_secs(10));
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/celery")
}

impl Celery {
    /// Fetches the packages unless they are here, and starts the parts.
    pub(crate) fn start() -> Self {
        let packages = packages();
        let database =
            Cluster::start(Durability::Safe).unwrap_or_else(|error| panic!("this needs PostgreSQL: {error}"));
        let url = database.create_database().expect("the cluster is new");
        let folder = tempfile::Builder::new().prefix("warren bench ").tempdir().expect("a temporary folder");
        let spec = RabbitSpec::generate().expect("free ports");
        let mut broker =
            Node::start(folder.path(), &spec).unwrap_or_else(|error| panic!("this needs RabbitMQ: {error}"));
        broker.wait_ready(Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error}"));
        Self { packages, url, broker, _database: database, _folder: folder }
    }

    /// Tasks that ended in each of the last `seconds` seconds, after `warm_up` seconds of the same load.
    pub(crate) fn throughput(&self, prefetch: u32, warm_up: u64, seconds: u64) -> Vec<u64> {
        let _workers = self.workers(prefetch);
        let limit = Duration::from_secs(warm_up + seconds + 600);
        let answer = self.load(&["throughput", &(warm_up + seconds + 1).to_string()], limit);
        assert_eq!(answer["sent"], answer["done"], "Celery lost tasks: {answer}");
        let pair = |pair: &Value| Some((pair[0].as_i64()?, pair[1].as_u64()?));
        let ended: BTreeMap<_, _> = answer["by_second"].as_array().into_iter().flatten().filter_map(pair).collect();
        let end = answer["ended"].as_f64().unwrap_or_default() as i64;
        BySecond(ended).within(end - seconds as i64, end)
    }

    /// Milliseconds from sending a task to having its result, for `count` tasks one after another.
    pub(crate) fn latency(&self, count: usize) -> Vec<f64> {
        let _workers = self.workers(1);
        let answer = self.load(&["latency", &count.to_string()], Duration::from_secs(600));
        answer["milliseconds"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    }

    fn python(&self) -> Command {
        let mut command = Command::new("python3");
        command.current_dir(scripts()).env("PYTHONPATH", &self.packages).env("PYTHONDONTWRITEBYTECODE", "1");
        // Celery leaves the time zone to the session.
        command.env("PGTZ", "UTC").env("BENCH_BROKER", self.broker.spec().amqp_url());
        command.env("BENCH_DATABASE", self.url.replace("postgres://", "postgresql+psycopg://"));
        command
    }

    fn workers(&self, prefetch: u32) -> Workers {
        let mut command = self.python();
        command.args(["-m", "celery", "-A", "app", "worker", "--loglevel", "WARNING", "--pool", "prefork"]);
        command.args(["--without-gossip", "--without-mingle", "--without-heartbeat"]);
        command.env("BENCH_PREFETCH", prefetch.to_string()).env("C_FORCE_ROOT", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Workers(warren_child::spawn(command, warren_child::Limits::NONE).expect("python3 was found before"))
    }

    fn load(&self, arguments: &[&str], limit: Duration) -> Value {
        let mut command = self.python();
        command.arg("load.py").args(arguments);
        run(command, limit).ok().json()
    }

    /// What it is made of.
    pub(crate) fn versions() -> String {
        let requirements = fs::read_to_string(scripts().join("requirements.txt")).unwrap_or_default();
        requirements.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

/// The folder of packages, in the user's cache.
fn packages() -> PathBuf {
    let requirements = scripts().join("requirements.txt");
    let versions =
        fs::read_to_string(&requirements).unwrap_or_else(|error| panic!("{}: {error}", requirements.display()));
    let name: String = versions.chars().filter(|c| c.is_ascii_digit()).collect();
    let absolute = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let folder = cache.unwrap_or_else(std::env::temp_dir).join(format!("warren/tools/celery-{name}"));
    if folder.exists() {
        return folder;
    }
    eprintln!("fetching Celery: 15 MB, into {}", folder.display());
    // Only a complete set gets the final name.
    let aside = folder.with_extension(format!("part-{}", std::process::id()));
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--root-user-action=ignore"]);
    command.arg("--target").arg(&aside).arg("-r").arg(&requirements);
    run(command, Duration::from_secs(600)).ok();
    fs::rename(&aside, &folder).unwrap_or_else(|error| panic!("rename {}: {error}", aside.display()));
    folder
}
