//! What every worker does around its own work: the way of a task from its delivery to its report.
//!
//! - [`Desk`] takes a task in hand, and turns what became of it into a report and a verdict for the broker.
//! - [`Shelf`] has the models: fetched when missing, checked, loaded once, unloaded when others need the room.
//! - [`Engine`] runs a model under a lease, on the threads that the other slots leave free.
//! - [`Pace`] tells how many tasks are taken in hand, by how long they take.
//! - [`Watermark`] has a worker leave that has grown too large.
//! - [`watch_parts`] keeps readiness right.

mod desk;
mod engine;
mod gate;
mod hand;
mod ladder;
mod memory;
mod pace;
mod parts;
mod settings;
mod shelf;
mod threads;
mod watermark;

pub use desk::{Desk, deadline, wrong_kind};
pub use engine::{Engine, Load};
pub use hand::{Hand, Stopped};
pub use pace::Pace;
pub use parts::watch_parts;
pub use settings::WorkSettings;
pub use shelf::{Loadable, Shelf};
pub use watermark::Watermark;
