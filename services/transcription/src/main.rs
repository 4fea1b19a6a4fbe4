//! warren-transcription
fn main() {}
