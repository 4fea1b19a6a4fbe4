//! `warren up`, `down`, `ps`, `endpoints` and `logs`: the stack on this machine.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    error::CliError,
    output,
    up::{self, PortWishes, Stopped, UpOptions},
};

/// Start everything on this machine, on loopback, in one folder.
#[derive(Args, Debug)]
pub(crate) struct Up {
    /// Return as soon as everything is ready, and leave it running.
    #[arg(long)]
    detach: bool,
    /// Coordinators; one leads, the others stand by.
    #[arg(long, value_name = "N")]
    coordinators: Option<u16>,
    /// Workers of a kind, e.g. transcription=2,batch-embedding=1.
    #[arg(long, value_name = "KIND=N", default_value = "", hide_default_value = true)]
    workers: String,
    /// Ports to use instead of free ones.
    #[command(flatten)]
    ports: Ports,
    /// Changes to the generated settings, as TOML with a section for each service.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

#[derive(Args, Clone, Copy, Debug)]
struct Ports {
    /// Port of the gRPC door.
    #[arg(long, value_name = "PORT")]
    grpc_port: Option<u16>,
    /// Port of ingest's health and metrics.
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Port of RabbitMQ.
    #[arg(long, value_name = "PORT")]
    amqp_port: Option<u16>,
    /// Port of RabbitMQ's management page.
    #[arg(long, value_name = "PORT")]
    management_port: Option<u16>,
    /// Port of the S3 server.
    #[arg(long, value_name = "PORT")]
    s3_port: Option<u16>,
}

/// Show the logs of services.
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Names as in `warren ps`; none means all.
    services: Vec<String>,
    /// Go on showing what is written.
    #[arg(short, long)]
    follow: bool,
    /// Lines of each to begin with.
    #[arg(short = 'n', long, default_value_t = 20)]
    lines: usize,
}

/// Starts; with `json`, prints addresses and logins as soon as everything is ready.
///
/// # Errors
/// What did not become ready, and why.
pub(crate) async fn start(data: PathBuf, arguments: &Up, json: bool) -> Result<(), CliError> {
    let workers = up::parse_workers(&arguments.workers).map_err(CliError::Usage)?;
    let options = UpOptions {
        detach: arguments.detach,
        coordinators: arguments.coordinators,
        workers,
        ports: PortWishes {
            grpc: arguments.ports.grpc_port,
            http: arguments.ports.http_port,
            amqp: arguments.ports.amqp_port,
            management: arguments.ports.management_port,
            s3: arguments.ports.s3_port,
        },
        settings: arguments.settings.clone(),
        ..UpOptions::new(data)
    };
    let stack = up::up(options, &mut |line| eprintln!("{line}")).await?;
    eprintln!("ready{}: {}", if stack.unchanged { ", unchanged" } else { "" }, stack.endpoints.grpc.url);
    if json {
        output::json_line(&json!(stack.endpoints))?;
    }
    Ok(stack.wait().await?)
}

/// Stops.
///
/// # Errors
/// What would not stop.
pub(crate) fn stop(data: &Path, json: bool) -> Result<(), CliError> {
    let stopped = up::down(data, &mut |line| eprintln!("{line}"))? == Stopped::Now;
    if json {
        return output::json_line(&json!({ "stopped": stopped }));
    }
    eprintln!("{}", if stopped { "stopped" } else { "it was not running" });
    Ok(())
}

/// What runs.
///
/// # Errors
/// When there is no stack in the folder.
pub(crate) fn ps(data: &Path, json: bool) -> Result<(), CliError> {
    let services = up::ps(data)?;
    if json {
        return output::json_line(&json!(services));
    }
    if services.is_empty() {
        eprintln!("it is not running; to start it: warren up --data {data:?}");
        return Ok(());
    }
    let mut table = output::table(&["service", "pid", "state", "restarts", "health and metrics"]);
    for service in services {
        let pid = service.pid.map(|pid| pid.to_string()).unwrap_or_default();
        let (state, restarts) = (service.state.to_string(), service.restarts.to_string());
        table.add_row([service.service, pid, state, restarts, service.http.unwrap_or_default()]);
    }
    output::line(table)
}

/// Addresses and logins.
///
/// # Errors
/// When there is no stack in the folder.
pub(crate) fn endpoints(data: &Path, json: bool) -> Result<(), CliError> {
    let endpoints = json!(up::endpoints(data)?);
    if json {
        return output::json_line(&endpoints);
    }
    let mut table = output::table(&["part", "address", "user", "password"]);
    for (part, endpoint) in endpoints.as_object().into_iter().flatten() {
        let text = |field: &str| endpoint[field].as_str().unwrap_or_default().to_owned();
        table.add_row([part.clone(), text("url"), text("user"), text("password")]);
    }
    output::line(table)
}

/// Logs.
///
/// # Errors
/// When there is no stack in the folder.
pub(crate) async fn logs(data: &Path, arguments: &Logs, json: bool) -> Result<(), CliError> {
    let show = |service: &str, line: &str| {
        if json {
            output::json_line(&json!({ "service": service, "line": line }))
        } else {
            output::line(format_args!("{service} | {line}"))
        }
    };
    for log in up::logs(data, &arguments.services, arguments.lines)? {
        log.lines.iter().try_for_each(|line| show(&log.service, line))?;
    }
    let mut printed = Ok(());
    if arguments.follow {
        up::follow_logs(data, &arguments.services, |service, line| {
            printed = show(service, line);
            printed.is_ok()
        })
        .await?;
    }
    printed
}

/// The S3 server of a stack, until SIGTERM.
///
/// # Errors
/// When it cannot serve.
pub(crate) async fn s3(config: &Path) -> Result<(), CliError> {
    let stopping = CancellationToken::new();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(CliError::file("listen for SIGTERM"))?;
    let token = stopping.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        token.cancel();
    });
    Ok(up::serve_s3(config, stopping).await?)
}

/// Brings a database to this build's revision.
///
/// # Errors
/// When it is out of reach, or of a newer build.
pub(crate) async fn migrate(url: &str, json: bool) -> Result<(), CliError> {
    let applied = warren_store::migrate::up(url)
        .await
        .map_err(|error| CliError::Refused { code: "StoreUnavailable".to_owned(), message: error.to_string() })?;
    if json {
        output::json_line(&json!({ "applied": applied, "revision": warren_store::migrate::newest() }))?;
    } else if applied.is_empty() {
        eprintln!("the database is at revision {} already", warren_store::migrate::newest());
    }
    for revision in &applied {
        eprintln!("applied {revision}");
    }
    Ok(())
}
