//! The private parts that `warren up` and the tests start on this machine: a RabbitMQ node, an S3 server and, for
//! tests, a PostgreSQL cluster. All listen on loopback only, keep their files in one folder, touch no system service
//! and end with the process that started them, however it ends.
//!
//! Each part has `for_tests()`: one shared instance per test process, started when first asked for, with a fresh
//! namespace (vhost, database, bucket) per call.

mod error;
pub mod http;
mod login;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod rabbitmq;
pub mod s3;
mod scratch;

pub use error::LocalError;
pub use login::random_hex;
pub use scratch::Scratch;
