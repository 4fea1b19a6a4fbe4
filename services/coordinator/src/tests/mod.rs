//! The leader's work on a real database, with RabbitMQ and object storage where they take part.

mod replaying;
mod waiting;
mod world;
