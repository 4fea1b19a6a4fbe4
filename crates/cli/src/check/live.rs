//! What a person sees while a suite runs: one changing line at a terminal, elsewhere a line every ten seconds.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Silence longer than this looks like a hang.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Where progress is shown.
#[derive(Debug)]
pub(crate) struct Live {
    bar: Option<ProgressBar>,
    suite: String,
    since: Instant,
    said: Instant,
}

impl Live {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template("{wide_msg}").expect("a fixed template"));
            bar
        });
        Self { bar, suite: String::new(), since: Instant::now(), said: Instant::now() }
    }

    /// Starts the clock of a suite.
    pub(crate) fn begin(&mut self, suite: &str) {
        self.suite = suite.to_owned();
        (self.since, self.said) = (Instant::now(), Instant::now());
        if self.bar.is_none() {
            eprintln!("{suite} …");
        }
    }

    /// Shows how long the suite runs and what it said last. Call it at least once a second.
    pub(crate) fn show(&mut self, last: &str) {
        self.show_line(&format!("{:14} {:>6}  {last}", self.suite, clock(self.since.elapsed())));
    }

    /// Shows a line until the next one.
    pub(crate) fn show_line(&mut self, line: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(line.to_owned()),
            None if self.said.elapsed() >= PLAIN_EVERY => {
                eprintln!("{}", line.chars().take(160).collect::<String>());
                self.said = Instant::now();
            }
            None => {}
        }
    }

    /// Prints a line that stays.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the changing line away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message("");
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `0:07` or `12:34`.
pub(crate) fn clock(time: Duration) -> String {
    crate::output::clock(time.as_secs_f64())
}
