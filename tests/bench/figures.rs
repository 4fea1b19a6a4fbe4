//! Numbers out of measurements.

use std::{collections::BTreeMap, fs};

use warren_local::process::Identity;

/// The middle one, or the mean of the two in the middle; 0 of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

/// The smallest value that `share` of all do not exceed; 0 of nothing.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

/// Tasks that ended, by second of the clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct BySecond(pub BTreeMap<i64, u64>);

impl BySecond {
    /// Those of the whole seconds from `from` to before `to`.
    pub(crate) fn within(&self, from: i64, to: i64) -> Vec<u64> {
        (from..to).map(|second| self.0.get(&second).copied().unwrap_or_default()).collect()
    }
}

/// Processor time that these processes have taken so far, seconds.
pub(crate) fn processor_seconds(processes: &[Identity]) -> f64 {
    let ticks = |process: &Identity| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
    };
    // The kernel shows hundredths, whatever it counts in.
    processes.iter().map(ticks).sum::<u64>() as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((percentile(&hundred, 0.5) - 50.0).abs() < 1e-9);
        assert!((percentile(&hundred, 0.99) - 99.0).abs() < 1e-9);
    }

    #[test]
    fn a_second_without_a_task_counts() {
        let ended = BySecond(BTreeMap::from([(7, 3), (9, 5)]));
        assert_eq!(ended.within(7, 11), [3, 0, 5, 0]);
    }
}
