//! The leader on a real database, with RabbitMQ and object storage where they take part.

mod leading;
mod replaying;
mod waiting;
mod world;
