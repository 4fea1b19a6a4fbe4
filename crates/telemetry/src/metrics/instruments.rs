//! Counters, gauges and histograms that are declared as statics and come to life at their first use.

use std::sync::{LazyLock, OnceLock};

use opentelemetry::{
    KeyValue,
    metrics::{self as otel, Meter, MeterProvider as _},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

/// The labels of one measurement: name and value.
type Labels<'a> = &'a [(&'static str, &'a str)];

struct Metrics {
    registry: Registry,
    meter: Meter,
    // Instruments die with their provider.
    _provider: SdkMeterProvider,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let registry = Registry::new();
    // Names are written out in full where they are declared, so the exporter must not add to them.
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .without_units()
        .without_counter_suffixes()
        .without_target_info()
        .scope_info_enabled(false)
        .build()
        .expect("a new registry has no collector that could clash");
    let provider = SdkMeterProvider::builder().with_reader(exporter).build();
    Metrics { registry, meter: provider.meter("warren"), _provider: provider }
});

/// All metrics of this process in the Prometheus text format, version 0.0.4.
pub fn render() -> String {
    TextEncoder::new().encode_to_string(&METRICS.registry.gather()).unwrap_or_else(|error| {
        tracing::error!(%error, "metrics could not be written");
        String::new()
    })
}

fn attributes(labels: Labels<'_>) -> Vec<KeyValue> {
    labels.iter().map(|&(name, value)| KeyValue::new(name, value.to_owned())).collect()
}

/// Only grows.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    help: &'static str,
    inner: OnceLock<otel::Counter<f64>>,
}

impl Counter {
    /// Declares a counter. `name` ends in `_total`.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, inner: OnceLock::new() }
    }

    /// Adds one.
    pub fn one(&self, labels: Labels<'_>) {
        self.add(1.0, labels);
    }

    /// Adds `amount`, which is not negative.
    pub fn add(&self, amount: f64, labels: Labels<'_>) {
        self.inner
            .get_or_init(|| METRICS.meter.f64_counter(self.name).with_description(self.help).build())
            .add(amount, &attributes(labels));
    }
}

/// Goes up and down.
#[derive(Debug)]
pub struct Gauge {
    name: &'static str,
    help: &'static str,
    inner: OnceLock<otel::Gauge<f64>>,
}

impl Gauge {
    /// Declares a gauge.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, inner: OnceLock::new() }
    }

    /// Sets the value. A label set keeps its last value for ever: set it to 0 when it no longer applies.
    pub fn set(&self, value: f64, labels: Labels<'_>) {
        self.inner
            .get_or_init(|| METRICS.meter.f64_gauge(self.name).with_description(self.help).build())
            .record(value, &attributes(labels));
    }
}

/// Counts measurements by size.
#[derive(Debug)]
pub struct Histogram {
    name: &'static str,
    help: &'static str,
    bounds: &'static [f64],
    inner: OnceLock<otel::Histogram<f64>>,
}

impl Histogram {
    /// Declares a histogram with the upper bounds of its buckets, in order.
    pub const fn new(name: &'static str, help: &'static str, bounds: &'static [f64]) -> Self {
        Self { name, help, bounds, inner: OnceLock::new() }
    }

    /// Adds one measurement.
    pub fn record(&self, value: f64, labels: Labels<'_>) {
        self.inner
            .get_or_init(|| {
                METRICS
                    .meter
                    .f64_histogram(self.name)
                    .with_description(self.help)
                    .with_boundaries(self.bounds.to_vec())
                    .build()
            })
            .record(value, &attributes(labels));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{JOB_SECONDS, JOBS_ENDED, TASKS_WAITING};

    #[test]
    fn metrics_are_scraped_under_their_names_with_help_and_type() {
        JOBS_ENDED.one(&[("kind", "embed"), ("outcome", "succeeded")]);
        TASKS_WAITING.set(7.0, &[("kind", "transcribe")]);
        TASKS_WAITING.set(5.0, &[("kind", "transcribe")]);
        JOB_SECONDS.record(0.7, &[("kind", "embed")]);
        let text = render();
        for line in [
            "# HELP warren_jobs_completed_total Jobs that ended, by kind and outcome.",
            "# TYPE warren_jobs_completed_total counter",
            r#"warren_jobs_completed_total{kind="embed",outcome="succeeded"} 1"#,
            "# TYPE warren_tasks_waiting gauge",
            r#"warren_tasks_waiting{kind="transcribe"} 5"#,
            "# TYPE warren_job_duration_seconds histogram",
            r#"warren_job_duration_seconds_bucket{kind="embed",le="0.5"} 0"#,
            r#"warren_job_duration_seconds_bucket{kind="embed",le="1"} 1"#,
            r#"warren_job_duration_seconds_count{kind="embed"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "no line `{line}` in\n{text}");
        }
    }
}
