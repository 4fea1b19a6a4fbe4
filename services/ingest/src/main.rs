//! warren-ingest
fn main() {}
