//! warren-coordinator
fn main() {}
