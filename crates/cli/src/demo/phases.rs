//! How long each part of the demo took.

use std::time::{Duration, Instant};

use crate::output;

/// The phases so far.
#[derive(Debug, Default)]
pub(super) struct Phases {
    done: Vec<(&'static str, Duration)>,
}

/// A phase under way.
#[must_use = "a phase ends"]
#[derive(Debug)]
pub(super) struct Begun {
    name: &'static str,
    at: Instant,
}

impl Phases {
    /// Announces a phase.
    pub(super) fn begin(&self, name: &'static str) -> Begun {
        eprintln!("-- {name}");
        Begun { name, at: Instant::now() }
    }

    /// Notes its time.
    pub(super) fn end(&mut self, begun: Begun) {
        self.done.push((begun.name, begun.at.elapsed()));
    }

    /// Prints all of them; a phase that failed is not among them.
    pub(super) fn show(&self) {
        let mut table = output::table(&["phase", "seconds"]);
        for (name, time) in &self.done {
            table.add_row([(*name).to_owned(), format!("{:.1}", time.as_secs_f64())]);
        }
        let total: Duration = self.done.iter().map(|(_, time)| *time).sum();
        table.add_row(["all".to_owned(), format!("{:.1}", total.as_secs_f64())]);
        println!("{table}");
    }
}
