//! warren-telemetry
