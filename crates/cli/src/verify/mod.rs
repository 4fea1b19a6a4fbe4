//! `warren verify`: is everything that was accepted accounted for? Reads the database, the broker and the storage, and
//! needs none of the services.

mod account;
mod objects;
mod queues;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use serde::{Deserialize, Serialize};
use warren_blob::{BlobSettings, Blobs};
use warren_broker::BrokerSettings;
use warren_clock::Clock;
use warren_settings::Validate;
use warren_store::{Store, StoreSettings};

use self::account::Account;
use crate::{client::Target, error::CliError, output, up};

/// Between two looks: the broker counts anew every five seconds.
const PAUSE: Duration = Duration::from_secs(2);

/// Is everything that was accepted accounted for? Exit code 1 with the differences when it is not.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A coordinator's settings file. Default: that of the local stack, else the variables WARREN_….
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Seconds that differences may take to go away: counts of the broker are up to five seconds old.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    within: u64,
}

/// Of a coordinator's settings, where the three parts are.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Parts {
    broker: BrokerSettings,
    store: StoreSettings,
    blob: BlobSettings,
}

impl Validate for Parts {
    fn validate(&self) -> Result<(), String> {
        self.broker.validate()?;
        self.store.validate()?;
        self.blob.validate()
    }
}

/// Looks until it balances, or for as long as differences may take.
///
/// # Errors
/// [`CliError::Failed`] when it does not balance, [`CliError::OutOfReach`] when a part cannot be asked.
pub(crate) async fn run(target: &Target, arguments: &Verify, json: bool) -> Result<(), CliError> {
    let file = arguments.settings.clone().or_else(|| up::settings_file(&target.folder(), "coordinator"));
    let parts: Parts = warren_settings::load(file.as_deref()).map_err(|error| CliError::Usage(error.to_string()))?;
    let store = Store::open(&parts.store, Clock::system()).await.map_err(away("the database"))?;
    let blobs = Blobs::connect(&parts.blob);
    let since = Instant::now();
    let account = loop {
        let account = Account::of(&store, &parts.broker, &blobs).await?;
        if account.balances() || since.elapsed() >= Duration::from_secs(arguments.within) {
            break account;
        }
        tokio::time::sleep(PAUSE).await;
    };
    if json {
        output::json_line(&account.json())?
    } else {
        account.show()?
    }
    if account.balances() { Ok(()) } else { Err(CliError::Failed) }
}

fn away<E: std::fmt::Display>(part: &str) -> impl FnOnce(E) -> CliError {
    move |error| {
        let needs = "the database, the broker and the storage have to run, the services need not";
        CliError::OutOfReach(format!("{part} cannot be asked: {error}; {needs}"))
    }
}
