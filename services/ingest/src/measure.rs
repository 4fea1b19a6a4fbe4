//! Counts and traces every call.

use std::{collections::BTreeMap, time::Instant};

use axum::{extract::Request, middleware::Next, response::Response};
use tonic::Code;
use tracing::Instrument as _;
use warren_telemetry::{metrics, trace};

/// Measures one call. A streamed answer counts as answered when it begins.
pub(crate) async fn measured(request: Request, next: Next) -> Response {
    let method = method(request.uri().path());
    let headers: BTreeMap<String, String> = request
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
        .map(|value| ("traceparent".to_owned(), value.to_owned()))
        .into_iter()
        .collect();
    let span = tracing::info_span!("call", method);
    trace::extract(&headers).parent_of(&span);

    let begun = Instant::now();
    let response = next.run(request).instrument(span).await;
    let code = code(&response);
    // Paths that no service has are the callers' invention: they must not become labels.
    let method = if code == Code::Unimplemented { "other".to_owned() } else { method };
    metrics::CALL_SECONDS.record(begun.elapsed().as_secs_f64(), &[("method", &method)]);
    metrics::CALLS.one(&[("method", &method), ("status", &format!("{code:?}"))]);
    response
}

/// `/warren.v1.Jobs/Submit` is `Jobs.Submit`.
fn method(path: &str) -> String {
    path.trim_start_matches('/').trim_start_matches("warren.v1.").replace('/', ".")
}

/// A call that fails at once has its status in the headers; any other status comes after the answer.
fn code(response: &Response) -> Code {
    response.headers().get("grpc-status").map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_short() {
        assert_eq!(method("/warren.v1.Jobs/Submit"), "Jobs.Submit");
        assert_eq!(method("/grpc.health.v1.Health/Check"), "grpc.health.v1.Health.Check");
    }
}
