//! W3C trace context in message headers: a consumer's work hangs below, or is linked to, what its producer did.

use std::collections::BTreeMap;

use opentelemetry::{
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{SpanContext, TraceContextExt as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Writes the current span's context into `headers` as `traceparent`; writes nothing outside of a trace.
pub fn inject(headers: &mut BTreeMap<String, String>) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut Headers(headers));
}

/// Reads the producer's context; a missing or damaged header gives one that changes nothing.
pub fn extract(headers: &BTreeMap<String, String>) -> Remote {
    let context = TraceContextPropagator::new().extract(&Read(headers));
    Remote(context.span().span_context().clone())
}

/// A span of another process.
#[derive(Clone, Debug)]
pub struct Remote(SpanContext);

impl Remote {
    /// Makes `span` its child: the first delivery of a message goes on in the producer's trace. Call it before the
    /// span is entered for the first time.
    pub fn parent_of(&self, span: &Span) {
        if self.0.is_valid() {
            let context = opentelemetry::Context::new().with_remote_span_context(self.0.clone());
            // Fails when traces are off or the span was entered already; work goes on without the parent.
            let _ = span.set_parent(context);
        }
    }

    /// Links `span` to it: a retry, a replay or one of many messages taken together starts a trace of its own.
    pub fn link_to(&self, span: &Span) {
        if self.0.is_valid() {
            span.add_link(self.0.clone());
        }
    }

    /// The trace as 32 hexadecimal digits.
    pub fn trace_id(&self) -> Option<String> {
        self.0.is_valid().then(|| self.0.trace_id().to_string())
    }
}

struct Headers<'a>(&'a mut BTreeMap<String, String>);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty `tracestate` comes with every context and says nothing.
        if !value.is_empty() {
            self.0.insert(key.to_owned(), value);
        }
    }
}

struct Read<'a>(&'a BTreeMap<String, String>);

impl Extractor for Read<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_consumer_goes_on_in_its_producers_trace() {
        let traces = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let subscriber =
            tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(traces.tracer("test")));
        tracing::subscriber::with_default(subscriber, || {
            let mut sent = BTreeMap::new();
            tracing::info_span!("publish").in_scope(|| inject(&mut sent));
            assert!(sent.contains_key("traceparent") && !sent.contains_key("tracestate"), "{sent:?}");

            let producer = extract(&sent);
            let handle = tracing::info_span!("handle");
            producer.parent_of(&handle);
            let mut passed_on = BTreeMap::new();
            handle.in_scope(|| inject(&mut passed_on));
            assert_eq!(extract(&passed_on).trace_id(), producer.trace_id());
            assert_ne!(passed_on["traceparent"], sent["traceparent"]);

            let retry = tracing::info_span!("retry");
            producer.link_to(&retry);
            let mut own = BTreeMap::new();
            retry.in_scope(|| inject(&mut own));
            assert_ne!(extract(&own).trace_id(), producer.trace_id());
        });
    }

    #[test]
    fn damaged_context_is_ignored() {
        let headers = BTreeMap::from([("traceparent".to_owned(), "00-zz".to_owned())]);
        assert_eq!(extract(&headers).trace_id(), None);
    }
}
