//! `warren`: client, operator's tool and local supervisor.

mod up;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use up::{UpError, UpOptions};

#[derive(Parser)]
#[command(name = "warren", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on this machine.
    Up {
        #[arg(long)]
        data: Option<PathBuf>,
        #[arg(long)]
        detach: bool,
        #[arg(long)]
        coordinators: Option<u16>,
        #[arg(long, default_value = "")]
        workers: String,
        #[arg(long)]
        settings: Option<PathBuf>,
    },
    /// Stop all of it.
    Down {
        #[arg(long)]
        data: Option<PathBuf>,
    },
    /// What runs.
    Ps {
        #[arg(long)]
        data: Option<PathBuf>,
    },
    /// Addresses and logins.
    Endpoints {
        #[arg(long)]
        data: Option<PathBuf>,
    },
    /// The ends of the logs.
    Logs {
        #[arg(long)]
        data: Option<PathBuf>,
        #[arg(long)]
        follow: bool,
        services: Vec<String>,
    },
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        data: PathBuf,
    },
    #[command(hide = true)]
    S3 {
        #[arg(long)]
        config: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("warren: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(command: Command) -> Result<(), UpError> {
    let dir = |data: Option<PathBuf>| data.unwrap_or_else(up::default_data_dir);
    let mut progress = |line: &str| eprintln!("{line}");
    match command {
        Command::Up { data, detach, coordinators, workers, settings } => {
            let workers = up::parse_workers(&workers).map_err(UpError::Usage)?;
            let options = UpOptions { detach, coordinators, workers, settings, ..UpOptions::new(dir(data)) };
            let up = up::up(options, &mut progress).await?;
            eprintln!("ready{}: {}", if up.unchanged { ", unchanged" } else { "" }, up.endpoints.grpc.url);
            up.wait().await
        }
        Command::Down { data } => up::down(&dir(data), &mut progress).map(|stopped| eprintln!("{stopped:?}")),
        Command::Ps { data } => {
            println!("{}", serde_json::to_string_pretty(&up::ps(&dir(data))?).unwrap_or_default());
            Ok(())
        }
        Command::Endpoints { data } => {
            println!("{}", serde_json::to_string_pretty(&up::endpoints(&dir(data))?).unwrap_or_default());
            Ok(())
        }
        Command::Logs { data, follow, services } => {
            let data = dir(data);
            for log in up::logs(&data, &services, 20)? {
                log.lines.iter().for_each(|line| println!("{} | {line}", log.service));
            }
            if follow {
                up::follow_logs(&data, &services, |service, line| {
                    println!("{service} | {line}");
                    true
                })
                .await?;
            }
            Ok(())
        }
        Command::Supervise { data } => up::supervise(&data, CancellationToken::new()).await,
        Command::S3 { config } => {
            let stopping = CancellationToken::new();
            let token = stopping.clone();
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .map_err(|source| UpError::Io { what: "listen for SIGTERM".to_owned(), source })?;
            tokio::spawn(async move {
                terminate.recv().await;
                token.cancel();
            });
            up::serve_s3(&config, stopping).await
        }
    }
}
