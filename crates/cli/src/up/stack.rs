//! What a stack consists of: counts, ports and logins. Kept in `stack.json`, so that they survive restarts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde::{Deserialize, Serialize};
use warren_local::{ports, rabbitmq::RabbitSpec, random_hex};

use super::{
    UpError,
    external::External,
    folder::{Folder, write_json},
    options::PortWishes,
    workers::{WorkerKind, instance},
};

/// The service that callers talk to.
pub(super) const INGEST: &str = "ingest";
/// The service that decides what runs where.
pub(super) const COORDINATOR: &str = "coordinator";

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stack {
    /// Grows with every change, so that others see when a change has taken effect.
    pub generation: u64,
    pub coordinators: u16,
    pub workers: BTreeMap<WorkerKind, u16>,
    /// The private broker; not started when an external one is named.
    pub rabbitmq: RabbitSpec,
    pub s3: S3Login,
    /// By use, e.g. `s3`, `ingest.grpc`, `transcription-2.http`.
    pub ports: BTreeMap<String, u16>,
    /// Parts that run elsewhere.
    #[serde(default)]
    pub external: External,
    /// How often each part was to be restarted by a command; the supervisor restarts those of which this changes.
    #[serde(default)]
    pub restarts: BTreeMap<String, u64>,
}

/// The private S3 server's bucket and only login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct S3Login {
    pub bucket: String,
    pub access_key: String,
    pub secret_key: String,
}

/// One process of a service of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    /// E.g. `transcription-2`.
    pub name: String,
    /// E.g. `transcription`.
    pub service: &'static str,
    pub worker: bool,
}

impl Stack {
    /// The stack of this folder; `None` when nothing was started here yet.
    pub(super) fn load(folder: &Folder) -> Result<Option<Self>, UpError> {
        let path = folder.stack();
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(UpError::io(format!("read {}", path.display())))?;
        let why = |error| {
            UpError::Usage(format!(
                "{}: {error}; it was written by another version of warren, or edited. Use another --data folder, or \
                 move this one away",
                path.display()
            ))
        };
        serde_json::from_str(&text).map(Some).map_err(why)
    }

    /// One of each, with logins of its own. Ports are chosen by [`Stack::choose_ports`].
    pub(super) fn generate() -> Result<Self, UpError> {
        Ok(Self {
            generation: 1,
            coordinators: 1,
            workers: WorkerKind::ALL.into_iter().map(|kind| (kind, 1)).collect(),
            rabbitmq: RabbitSpec::generate().map_err(UpError::io("find free ports"))?,
            s3: S3Login {
                bucket: "warren".to_owned(),
                access_key: format!("warren-{}", random_hex(4)),
                secret_key: random_hex(20),
            },
            ports: BTreeMap::new(),
            external: External::default(),
            restarts: BTreeMap::new(),
        })
    }

    pub(super) fn save(&self, folder: &Folder) -> Result<(), UpError> {
        write_json(&folder.stack(), self)
    }

    /// Our own processes, in the order in which they are listed.
    pub(super) fn instances(&self) -> Vec<Instance> {
        let mut all = vec![Instance { name: INGEST.to_owned(), service: INGEST, worker: false }];
        let mut add = |service: &'static str, count: u16, worker: bool| {
            all.extend((1..=count).map(|number| Instance { name: instance(service, number), service, worker }));
        };
        add(COORDINATOR, self.coordinators, false);
        for kind in WorkerKind::ALL {
            add(kind.service(), self.workers.get(&kind).copied().unwrap_or(0), true);
        }
        all
    }

    /// The uses of ports that this stack has now.
    fn uses(&self) -> Vec<String> {
        let mut uses: Vec<_> = self.instances().iter().map(|instance| format!("{}.http", instance.name)).collect();
        uses.push(format!("{INGEST}.grpc"));
        uses.extend((1..=self.coordinators).map(|number| format!("{}.grpc", instance(COORDINATOR, number))));
        if self.external.blob.is_none() {
            uses.push("s3".to_owned());
        }
        uses
    }

    /// The port for a use; 0 before [`Stack::choose_ports`].
    pub(super) fn port(&self, using: &str) -> u16 {
        self.ports.get(using).copied().unwrap_or(0)
    }

    /// Gives every use a port: the wished one, else the one it had, else a free one. `running`: the stack is up, so
    /// its ports are in use by itself and stay as they are.
    ///
    /// Returns a sentence for each port that had to change.
    ///
    /// # Errors
    /// [`UpError::Usage`] when a wished port is taken.
    pub(super) fn choose_ports(&mut self, wishes: &PortWishes, running: bool) -> Result<Vec<String>, UpError> {
        let mut changes = Vec::new();
        let wished = BTreeMap::from([
            ("ingest.grpc", wishes.grpc),
            ("ingest.http", wishes.http),
            ("s3", wishes.s3),
            ("amqp", wishes.amqp),
            ("management", wishes.management),
        ]);
        let mut slots: Vec<(String, u16)> =
            self.uses().into_iter().map(|using| (using.clone(), self.port(&using))).collect();
        if self.external.broker.is_none() {
            let RabbitSpec { amqp_port, management_port, prometheus_port, dist_port, epmd_port, .. } = self.rabbitmq;
            let broker = [
                ("amqp", amqp_port),
                ("management", management_port),
                ("prometheus", prometheus_port),
                ("erlang", dist_port),
                ("epmd", epmd_port),
            ];
            slots.extend(broker.map(|(using, port)| (using.to_owned(), port)));
        }
        let mut chosen = BTreeSet::new();
        for (using, had) in slots {
            let wish = wished.get(using.as_str()).copied().flatten();
            let port = choose(&using, had, wish, running, &mut chosen)?;
            if had != 0 && had != port && wish.is_none() {
                changes.push(format!("port {had} is taken by another program: {using} moves to {port}"));
            }
            self.set_port(&using, port);
        }
        Ok(changes)
    }

    fn set_port(&mut self, using: &str, port: u16) {
        let rabbitmq = &mut self.rabbitmq;
        match using {
            "amqp" => rabbitmq.amqp_port = port,
            "management" => rabbitmq.management_port = port,
            "prometheus" => rabbitmq.prometheus_port = port,
            "erlang" => rabbitmq.dist_port = port,
            "epmd" => rabbitmq.epmd_port = port,
            _ => {
                self.ports.insert(using.to_owned(), port);
            }
        }
    }
}

fn choose(using: &str, had: u16, wish: Option<u16>, running: bool, chosen: &mut BTreeSet<u16>) -> Result<u16, UpError> {
    if let Some(wish) = wish {
        if running && had != wish {
            let why = format!("{using} is on port {had} while the stack runs; stop it with `warren down` first");
            return Err(UpError::Usage(why));
        }
        if !chosen.insert(wish) {
            return Err(UpError::Usage(format!("port {wish} was asked for twice")));
        }
        if !running && !ports::is_free(wish) {
            return Err(UpError::Usage(format!("port {wish} for {using} is taken by another program")));
        }
        return Ok(wish);
    }
    if had != 0 && (running || ports::is_free(had)) && chosen.insert(had) {
        return Ok(had);
    }
    loop {
        let port = ports::free(1).map_err(UpError::io("find a free port"))?[0];
        if chosen.insert(port) {
            return Ok(port);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn stack() -> Stack {
        let mut stack = Stack::generate().unwrap();
        stack.choose_ports(&PortWishes::default(), false).unwrap();
        stack
    }

    #[test]
    fn instances_are_named_as_the_contract_says() {
        let mut stack = stack();
        stack.coordinators = 2;
        stack.workers.insert(WorkerKind::Transcription, 2);
        let names: Vec<_> = stack.instances().into_iter().map(|instance| instance.name).collect();
        let expected =
            ["ingest", "coordinator", "coordinator-2", "transcription", "transcription-2", "batch-embedding"];
        assert_eq!(names, expected);
    }

    #[test]
    fn ports_stay_unless_taken() {
        let mut stack = stack();
        let before = stack.clone();
        assert!(stack.choose_ports(&PortWishes::default(), false).unwrap().is_empty());
        assert_eq!(stack, before);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, before.port("s3"))).unwrap();
        let changes = stack.choose_ports(&PortWishes::default(), false).unwrap();
        assert!(changes.len() == 1 && changes[0].contains("s3"), "{changes:?}");
        assert_eq!(stack.port("ingest.grpc"), before.port("ingest.grpc"));
        assert_ne!(stack.port("s3"), before.port("s3"));
    }

    #[test]
    fn a_wished_port_is_kept_or_refused() {
        let mut stack = stack();
        let free = ports::free(1).unwrap()[0];
        let wishes = PortWishes { grpc: Some(free), ..PortWishes::default() };
        stack.choose_ports(&wishes, false).unwrap();
        assert_eq!(stack.port("ingest.grpc"), free);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, free)).unwrap();
        let error = stack.choose_ports(&wishes, false).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(&free.to_string()), "{error}");
        assert!(stack.choose_ports(&wishes, true).is_ok(), "a running stack holds its own ports");
    }

    #[test]
    fn all_ports_differ() {
        let stack = stack();
        let all: BTreeSet<_> = stack.ports.values().copied().collect();
        assert_eq!(all.len(), stack.ports.len());
        assert!(!all.contains(&stack.rabbitmq.amqp_port));
    }

    #[test]
    fn a_stack_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        assert_eq!(Stack::load(&folder).unwrap(), None);
        let stack = stack();
        stack.save(&folder).unwrap();
        assert_eq!(Stack::load(&folder).unwrap(), Some(stack));
        fs::write(folder.stack(), "{").unwrap();
        assert!(Stack::load(&folder).unwrap_err().to_string().contains("stack.json"));
    }
}
