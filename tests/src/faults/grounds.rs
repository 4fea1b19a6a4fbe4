//! A stack on a PostgreSQL that keeps what it confirmed, a caller, and a look at the rows.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;
use warren_local::postgres::{Cluster, Durability};

use super::{
    client::Client,
    facts::{Counts, Facts},
};
use crate::stack::{Stack, Wishes};

/// All of it. Stopped when dropped.
#[derive(Debug)]
pub struct Grounds {
    /// Runs callers and proxies.
    pub runtime: Runtime,
    /// A caller.
    pub client: Client,
    /// What the database says.
    pub facts: Facts,
    /// The services.
    pub stack: Stack,
    /// Where the database is.
    pub database_url: String,
    /// Declared last: the services go before their database.
    database: Mutex<Cluster>,
}

impl Grounds {
    /// A stack as wished, but on a database of its own and without the weights of models. Ready.
    ///
    /// # Panics
    /// When a part is missing or does not become ready.
    pub fn start(wishes: &Wishes<'_>) -> Self {
        let cluster = Cluster::start(Durability::Safe).unwrap_or_else(|error| panic!("this needs PostgreSQL: {error}"));
        let database_url = cluster.create_database().expect("the cluster is new");
        let mut environment = vec![("WARREN_STORE__URL", database_url.as_str())];
        environment.extend(wishes.environment);
        let stack = Stack::with(&Wishes { environment: &environment, without_models: true, ..wishes.clone() });
        let runtime = Runtime::new().expect("a runtime");
        let grpc = stack.endpoints()["grpc"]["url"].as_str().expect("an address").to_owned();
        let client = runtime.block_on(async { Client::new(&grpc) });
        let facts = runtime.block_on(Facts::connect(&database_url)).expect("it runs");
        Self { runtime, client, facts, stack, database_url, database: Mutex::new(cluster) }
    }

    /// Stops the services, once their ledger balances, and the database after them.
    ///
    /// # Panics
    /// As [`Stack::stop`].
    pub fn stop(self) {
        self.stack.stop();
    }

    /// The database.
    pub fn database(&self) -> MutexGuard<'_, Cluster> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the database and starts it again. Returns when it accepts connections.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn crash_database(&self) {
        self.database().crash().unwrap_or_else(|error| panic!("the database does not come back: {error}"));
    }

    /// All counts of rows; `None` when the database does not answer.
    pub fn counts(&self) -> Option<Counts> {
        self.runtime.block_on(self.facts.counts()).ok()
    }

    /// Waits until nothing is on its way and nobody holds anything; otherwise says what there was at last.
    ///
    /// # Errors
    /// The last counts, if the database answered.
    pub fn at_rest(&self, limit: Duration) -> Result<Counts, Option<Counts>> {
        let begun = Instant::now();
        loop {
            let counts = self.counts();
            match counts {
                Some(counts) if counts.rest() => return Ok(counts),
                last if begun.elapsed() > limit => return Err(last),
                _ => thread::sleep(Duration::from_millis(200)),
            }
        }
    }
}
