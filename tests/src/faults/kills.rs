//! Kills at moments of chance, of victims of chance.

use std::{
    collections::BTreeMap,
    fmt, thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rand::{Rng as _, rngs::StdRng};

use super::{
    flood::Flood,
    watch::{Look, Watch},
    world::World,
};
use crate::nightly;

/// Who can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The front door.
    Ingest,
    /// The coordinator that leads.
    Leader,
    /// The one that does not.
    Standby,
    /// A worker for texts, by its number.
    Worker(u8),
    /// The worker for recordings.
    Transcriber,
    /// RabbitMQ.
    Broker,
    /// PostgreSQL.
    Database,
    /// The S3 server.
    Storage,
}

/// All of them; the last one is there in the long run only.
const ALL: [Victim; 9] = [
    Victim::Ingest,
    Victim::Leader,
    Victim::Standby,
    Victim::Worker(1),
    Victim::Worker(2),
    Victim::Broker,
    Victim::Database,
    Victim::Storage,
    Victim::Transcriber,
];

/// Who is there to be killed.
pub fn victims() -> &'static [Victim] {
    if nightly() { &ALL } else { &ALL[..ALL.len() - 1] }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ingest => f.pad("ingest"),
            Self::Leader => f.pad("leading coordinator"),
            Self::Standby => f.pad("standby coordinator"),
            Self::Worker(1) => f.pad("batch-embedding"),
            Self::Worker(number) => f.pad(&format!("batch-embedding-{number}")),
            Self::Transcriber => f.pad("transcription"),
            Self::Broker => f.pad("rabbitmq"),
            Self::Database => f.pad("postgresql"),
            Self::Storage => f.pad("s3"),
        }
    }
}

/// One kill.
#[derive(Clone, Debug)]
pub struct Kill {
    /// Who.
    pub victim: Victim,
    /// The process's name, as in `warren ps`.
    pub service: String,
    /// Its id, where `warren ps` lists it.
    pub pid: Option<u32>,
    /// When.
    pub at: Instant,
    /// What it was doing: a worker's tasks, the calls at ingest, for others all released tasks.
    pub in_flight: u64,
}

impl Kill {
    /// True once somebody else is in the victim's place, and ready.
    pub fn is_over(&self, look: &Look) -> bool {
        if self.victim == Victim::Database {
            return look.progress.is_some();
        }
        let is_back = |service: &crate::stack::Service| {
            service.name == self.service && service.state == "ready" && service.pid != self.pid
        };
        look.services.iter().any(is_back)
    }
}

/// Kills one, unless it is down already.
pub fn kill(world: &World, victim: Victim) -> Option<Kill> {
    let service = match victim {
        Victim::Ingest => "ingest".to_owned(),
        Victim::Leader => world.coordinators().0.name,
        Victim::Standby => world.coordinators().1.name,
        Victim::Worker(_) | Victim::Transcriber => victim.to_string(),
        Victim::Broker => "rabbitmq".to_owned(),
        Victim::Database => "postgresql".to_owned(),
        Victim::Storage => "s3".to_owned(),
    };
    let released = || world.runtime.block_on(world.facts.progress()).map_or(0, |(_, released)| released);
    let in_flight = match victim {
        Victim::Ingest => world.client.open_calls() as u64,
        Victim::Worker(_) | Victim::Transcriber => world.runtime.block_on(world.facts.running(&service)).unwrap_or(0),
        _ => released(),
    };
    if victim == Victim::Database {
        let at = Instant::now();
        world.crash_database();
        return Some(Kill { victim, service, pid: None, at, in_flight });
    }
    let found = world.stack.ps().into_iter().find(|found| found.name == service && found.state == "ready")?;
    found.signal(Signal::SIGKILL);
    Some(Kill { victim, service, pid: found.pid, at: Instant::now(), in_flight })
}

/// Kills `count` times while at least a tenth of the flood's tasks are open; the time between two is exponential with
/// this mean. Each victim is killed once, in whatever order, before one is killed again.
pub fn spree(
    world: &World,
    flood: &Flood,
    watch: &Watch,
    chance: &mut StdRng,
    count: usize,
    mean: Duration,
) -> Vec<Kill> {
    let now = || watch.last().and_then(|look| look.progress).map(|(done, _)| done);
    let before = now().unwrap_or(0);
    let (mut kills, mut done, mut left) = (Vec::new(), 0, Vec::new());
    while kills.len() < count {
        let wait = mean.mul_f64(-(1.0 - chance.random::<f64>()).ln()).min(4 * mean);
        thread::sleep(wait);
        // While the database is away, it is as it was.
        done = now().map_or(done, |now| now.saturating_sub(before));
        if flood.is_over() || done * 10 > flood.tasks() * 9 {
            break;
        }
        if left.is_empty() {
            left = victims().to_vec();
        }
        let next = chance.random_range(0..left.len());
        let victim = left[next];
        // Who is down still has its turn later.
        if let Some(kill) = kill(world, victim) {
            left.swap_remove(next);
            println!(
                "{:>6.1} s  {victim:<20} with {} in flight, {done} tasks done",
                kills.first().map_or(0.0, |first: &Kill| first.at.elapsed().as_secs_f64()),
                kill.in_flight
            );
            kills.push(kill);
        }
    }
    kills
}

/// Kills and those with work in flight, by victim.
pub fn by_victim(kills: &[Kill]) -> BTreeMap<Victim, (usize, usize)> {
    let mut counts = BTreeMap::new();
    for kill in kills {
        let (all, busy): &mut (usize, usize) = counts.entry(kill.victim).or_default();
        *all += 1;
        *busy += usize::from(kill.in_flight > 0);
    }
    counts
}
