//! The leader on a real database, with RabbitMQ and object storage where they take part.

mod going_out;
mod leading;
mod letters;
mod reaping;
mod replaying;
mod sweeping;
mod waiting;
mod world;
