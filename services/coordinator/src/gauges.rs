//! Gauges that only the leader knows. A gauge keeps its last value for ever, so whatever is not true any more is set
//! to 0: a device without leases, a service without workers, and everything when the term ends.

use warren_telemetry::metrics::Gauge;

/// A gauge with its labels and what it is set to.
pub(crate) type Value = (&'static Gauge, Vec<(&'static str, String)>, f64);

/// The gauges of one group that have been set so far. Dropped, it leaves them all at 0.
#[derive(Debug, Default)]
pub(crate) struct Gauges(Vec<Value>);

impl Gauges {
    /// Sets these, and those set before to 0.
    pub(crate) fn show(&mut self, values: Vec<Value>) {
        let same = |one: &Value, other: &Value| std::ptr::eq(one.0, other.0) && one.1 == other.1;
        let mut before = std::mem::take(&mut self.0);
        before.retain(|old| !values.iter().any(|new| same(old, new)));
        before.iter_mut().for_each(|gone| gone.2 = 0.0);
        self.0 = values;
        self.0.append(&mut before);
        for (gauge, labels, value) in &self.0 {
            let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            gauge.set(*value, &labels);
        }
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        self.show(Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use warren_telemetry::metrics;

    use super::*;

    fn shown(device: &str) -> String {
        let line = format!("warren_leases_held{{device=\"{device}\"}} ");
        let text = metrics::render();
        text.lines().find_map(|found| found.strip_prefix(&line)).expect("shown").to_owned()
    }

    #[test]
    fn what_is_no_longer_true_is_zero() {
        let held = |device: &str| (&metrics::LEASES_HELD, vec![("device", device.to_owned())], 2.0);
        let mut gauges = Gauges::default();
        gauges.show(vec![held("gauge:0"), held("gauge:1")]);
        assert_eq!((shown("gauge:0"), shown("gauge:1")), ("2".to_owned(), "2".to_owned()));
        gauges.show(vec![held("gauge:1")]);
        assert_eq!((shown("gauge:0"), shown("gauge:1")), ("0".to_owned(), "2".to_owned()));
        drop(gauges);
        assert_eq!((shown("gauge:0"), shown("gauge:1")), ("0".to_owned(), "0".to_owned()), "the term is over");
    }
}
