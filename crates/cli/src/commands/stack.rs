//! `warren up`, `down`, `scale`, `restart`, `ps`, `endpoints`, `logs` and `reset`: the stack on this machine.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    error::CliError,
    output,
    up::{self, PortWishes, Scalable, Stopped, Story, UpOptions},
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

/// Stop all of it.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Down {
    /// Kill everything at once, without finishing what is in hand. Nothing is lost: the next `up` goes on.
    #[arg(long)]
    now: bool,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Change how many processes of a service run; those that leave finish what they have in hand.
#[derive(Args, Debug)]
pub(crate) struct Scale {
    /// transcription, batch-embedding or coordinator.
    #[arg(value_name = "KIND")]
    service: Scalable,
    /// How many; 0 workers of a kind let its work wait.
    count: u16,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Restart a part of the stack, or all one after the other: each finishes what it has in hand, and nothing is lost.
#[derive(Args, Debug)]
pub(crate) struct Restart {
    /// A name as in `warren ps`, or all.
    service: String,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Delete everything that the stack has ever stored: jobs, recordings, transcripts, the archive.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Reset {
    /// There is no way back. WARREN_ALLOW_RESET=1 is needed, too.
    #[arg(long)]
    yes_i_mean_it: bool,
    /// Say what would be deleted and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Show the logs of services, or one job's story over all of them.
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Names as in `warren ps`; none means all.
    services: Vec<String>,
    /// Go on showing what is written.
    #[arg(short, long)]
    follow: bool,
    /// Lines of each to begin with.
    #[arg(short = 'n', long, default_value_t = 20, conflicts_with = "job")]
    lines: usize,
    /// Only what is about this job, of all services in order of time.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
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
pub(crate) async fn stop(data: &Path, arguments: Down, json: bool) -> Result<(), CliError> {
    if arguments.dry_run {
        let parts: Vec<_> = up::ps(data)?.into_iter().map(|part| part.service).collect();
        if json {
            return output::json_line(&json!({ "stopped": false, "would_stop": parts, "dry_run": true }));
        }
        let how = if arguments.now { "would be killed at once" } else { "would finish what is in hand and stop" };
        return match parts.is_empty() {
            true => output::line("it is not running"),
            false => output::line(format_args!("{} {how}", parts.join(", "))),
        };
    }
    let mut progress = |line: &str| eprintln!("{line}");
    // Nobody has to answer for a stack that did not run.
    if up::ps(data).is_ok_and(|parts| !parts.is_empty()) {
        recorded(data, if arguments.now { "kill" } else { "stop" }, "", &json!({})).await;
    }
    let stopped = if arguments.now { up::kill(data, &mut progress)? } else { up::down(data, &mut progress)? };
    let stopped = stopped == Stopped::Now;
    if json {
        return output::json_line(&json!({ "stopped": stopped }));
    }
    eprintln!("{}", if stopped { "stopped" } else { "it was not running" });
    Ok(())
}

/// Writes a deed into the audit. A database that is away keeps nobody from mending a stack.
async fn recorded(data: &Path, verb: &str, subject: &str, detail: &serde_json::Value) {
    if let Err(error) = up::record(data, verb, subject, detail).await {
        eprintln!("{error}");
    }
}

/// Scales.
///
/// # Errors
/// What did not become ready, and why.
pub(crate) async fn scale(data: &Path, arguments: &Scale, json: bool) -> Result<(), CliError> {
    let (service, count) = (arguments.service, arguments.count);
    let mut progress = |line: &str| eprintln!("{line}");
    let planned = up::scale(data, service, count, true, &mut progress).await?;
    if !arguments.dry_run && planned.before != count {
        let detail = json!({ "from": planned.before, "to": count });
        recorded(data, "scale", &service.to_string(), &detail).await;
        up::scale(data, service, count, false, &mut progress).await?;
    }
    if json {
        return output::json_line(&json!({
            "service": service.to_string(), "from": planned.before, "to": count, "starts": planned.starts,
            "stops": planned.stops, "dry_run": arguments.dry_run,
        }));
    }
    if planned.before == count {
        return output::line(format_args!("{service}: {count} already"));
    }
    let would = if arguments.dry_run { "would be " } else { "" };
    output::line(format_args!("{service}: {would}{count} instead of {}", planned.before))?;
    for (what, names) in [("drained", &planned.stops), ("started", &planned.starts)] {
        if !names.is_empty() {
            output::line(format_args!("{would}{what}: {}", names.join(", ")))?;
        }
    }
    Ok(())
}

/// Restarts.
///
/// # Errors
/// What did not become ready, and why.
pub(crate) async fn restart(data: &Path, arguments: &Restart, json: bool) -> Result<(), CliError> {
    let service = &arguments.service;
    let mut progress = |line: &str| eprintln!("{line}");
    let parts = up::restart(data, service, true, &mut progress).await?;
    if !arguments.dry_run {
        recorded(data, "restart", service, &json!({ "parts": parts })).await;
        up::restart(data, service, false, &mut progress).await?;
    }
    if json {
        return output::json_line(&json!({ "restarted": parts, "dry_run": arguments.dry_run }));
    }
    let how = if arguments.dry_run { "would be restarted, one after the other" } else { "restarted, and ready" };
    output::line(format_args!("{} {how}", parts.join(", ")))
}

/// Destroys.
///
/// # Errors
/// [`CliError::Usage`] unless it is wanted twice over; what could not be deleted.
pub(crate) async fn reset(data: &Path, arguments: Reset, json: bool) -> Result<(), CliError> {
    let held = up::holding(data).await?;
    let known = |jobs: Option<u64>| jobs.map_or_else(|| "an unknown number of".to_owned(), |jobs| jobs.to_string());
    let folders: Vec<_> =
        held.folders.iter().map(|(folder, bytes)| json!({ "folder": folder, "bytes": bytes })).collect();
    let as_json = |dry_run: bool| json!({ "jobs": held.jobs, "open_jobs": held.open_jobs, "folders": folders, "dry_run": dry_run });
    if !arguments.dry_run {
        let allowed = std::env::var_os("WARREN_ALLOW_RESET").is_some_and(|value| value == "1");
        if !(arguments.yes_i_mean_it && allowed) {
            let why = format!(
                "this deletes {} jobs and everything they made, for ever; --dry-run says what. To do it, set \
                 WARREN_ALLOW_RESET=1 and add --yes-i-mean-it",
                known(held.jobs)
            );
            return Err(CliError::Usage(why));
        }
        up::reset(data).await?;
        recorded(data, "reset", "", &as_json(false)).await;
    }
    if json {
        return output::json_line(&as_json(arguments.dry_run));
    }
    let would = if arguments.dry_run { "would be " } else { "" };
    output::line(format_args!("{would}deleted: {} jobs, {} of them open", known(held.jobs), known(held.open_jobs)))?;
    for (folder, bytes) in &held.folders {
        output::line(format_args!("  {} ({:.1} MB)", folder.display(), *bytes as f64 / 1e6))?;
    }
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
    let mut table = output::table(&["service", "pid", "state", "restarts", "last end", "health and metrics"]);
    for service in services {
        let pid = service.pid.map(|pid| pid.to_string()).unwrap_or_default();
        let (state, restarts) = (service.state.to_string(), service.restarts.to_string());
        let last_end = service.last_end.unwrap_or_default();
        table.add_row([service.service, pid, state, restarts, last_end, service.http.unwrap_or_default()]);
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
            output::line(format_args!("{service} | {}", up::plain(line)))
        }
    };
    let mut printed = Ok(());
    if let Some(job) = &arguments.job {
        let mut story = Story::of(job);
        let told = up::story(data, &arguments.services, &mut story)?;
        let show = |service: &str, line: &str| {
            if json {
                show(service, line)
            } else {
                output::line(format_args!("{service:<16} {}", up::plain(line).replace(&format!(" job.id={job}"), "")))
            }
        };
        told.iter().try_for_each(|(service, line)| show(service, line))?;
        if told.is_empty() && !arguments.follow {
            eprintln!("no log of this stack names {job}");
        }
        if arguments.follow {
            up::follow_logs(data, &arguments.services, |service, line| {
                if story.tells(line) {
                    printed = show(service, line);
                }
                printed.is_ok()
            })
            .await?;
        }
        return printed;
    }
    for log in up::logs(data, &arguments.services, arguments.lines)? {
        log.lines.iter().try_for_each(|line| show(&log.service, line))?;
    }
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
