//! Every exchange, queue and binding, from one list.
//!
//! All queues are quorum queues with the same arguments on RabbitMQ 3.10 and 4.x. Unknown or version-dependent
//! arguments are accepted by brokers without a word, so nothing may be added here without trying it on both.

use lapin::{
    Channel, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use warren_jobs::TaskKind;
use warren_messages::routes;

use crate::management::QueueState;

/// Kind of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchanging {
    /// By exact routing key.
    Direct,
    /// To all bound queues; the routing key is kept.
    Fanout,
    /// By pattern.
    Topic,
}

/// A durable exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: Exchanging,
}

/// Value of a queue argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

/// A durable queue with its exact arguments and bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Name.
    pub name: String,
    /// `x-…` arguments.
    pub arguments: Vec<(&'static str, Argument)>,
    /// (exchange, routing key).
    pub bindings: Vec<(String, String)>,
}

/// What must exist on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// All exchanges.
    pub exchanges: Vec<Exchange>,
    /// All queues; targets of dead-lettering stand before their sources.
    pub queues: Vec<Queue>,
}

/// Deliveries after which the broker makes a dead letter of a task: a last net under [`crate::Handler`]'s own count.
pub const TASK_DELIVERY_LIMIT: i64 = 20;
/// "No limit" that means the same on every version: without a limit 4.x drops after 20, and `-1` destroys on 3.10.
const NEVER: i64 = 1_000_000;

/// The topology of this version of Warren.
pub fn expected() -> Topology {
    let exchange = |name: &str, kind| Exchange { name: name.to_owned(), kind };
    let mut exchanges = vec![
        exchange(routes::DEAD_EXCHANGE, Exchanging::Direct),
        exchange(routes::EVENT_EXCHANGE, Exchanging::Direct),
        exchange(routes::TASK_EXCHANGE, Exchanging::Direct),
        exchange(routes::NOTICE_EXCHANGE, Exchanging::Topic),
    ];

    let events = [(routes::COMMANDS.queue, routes::COMMANDS.key), (routes::REPORTS.queue, routes::REPORTS.key)];
    let tasks = TaskKind::ALL.iter().map(|&kind| routes::tasks(kind)).map(|route| (route.queue, route.key));
    let dead_keys: Vec<_> = events.iter().copied().chain(tasks.clone()).map(|(_, key)| key).collect();

    // A source whose target is missing loses its letters (3.10) or hides them for minutes: targets first.
    let mut queues = vec![
        quorum(routes::DEAD_QUEUE, NEVER).bound_to_each(routes::DEAD_EXCHANGE, &dead_keys),
        quorum(routes::DEAD_INDEX_QUEUE, NEVER).single_consumer().bound_to_each(routes::DEAD_EXCHANGE, &dead_keys),
    ];
    queues.extend(tasks.map(|(queue, key)| {
        quorum(queue, TASK_DELIVERY_LIMIT)
            .argument("x-max-length", Argument::Number(200_000))
            .dying_to(routes::DEAD_EXCHANGE, Some(key))
            .bound_to_each(routes::TASK_EXCHANGE, &[key])
    }));
    queues.extend(events.map(|(queue, key)| {
        quorum(queue, NEVER)
            .single_consumer()
            .dying_to(routes::DEAD_EXCHANGE, Some(key))
            .bound_to_each(routes::EVENT_EXCHANGE, &[key])
    }));
    for seconds in routes::RETRY_RUNGS {
        let name = routes::retry_rung(seconds);
        exchanges.push(exchange(&name, Exchanging::Fanout));
        queues.push(
            // The delivery limit is given although nothing consumes here: a peek by hand counts too.
            quorum(&name, NEVER)
                .argument("x-message-ttl", Argument::Number(i64::from(seconds) * 1000))
                .dying_to(routes::TASK_EXCHANGE, None)
                .bound_to_each(&name, &[""]),
        );
    }
    Topology { exchanges, queues }
}

fn quorum(name: &str, delivery_limit: i64) -> Queue {
    let queue = Queue { name: name.to_owned(), arguments: Vec::new(), bindings: Vec::new() };
    queue
        .argument("x-queue-type", Argument::Text("quorum".to_owned()))
        .argument("x-delivery-limit", Argument::Number(delivery_limit))
}

impl Queue {
    fn argument(mut self, name: &'static str, value: Argument) -> Self {
        self.arguments.push((name, value));
        self
    }

    fn single_consumer(self) -> Self {
        self.argument("x-single-active-consumer", Argument::Flag(true))
    }

    /// Dead-letters at least once; without `reject-publish` a broker falls back to at most once, silently.
    fn dying_to(self, exchange: &str, key: Option<&str>) -> Self {
        let queue = self
            .argument("x-dead-letter-exchange", Argument::Text(exchange.to_owned()))
            .argument("x-dead-letter-strategy", Argument::Text("at-least-once".to_owned()))
            .argument("x-overflow", Argument::Text("reject-publish".to_owned()));
        match key {
            Some(key) => queue.argument("x-dead-letter-routing-key", Argument::Text(key.to_owned())),
            None => queue,
        }
    }

    fn bound_to_each(mut self, exchange: &str, keys: &[&str]) -> Self {
        self.bindings.extend(keys.iter().map(|key| (exchange.to_owned(), (*key).to_owned())));
        self
    }
}

/// How the queues on a broker differ from [`expected`], one sentence each; empty when all is well. Queues that Warren
/// does not know are nobody's business.
pub fn differences(found: &[QueueState]) -> Vec<String> {
    let mut differences = Vec::new();
    for queue in expected().queues {
        let Some(state) = found.iter().find(|state| state.name == queue.name) else {
            differences.push(format!("queue {} is missing", queue.name));
            continue;
        };
        for (name, wanted) in &queue.arguments {
            let wanted = wanted.to_json();
            match state.arguments.get(*name) {
                Some(has) if *has == wanted => {}
                Some(has) => differences.push(format!("queue {}: {name} is {has}, must be {wanted}", queue.name)),
                None => differences.push(format!("queue {}: {name} is not set, must be {wanted}", queue.name)),
            }
        }
        for name in state.arguments.keys().filter(|name| queue.arguments.iter().all(|(known, _)| known != name)) {
            differences.push(format!("queue {}: {name} is set and must not be", queue.name));
        }
    }
    differences
}

impl Argument {
    /// As the management API shows it.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Flag(flag) => (*flag).into(),
        }
    }
}

/// The topology could not be declared.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// It exists with other arguments; the broker's sentence names the argument and both values.
    #[error(
        "{what} exists on the broker but differs: {difference}. Empty and delete it, or remove the policy; it is then declared again"
    )]
    Differs {
        /// `queue warren.dead` or `exchange warren.task`.
        what: String,
        /// The argument with both values.
        difference: String,
    },
    /// Any other trouble.
    #[error("declaring {what}: {reason}")]
    Failed {
        /// What was being declared.
        what: String,
        /// What the broker or the connection said.
        reason: String,
    },
}

/// Declares all of it; does nothing where it exists already.
pub(crate) async fn declare(channel: &Channel, topology: &Topology) -> Result<(), TopologyError> {
    for exchange in &topology.exchanges {
        let kind = match exchange.kind {
            Exchanging::Direct => ExchangeKind::Direct,
            Exchanging::Fanout => ExchangeKind::Fanout,
            Exchanging::Topic => ExchangeKind::Topic,
        };
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel
            .exchange_declare(exchange.name.as_str().into(), kind, options, FieldTable::default())
            .await
            .map_err(|error| explain(format!("exchange {}", exchange.name), &error))?;
    }
    for queue in &topology.queues {
        let what = || format!("queue {}", queue.name);
        channel
            .queue_declare(queue.name.as_str().into(), QueueDeclareOptions::durable(), arguments(queue))
            .await
            .map_err(|error| explain(what(), &error))?;
        for (exchange, key) in &queue.bindings {
            channel
                .queue_bind(
                    queue.name.as_str().into(),
                    exchange.as_str().into(),
                    key.as_str().into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
                .map_err(|error| explain(what(), &error))?;
        }
    }
    Ok(())
}

fn arguments(queue: &Queue) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in &queue.arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
            Argument::Flag(flag) => AMQPValue::Boolean(*flag),
        };
        table.insert((*name).into(), value);
    }
    table
}

fn explain(what: String, error: &lapin::Error) -> TopologyError {
    match error.kind() {
        ErrorKind::ProtocolError(broker) if broker.get_id() == 406 => {
            let said = broker.get_message().to_string();
            let difference = said.strip_prefix("PRECONDITION_FAILED - ").unwrap_or(&said).to_owned();
            TopologyError::Differs { what, difference }
        }
        _ => TopologyError::Failed { what, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument<'a>(queue: &'a Queue, name: &str) -> Option<&'a Argument> {
        queue.arguments.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    #[test]
    fn every_queue_is_quorum_and_has_a_positive_delivery_limit() {
        for queue in expected().queues {
            assert_eq!(argument(&queue, "x-queue-type"), Some(&Argument::Text("quorum".to_owned())), "{}", queue.name);
            assert!(matches!(argument(&queue, "x-delivery-limit"), Some(Argument::Number(limit)) if *limit > 0));
        }
    }

    #[test]
    fn what_dead_letters_does_so_at_least_once_and_its_target_comes_first() {
        let topology = expected();
        for (index, queue) in topology.queues.iter().enumerate() {
            let Some(Argument::Text(target)) = argument(queue, "x-dead-letter-exchange") else { continue };
            assert_eq!(argument(queue, "x-overflow"), Some(&Argument::Text("reject-publish".to_owned())));
            assert_eq!(argument(queue, "x-dead-letter-strategy"), Some(&Argument::Text("at-least-once".to_owned())));
            let key = match argument(queue, "x-dead-letter-routing-key") {
                Some(Argument::Text(key)) => vec![key.as_str()],
                _ => TaskKind::ALL.iter().map(|kind| kind.as_str()).collect(),
            };
            for key in key {
                assert!(
                    topology.queues[..index]
                        .iter()
                        .any(|earlier| earlier.bindings.iter().any(|bound| bound.0 == *target && bound.1 == key)),
                    "{} dies to {target} {key}, which is not bound yet",
                    queue.name
                );
            }
        }
    }

    #[test]
    fn differences_are_named() {
        let arguments =
            |queue: &Queue| queue.arguments.iter().map(|(name, value)| ((*name).to_owned(), value.to_json())).collect();
        let mut found: Vec<_> = expected()
            .queues
            .iter()
            .map(|queue| QueueState { name: queue.name.clone(), arguments: arguments(queue), ..Default::default() })
            .collect();
        assert_eq!(differences(&found), Vec::<String>::new());
        found[0].arguments.insert("x-delivery-limit".to_owned(), 20.into());
        found[1].arguments.remove("x-queue-type");
        let gone = found.pop().expect("there are queues");
        let told = differences(&found).join("; ");
        assert!(told.contains("queue warren.dead: x-delivery-limit is 20, must be 1000000"), "{told}");
        assert!(told.contains("queue warren.dead.index: x-queue-type is not set"), "{told}");
        assert!(told.contains(&format!("queue {} is missing", gone.name)), "{told}");
    }

    #[test]
    fn names_are_unique() {
        let topology = expected();
        let mut names: Vec<_> = topology.queues.iter().map(|queue| &queue.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), topology.queues.len());
        assert_eq!(names.len(), 2 + 2 + TaskKind::ALL.len() + 8);
    }
}
