//! A stack under attack: PostgreSQL that keeps what it confirmed, a private broker and S3, two coordinators, and workers
//! with models that weigh nothing.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    path::PathBuf,
    sync::OnceLock,
    time::Duration,
};

use nix::sys::signal::Signal;
use rand::{SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;
use warren_local::rabbitmq;

use super::{grounds::Grounds, points::Points, proxy::Proxy};
use crate::{
    nightly,
    stack::{Service, Wishes},
    wait::until,
};

/// Seconds between the broker's heartbeats, in these stacks.
pub const HEARTBEAT_S: u64 = 4;

/// Workers in the shorter runs.
const TEXTS_ALONE: &str = "transcription=0,batch-embedding=2";

/// All of it. Stopped when dropped.
#[derive(Debug)]
pub struct World {
    grounds: Grounds,
    /// Orders to end at certain points.
    pub points: Points,
    /// What chance begins with.
    pub seed: u64,
    /// One JSON line for each pass of a model.
    passes: PathBuf,
    links: OnceLock<Links>,
    _folder: TempDir,
}

/// A proxy on each line between the services and what they need.
#[derive(Debug)]
pub struct Links {
    /// To RabbitMQ.
    pub amqp: Proxy,
    /// To PostgreSQL.
    pub database: Proxy,
    /// To S3.
    pub storage: Proxy,
    /// From workers to the coordinators.
    pub coordinators: [Proxy; 2],
}

impl Deref for World {
    type Target = Grounds;

    fn deref(&self) -> &Grounds {
        &self.grounds
    }
}

impl World {
    /// All ready; in the long run, a worker for recordings among them.
    ///
    /// # Panics
    /// When a part is missing or does not become ready.
    pub fn start() -> Self {
        Self::of(if nightly() { "transcription=1,batch-embedding=2" } else { TEXTS_ALONE }, "")
    }

    /// Without the worker for recordings, with more settings, in TOML, by service; what they name takes the place of the
    /// usual ones.
    ///
    /// # Panics
    /// As [`World::start`].
    pub fn with(more: &str) -> Self {
        Self::of(TEXTS_ALONE, more)
    }

    fn of(workers: &str, more: &str) -> Self {
        let given = std::env::var("WARREN_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(rand::random);
        println!("repeat with WARREN_TEST_SEED={seed}");
        let folder = tempfile::Builder::new().prefix("warren faults ").tempdir().expect("a temporary folder");
        let passes = folder.path().join("passes.jsonl");
        let points = Points::new(folder.path().join("orders"));
        let settings = format!(
            "[all.broker]\nheartbeat_s = {HEARTBEAT_S}\n\
             [coordinator]\ndevices = [{{ name = \"cpu\", max_concurrent = 2 }}]\n\
             [coordinator.release]\ntask_texts = 1\ntask_audio_s = 30\n\
             [batch-embedding.work]\nslots = 2\n\
             [batch-embedding.leases]\nrecord = {:?}\n",
            passes.to_str().expect("temporary folders have plain names")
        );
        let mut all: toml::Table = settings.parse().expect("TOML");
        merge(&mut all, more.parse().expect("TOML"));
        let settings = all.to_string();
        let orders = points.folder().to_str().expect("temporary folders have plain names");
        let grounds = Grounds::start(&Wishes {
            arguments: &["--coordinators", "2", "--workers", workers],
            settings,
            environment: &[(warren_drills::FOLDER, orders)],
            ..Wishes::default()
        });
        Self { grounds, points, seed, passes, links: OnceLock::new(), _folder: folder }
    }

    /// As [`Grounds::stop`].
    pub fn stop(self) {
        self.grounds.stop();
    }

    /// Chance for one row: the same for the same seed.
    pub fn chance(&self, row: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_add(row))
    }

    /// Sets how much memory the broker may take before it stops publishers: arguments of `rabbitmqctl
    /// set_vm_memory_high_watermark`.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn set_broker_memory(&self, arguments: &[&str]) {
        let broker = self.stack.service("rabbitmq").pid.expect("it runs");
        let arguments: Vec<_> = ["set_vm_memory_high_watermark"].iter().chain(arguments).copied().collect();
        rabbitmq::control(broker, &arguments).expect("the broker takes it");
    }

    /// The coordinator that leads, and the one that stands by.
    ///
    /// # Panics
    /// When nobody leads for a minute.
    pub fn coordinators(&self) -> (Service, Service) {
        let (holder, _) = until("somebody leads", Duration::from_secs(60), || {
            self.runtime.block_on(self.facts.leader()).ok().filter(|(holder, _)| !holder.is_empty())
        });
        let other = if holder == "coordinator" { "coordinator-2" } else { "coordinator" };
        (self.stack.service(&holder), self.stack.service(other))
    }

    /// Passes of models so far. One that was cut off is not among them.
    pub fn passes(&self) -> u64 {
        fs::read_to_string(&self.passes).unwrap_or_default().lines().count() as u64
    }

    /// The lines; the first call puts them in place and restarts the services.
    ///
    /// # Panics
    /// When the stack is not as `warren up` makes it.
    pub fn links(&self) -> &Links {
        self.links.get_or_init(|| {
            let endpoints = self.stack.endpoints();
            let port = |url: &str| port_of(url).unwrap_or_else(|| panic!("{url}: has no port"));
            let of = |part: &str| port(endpoints[part]["url"].as_str().unwrap_or_default());
            let grpc = |name: &str| {
                let text = fs::read_to_string(self.settings_of(name)).expect("written by `warren up`");
                let settings: toml::Table = text.parse().expect("TOML");
                port(settings["grpc"]["bind"].as_str().unwrap_or_default())
            };
            let targets = [of("amqp"), port(&self.database_url), of("s3"), grpc("coordinator"), grpc("coordinator-2")];
            let proxies = targets.map(|target| {
                let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
                Proxy::start(self.runtime.handle(), target).expect("a free port")
            });
            let moved: Vec<(u16, u16)> =
                targets.into_iter().zip(&proxies).map(|(from, to)| (from, to.port())).collect();
            self.reroute(&moved);
            let [amqp, database, storage, one, other] = proxies;
            Links { amqp, database, storage, coordinators: [one, other] }
        })
    }

    fn settings_of(&self, service: &str) -> PathBuf {
        self.stack.data().join("settings").join(format!("{service}.toml"))
    }

    /// Has others go on sooner after somebody's end: the next coordinator leads within two seconds, where the defaults
    /// take six, and there are leases to spare, so that nobody waits 20 s for those of the dead.
    ///
    /// # Panics
    /// As [`World::links`].
    pub fn hasten(&self) {
        self.change_settings(|service, settings| {
            if !service.starts_with("coordinator") {
                return false;
            }
            let leader = settings["leader"].as_table_mut().expect("written by `warren up`");
            for (key, millis) in [("ttl_ms", 1_500), ("step_down_ms", 1_000), ("renew_ms", 300), ("poll_ms", 200)] {
                leader.insert(key.to_owned(), toml::Value::Integer(millis));
            }
            settings["devices"][0]["max_concurrent"] = toml::Value::Integer(64);
            true
        });
    }

    /// Has the services reach their parts at other ports, by the port that each was reached at. The coordinators have
    /// others dial the new ports too.
    fn reroute(&self, ports: &[(u16, u16)]) {
        let moved = |url: &toml::Value| {
            let url = url.as_str().expect("an address").to_owned();
            ports.iter().fold(url, |url, (from, to)| url.replace(&format!(":{from}"), &format!(":{to}")))
        };
        self.change_settings(|service, settings| {
            if let Some(grpc) = settings.get_mut("grpc").and_then(toml::Value::as_table_mut)
                && service != "ingest"
            {
                let address = format!("http://{}", moved(&grpc["bind"]));
                grpc.insert("advertise".to_owned(), address.into());
            }
            for (section, key) in
                [("broker", "url"), ("blob", "endpoint"), ("store", "url"), ("leases", "coordinators")]
            {
                let Some(value) = settings.get_mut(section).and_then(|section| section.get_mut(key)) else { continue };
                let new: toml::Value = match &*value {
                    toml::Value::Array(urls) => urls.iter().map(moved).collect::<Vec<_>>().into(),
                    url => moved(url).into(),
                };
                *value = new;
            }
            true
        });
    }

    /// Changes the settings of the services for which `change` says true, and restarts them.
    fn change_settings(&self, change: impl Fn(&str, &mut toml::Table) -> bool) {
        let mut restarted: Vec<Service> = Vec::new();
        for service in self.stack.ps().into_iter().filter(|service| service.http.is_some()) {
            let file = self.settings_of(&service.name);
            let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let mut settings: toml::Table = text.parse().expect("TOML");
            if change(&service.name, &mut settings) {
                fs::write(&file, settings.to_string()).expect("ours");
                service.signal(Signal::SIGKILL);
                restarted.push(service);
            }
        }
        until("every part started anew", Duration::from_secs(60), || {
            let now = self.stack.ps();
            let anew = |old: &Service| {
                now.iter().any(|new| new.name == old.name && new.state == "ready" && new.pid != old.pid)
            };
            restarted.iter().all(anew).then_some(())
        });
    }
}

/// Puts what is in `more` in the place of what `all` has there.
fn merge(all: &mut toml::Table, more: toml::Table) {
    for (key, value) in more {
        match (all.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => merge(inner, value),
            (_, value) => {
                all.insert(key, value);
            }
        }
    }
}

/// The port of an address, which may have a login before it and a path behind it.
fn port_of(url: &str) -> Option<u16> {
    let authority = url.rsplit_once("://").map_or(url, |(_, rest)| rest).split('/').next()?;
    authority.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found() {
        assert_eq!(port_of("amqp://user:pass@127.0.0.1:5672/%2f"), Some(5672));
        assert_eq!(port_of("postgres://warren@127.0.0.1:99/name"), Some(99));
        assert_eq!(port_of("127.0.0.1:7071"), Some(7071));
        assert_eq!(port_of("http://here"), None);
    }
}
