//! warren-batch-embedding
fn main() {}
