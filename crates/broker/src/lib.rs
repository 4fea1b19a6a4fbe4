//! RabbitMQ for Warren: confirmed publishing, supervised consuming, the retry ladder and the dead letters.
//!
//! - [`Broker`]: two connections (publish, consume) that are made again for ever; [`Health`] says how they are.
//! - [`Broker::publish`]: success means that a quorum has the message.
//! - [`Broker::consume`]: one [`Handler`] per queue of tasks. What it returns decides between ack, ladder and letter.
//! - [`Broker::consume_group`]: for the coordinator, which takes messages in groups and leaves them unacked while the
//!   store is away.
//! - [`dead`]: the scan that removes letters that are back at work.
//! - [`testing`]: a delivery from its bytes.
//! - [`topology`]: every exchange and queue, from one list.
//!
//! Nothing is acked before its effect is durable: an ack follows the confirm of whatever replaces the message.

mod acks;
mod broker;
mod consume;
pub mod dead;
mod delivery;
mod depth;
mod group;
mod headers;
mod letter;
mod link;
pub mod management;
mod notices;
mod post;
mod publish;
mod settings;
mod settle;
mod supervisor;
mod take;
pub mod testing;
pub mod topology;

pub use broker::{Broker, Health};
pub use consume::Handler;
pub use delivery::{ByHand, Delay, Delivery, Received};
pub use group::GroupHandler;
pub use letter::{Death, Letter};
pub use notices::Notices;
pub use publish::{Outgoing, PublishError};
pub use settings::BrokerSettings;
