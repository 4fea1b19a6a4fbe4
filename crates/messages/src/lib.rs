//! The wire contract: types generated from `proto/`, the envelope they travel in, and every queue name.
//!
//! - [`wire`]: the generated types, gRPC clients and servers included.
//! - [`ids`]: `job_…`, `task_…`, `media_…` and their UUIDs.
//! - [`routes`]: which message type travels on which queue; the only string literals that name one.
//! - [`envelope`]: message type + body + headers, and decoding with an error that names what is wrong.
//! - [`edits`]: what an operator changed in a body.
//! - [`replay`]: what a dead letter holds, and whether sending it again makes sense.

pub mod edits;
pub mod envelope;
pub mod ids;
mod quality;
pub mod replay;
pub mod routes;
mod times;

pub use quality::MAX_BEAM_SIZE;
pub use times::{from_millis, to_millis, wrong_time};

/// Types generated from `proto/warren/v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all,
    clippy::unwrap_used,
    rustdoc::all,
    reason = "generated; the documentation is in the proto files"
)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/warren.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/warren.v1.serde.rs"));
}

/// The compiled descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
