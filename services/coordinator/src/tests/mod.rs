//! The leader on a real database, with RabbitMQ and object storage where they take part.

mod going_out;
mod leading;
mod letters;
mod operating;
mod putting_away;
mod reaping;
mod replaying;
mod sweeping;
mod waiting;
mod world;
