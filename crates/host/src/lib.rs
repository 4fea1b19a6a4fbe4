//! The shell of a service process: command line, settings, telemetry, health, signals, drain, exit code.
//!
//! ```no_run
//! # use std::process::ExitCode;
//! # use warren_host::{DrainSettings, Host, HttpSettings, ServiceSettings};
//! # use warren_telemetry::TelemetrySettings;
//! # #[derive(Default, serde::Serialize, serde::Deserialize)]
//! # struct Settings { http: HttpSettings, telemetry: TelemetrySettings, drain: DrainSettings }
//! # impl warren_settings::Validate for Settings { fn validate(&self) -> Result<(), String> { Ok(()) } }
//! # impl ServiceSettings for Settings {
//! #     const ABOUT: &'static str = "";
//! #     fn http(&self) -> &HttpSettings { &self.http }
//! #     fn telemetry(&self) -> &TelemetrySettings { &self.telemetry }
//! #     fn drain(&self) -> &DrainSettings { &self.drain }
//! # }
//! fn main() -> ExitCode {
//!     warren_host::run("transcription", async |host: Host, settings: Settings| {
//!         let broker = host.part("rabbitmq", "not connected yet");
//!         // … open the parts, then work until told to stop:
//!         broker.ready();
//!         host.stopping().cancelled().await;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! Exit codes: 0 drained, 64 bad settings or usage, 1 failed or stopped before the drain was over.

mod command;
mod drain;
mod http;
mod masked;
mod readiness;
mod settings;
mod stack;

use std::{process::ExitCode, thread, time::Duration};

pub use readiness::{Part, Readiness};
use serde::{Serialize, de::DeserializeOwned};
pub use settings::{DrainSettings, HttpSettings, ServiceSettings, ensure_loopback_or_auth};
use tokio_util::sync::CancellationToken;
use warren_settings::Validate;

/// Settings or usage are wrong.
const BAD_SETTINGS: u8 = 64;

/// What a service gets from its process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {
    service: &'static str,
    stopping: CancellationToken,
    readiness: Readiness,
}

impl Host {
    /// Name of the service, e.g. `transcription`.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// Cancelled at the first SIGTERM or SIGINT: take no new work, finish what is in hand, return.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Which parts are there.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Registers a part that the service needs, as not ready for `reason`.
    pub fn part(&self, name: impl Into<String>, reason: impl Into<String>) -> Part {
        self.readiness.part(name, reason)
    }
}

/// Runs a service until it returns or is told to stop. Call it as the whole of `main`.
///
/// Settings are read and checked before anything is opened. `service_main` gets a tokio runtime with one worker for
/// each core. When it returns, whatever it spawned is dropped with the runtime.
pub fn run<S, F>(service: &'static str, service_main: F) -> ExitCode
where
    S: ServiceSettings + Validate + Default + Serialize + DeserializeOwned + Send,
    F: AsyncFnOnce(Host, S) -> anyhow::Result<()> + Send,
{
    stack::deepen();
    let settings = match command::read::<S>(service, std::env::args_os()) {
        Ok(command::Asked::Run(settings)) => settings,
        Ok(command::Asked::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprint!("{message}");
            return ExitCode::from(BAD_SETTINGS);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("warren-{service}: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let telemetry = {
        let _inside = runtime.enter();
        warren_telemetry::init(service, settings.telemetry())
    };
    let telemetry = match telemetry {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("warren-{service}: {error}");
            return ExitCode::from(BAD_SETTINGS);
        }
    };

    // Not on the main thread, whose stack is as the system made it.
    let ended = thread::scope(|scope| scope.spawn(|| runtime.block_on(serve(service, *settings, service_main))).join());
    drop(telemetry);
    // Blocking calls cannot be interrupted; give those that are about to end a moment.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(Ok(())) => ExitCode::SUCCESS,
        // The panic hook has told why.
        Ok(Err(_)) | Err(_) => ExitCode::FAILURE,
    }
}

async fn serve<S, F>(service: &'static str, settings: S, service_main: F) -> Result<(), ()>
where
    S: ServiceSettings,
    F: AsyncFnOnce(Host, S) -> anyhow::Result<()>,
{
    let host = Host { service, stopping: CancellationToken::new(), readiness: Readiness::default() };
    let grace = Duration::from_secs(settings.drain().grace_s);
    let served = async {
        let signals = drain::Signals::listen()?;
        let address = http::start(settings.http().bind, host.readiness.clone()).await?;
        tracing::info!(http = %address, pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "started");
        let work = service_main(host.clone(), settings);
        drain::until_drained(work, signals, &host.stopping, grace).await
    };
    match served.await {
        Ok(()) => {
            tracing::info!("stopped");
            Ok(())
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "failed");
            Err(())
        }
    }
}
