//! Two-stage stop: the first signal asks, the second or the end of the grace period ends.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            int: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// Runs `work`; at the first signal cancels `stopping` and gives it `grace` to end.
pub(crate) async fn until_drained(
    work: impl Future<Output = anyhow::Result<()>>,
    mut signals: Signals,
    stopping: &CancellationToken,
    grace: Duration,
) -> anyhow::Result<()> {
    tokio::pin!(work);
    let name = tokio::select! {
        ended = &mut work => return ended,
        name = signals.next() => name,
    };
    tracing::info!(signal = name, grace_s = grace.as_secs(), "stopping: finishing what is in hand");
    stopping.cancel();
    tokio::select! {
        ended = &mut work => ended,
        name = signals.next() => bail!("second signal ({name}) before the drain was over"),
        () = tokio::time::sleep(grace) => bail!("the drain was not over after drain.grace_s = {}", grace.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use nix::{
        sys::signal::{Signal as Number, kill},
        unistd::Pid,
    };
    use tokio::sync::Mutex;

    use super::*;

    // A signal reaches the whole process, so tests that send one take turns.
    static TURN: Mutex<()> = Mutex::const_new(());

    fn send(number: Number) {
        kill(Pid::this(), number).expect("a signal to ourselves");
    }

    #[tokio::test]
    async fn the_first_signal_asks_and_work_ends_well() {
        let _turn = TURN.lock().await;
        let stopping = CancellationToken::new();
        let signals = Signals::listen().expect("listening");
        send(Number::SIGTERM);
        let work = async {
            stopping.cancelled().await;
            Ok(())
        };
        until_drained(work, signals, &stopping, Duration::from_secs(60)).await.expect("drained");
    }

    #[tokio::test]
    async fn the_second_signal_ends_at_once() {
        let _turn = TURN.lock().await;
        let stopping = CancellationToken::new();
        let signals = Signals::listen().expect("listening");
        send(Number::SIGTERM);
        let stubborn = async {
            stopping.cancelled().await;
            send(Number::SIGINT);
            std::future::pending().await
        };
        let error = until_drained(stubborn, signals, &stopping, Duration::from_secs(60)).await.expect_err("cut short");
        assert!(error.to_string().contains("second signal"), "{error}");
    }

    #[tokio::test]
    async fn grace_ends() {
        let _turn = TURN.lock().await;
        let stopping = CancellationToken::new();
        let signals = Signals::listen().expect("listening");
        send(Number::SIGINT);
        let error = until_drained(std::future::pending(), signals, &stopping, Duration::ZERO).await.expect_err("late");
        assert!(error.to_string().contains("drain.grace_s"), "{error}");
    }

    #[tokio::test]
    async fn work_that_ends_by_itself_needs_no_signal() {
        let stopping = CancellationToken::new();
        let _turn = TURN.lock().await;
        let signals = Signals::listen().expect("listening");
        let error = until_drained(async { bail!("no broker") }, signals, &stopping, Duration::ZERO).await;
        assert_eq!(error.expect_err("failed").to_string(), "no broker");
    }
}
