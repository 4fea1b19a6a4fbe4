//! The results, as a table.

use std::{fmt, time::Duration};

/// One line of it.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Number in the list of faults; 0: none.
    pub number: u32,
    /// What was done.
    pub name: String,
    /// Faults that were made.
    pub faults: usize,
    /// Jobs that were accepted.
    pub jobs: usize,
    /// Jobs without an end.
    pub lost: usize,
    /// Jobs with something double.
    pub double: usize,
    /// Passes of models that were made again.
    pub again: Option<u64>,
    /// Time to recovery of each fault.
    pub recovery: Vec<Duration>,
    /// It did not hold; what is wrong was said before, and nothing was counted.
    pub failed: bool,
}

impl Row {
    /// The longest of the shortest 99 %.
    pub fn p99(&self) -> Option<Duration> {
        let mut sorted = self.recovery.clone();
        sorted.sort();
        let index = (sorted.len() * 99).div_ceil(100).checked_sub(1)?;
        sorted.get(index).copied()
    }
}

/// All lines.
#[derive(Clone, Debug, Default)]
pub struct Table(pub Vec<Row>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "row  {:<48} {:>6} {:>6} {:>5} {:>6} {:>6}  recovery p99",
            "what", "faults", "jobs", "lost", "double", "again"
        )?;
        for row in &self.0 {
            if row.failed {
                writeln!(f, "{:>3}  {:<48} FAILED", row.number, row.name)?;
                continue;
            }
            let again = row.again.map_or_else(String::new, |again| again.to_string());
            let p99 = row.p99().map_or_else(String::new, |p99| format!("{:.1} s", p99.as_secs_f64()));
            writeln!(
                f,
                "{:>3}  {:<48} {:>6} {:>6} {:>5} {:>6} {:>6}  {:>12}",
                row.number, row.name, row.faults, row.jobs, row.lost, row.double, again, p99
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_one_of_the_times() {
        let seconds =
            |all: &[u64]| Row { recovery: all.iter().map(|s| Duration::from_secs(*s)).collect(), ..Row::default() };
        assert_eq!(seconds(&[]).p99(), None);
        assert_eq!(seconds(&[3, 1, 2]).p99(), Some(Duration::from_secs(3)));
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(seconds(&hundred).p99(), Some(Duration::from_secs(99)));
    }
}
