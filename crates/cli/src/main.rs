//! warren-cli
fn main() {}
