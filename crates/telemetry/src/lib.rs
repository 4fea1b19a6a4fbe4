//! Logs, traces and metrics of one process, and the trace context that travels with messages.
//!
//! - [`init`]: call once, inside the tokio runtime, before anything is logged.
//! - [`metrics`]: every metric of Warren, by the name it is scraped under.
//! - [`trace`]: trace context to and from message headers.

mod json;
pub mod metrics;
mod panics;
mod settings;
pub mod trace;

use std::io::IsTerminal as _;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
pub use settings::{LogFormat, TelemetrySettings};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Telemetry cannot start; the message names the key.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `telemetry.log` is not a filter.
    #[error("telemetry.log: `{filter}` is not a log filter such as `info,warren_broker=debug`: {reason}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `telemetry.otlp_endpoint` cannot be used.
    #[error("telemetry.otlp_endpoint: {0}")]
    Endpoint(String),
}

/// Keeps telemetry running. Dropping it sends the spans that are still waiting, for at most 5 s.
#[derive(Debug)]
#[must_use = "dropping the guard ends the export of traces"]
pub struct Guard {
    traces: SdkTracerProvider,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; the collector may be long gone.
        let _ = self.traces.shutdown_with_timeout(std::time::Duration::from_secs(5));
    }
}

/// Starts logs on stderr, traces, metrics and the panic hook for this process.
///
/// Trace ids are made and passed on even when no endpoint is set, so that log lines of one job can be joined. A second
/// call in one process keeps the first subscriber.
///
/// # Errors
/// [`TelemetryError`] when the filter or the endpoint cannot be used.
pub fn init(service: &'static str, settings: &TelemetrySettings) -> Result<Guard, TelemetryError> {
    // lapin logs returned messages with their bodies, which are callers' texts. What the settings say comes later and
    // wins.
    let filter = EnvFilter::try_new(format!("lapin=error,{}", settings.log))
        .map_err(|error| TelemetryError::Filter { filter: settings.log.clone(), reason: error.to_string() })?;
    let traces = tracer_provider(service, settings)?;

    let terminal = std::io::stderr().is_terminal();
    let format = match settings.format {
        LogFormat::Auto if terminal => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(terminal).boxed(),
        _ => lines
            .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
            .event_format(json::Lines { service })
            .boxed(),
    };
    // Of where in the sources and on which thread something ran, log lines tell more.
    let spans = tracing_opentelemetry::layer()
        .with_tracer(traces.tracer("warren"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false);
    // Fails only when this process has a subscriber already, as in tests.
    let _ = tracing_subscriber::registry().with(lines).with(spans).with(filter).try_init();

    metrics::BUILD_INFO.set(1.0, &[("service", service), ("version", env!("CARGO_PKG_VERSION"))]);
    panics::install();
    Ok(Guard { traces })
}

fn tracer_provider(service: &'static str, settings: &TelemetrySettings) -> Result<SdkTracerProvider, TelemetryError> {
    let builder = SdkTracerProvider::builder().with_resource(Resource::builder().with_service_name(service).build());
    if let Some(endpoint) = &settings.otlp_endpoint {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| TelemetryError::Endpoint(format!("`{endpoint}`: {error}")))?;
        return Ok(builder.with_sampler(Sampler::AlwaysOn).with_batch_exporter(exporter).build());
    }
    // Ids are made all the same; what nobody will read is not written down.
    Ok(builder.with_sampler(Sampler::AlwaysOff).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        let settings = TelemetrySettings { log: "warren=loud".to_owned(), ..Default::default() };
        let error = init("test", &settings).expect_err("not a level").to_string();
        assert!(error.contains("telemetry.log") && error.contains("warren=loud"), "{error}");
    }
}
