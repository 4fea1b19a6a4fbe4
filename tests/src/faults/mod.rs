//! Faults of every kind against a whole stack under load, and the question whether anything was lost or counted twice.

pub mod callers;
pub mod client;
pub mod facts;
pub mod flood;
pub mod grounds;
pub mod kills;
pub mod ledger;
pub mod points;
pub mod proxy;
pub mod table;
pub mod talk;
pub mod watch;
pub mod world;
