//! warren-host
