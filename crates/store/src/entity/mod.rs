//! Tables as sea-orm sees them, one module each; rows for the rest of Warren are made from them beside their queries.
//!
//! Tables that only ever appear inside statements (`idempotency`, `inbox`, `leader`, `passage`, `archive`) have none.

#![allow(unreachable_pub, reason = "the derive makes public items")]

pub(crate) mod audit;
pub(crate) mod dead_letter;
pub(crate) mod device;
pub(crate) mod embedding;
pub(crate) mod job;
pub(crate) mod job_event;
pub(crate) mod lease;
pub(crate) mod media;
pub(crate) mod outbox;
pub(crate) mod segment;
pub(crate) mod task;
pub(crate) mod worker;
