//! The contract with RabbitMQ, on a real broker.

mod consuming;
mod grouping;
mod letters;
mod outages;
mod publishing;
mod support;
