//! Signals: the demo stops what it started before it ends.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::CliError;

/// Cancelled by Ctrl-C, SIGTERM, or the end of the terminal.
///
/// # Errors
/// When the system will not tell of signals.
pub(super) fn listen() -> Result<CancellationToken, CliError> {
    let heard = |kind| signal(kind).map_err(CliError::file("listen for signals"));
    let mut interrupt = heard(SignalKind::interrupt())?;
    let mut terminate = heard(SignalKind::terminate())?;
    let mut hangup = heard(SignalKind::hangup())?;
    let stopping = CancellationToken::new();
    let token = stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        token.cancel();
    });
    Ok(stopping)
}
