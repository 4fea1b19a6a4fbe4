//! `/health`, `/health/ready` and `/metrics`.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::Readiness;

/// Serves until the runtime ends; returns the address, which has a port even where 0 was asked.
pub(crate) async fn start(bind: SocketAddr, readiness: Readiness) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(bind)
        .await
        .with_context(|| format!("http.bind: cannot listen on {bind}; choose a free port or 0"))?;
    let address = listener.local_addr().context("http.bind")?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes(readiness)).await {
            tracing::error!(%error, "health and metrics are no longer served");
        }
    });
    Ok(address)
}

fn routes(readiness: Readiness) -> Router {
    Router::new()
        .route("/health", get(async || Json(json!({"status": "ok"}))))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let down = readiness.down();
    if down.is_empty() {
        (StatusCode::OK, Json(json!({"status": "ready"})))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "not ready", "parts": down})))
    }
}

async fn metrics() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], warren_telemetry::metrics::render())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn probes_tell_alive_from_ready() {
        let readiness = Readiness::default();
        let broker = readiness.part("rabbitmq", "connection refused");
        let address = start(SocketAddr::from(([127, 0, 0, 1], 0)), readiness).await.expect("listening");

        let health = fetch(address, "/health").await;
        assert!(health.starts_with("HTTP/1.1 200") && health.ends_with(r#"{"status":"ok"}"#), "{health}");
        let waiting = fetch(address, "/health/ready").await;
        assert!(waiting.starts_with("HTTP/1.1 503"), "{waiting}");
        assert!(waiting.ends_with(r#"{"parts":{"rabbitmq":"connection refused"},"status":"not ready"}"#), "{waiting}");

        broker.ready();
        let ready = fetch(address, "/health/ready").await;
        assert!(ready.starts_with("HTTP/1.1 200") && ready.ends_with(r#"{"status":"ready"}"#), "{ready}");
        let metrics = fetch(address, "/metrics").await;
        // Its value is of the whole process, and so of other tests, too.
        assert!(metrics.contains("# TYPE warren_ready gauge\nwarren_ready "), "{metrics}");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let bind = taken.local_addr().expect("an address");
        let error = start(bind, Readiness::default()).await.expect_err("taken");
        assert!(format!("{error:#}").contains(&format!("http.bind: cannot listen on {bind}")), "{error:#}");
    }
}
