//! RabbitMQ's management API, as an operator's browser uses it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use warren_local::http;

/// The longest that an answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The API of one broker, for vhost `/`.
#[derive(Clone, Debug)]
pub struct Management {
    server: SocketAddr,
    user: String,
    password: String,
}

/// A message taken from a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// Exchange that it was published to.
    pub exchange: String,
    /// Its routing key.
    pub key: String,
    /// Its properties, headers among them.
    pub properties: Value,
    /// Its body.
    pub body: String,
}

impl Management {
    /// From the `management` part of `warren endpoints --json`.
    ///
    /// # Panics
    /// When that is not an address on loopback with a login.
    pub fn new(endpoint: &Value) -> Self {
        let field = |name: &str| endpoint[name].as_str().unwrap_or_else(|| panic!("management.{name}: {endpoint}"));
        let address = field("url").trim_start_matches("http://").trim_end_matches('/');
        let server = address.parse().unwrap_or_else(|error| panic!("management.url: {address}: {error}"));
        Self { server, user: field("user").to_owned(), password: field("password").to_owned() }
    }

    /// Publishes a message by hand.
    ///
    /// # Panics
    /// When the broker did not route it to a queue.
    pub fn publish(&self, exchange: &str, key: &str, properties: &Value, body: &str) {
        self.publish_as("string", exchange, key, properties, body);
    }

    /// The same with any bytes.
    ///
    /// # Panics
    /// As [`Management::publish`].
    pub fn publish_bytes(&self, exchange: &str, key: &str, properties: &Value, body: &[u8]) {
        self.publish_as("base64", exchange, key, properties, &BASE64_STANDARD.encode(body));
    }

    fn publish_as(&self, encoding: &str, exchange: &str, key: &str, properties: &Value, body: &str) {
        let path = format!("/api/exchanges/%2F/{exchange}/publish");
        let message = json!({
            "properties": properties, "routing_key": key, "payload": body, "payload_encoding": encoding,
        });
        let answer = self.ask("POST", &path, Some(&message));
        assert_eq!(answer["routed"], true, "{exchange} {key}: {answer}");
    }

    /// Which RabbitMQ this is.
    pub fn version(&self) -> String {
        self.ask("GET", "/api/overview", None)["rabbitmq_version"].as_str().unwrap_or_default().to_owned()
    }

    /// Takes the first message out of a queue.
    pub fn take(&self, queue: &str) -> Option<Taken> {
        self.get(queue, "ack_requeue_false")
    }

    /// Rejects the first message of a queue, so that the broker makes a dead letter of it.
    pub fn reject(&self, queue: &str) -> Option<Taken> {
        self.get(queue, "reject_requeue_false")
    }

    /// Makes a queue that gets a copy of every message with this key.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn tap(&self, exchange: &str, key: &str, queue: &str) {
        let durable = json!({ "durable": true, "arguments": { "x-queue-type": "quorum" } });
        self.ask("PUT", &format!("/api/queues/%2F/{queue}"), Some(&durable));
        let binding = json!({ "routing_key": key });
        self.ask("POST", &format!("/api/bindings/%2F/e/{exchange}/q/{queue}"), Some(&binding));
    }

    /// Removes a queue with what is in it.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn remove(&self, queue: &str) {
        self.ask("DELETE", &format!("/api/queues/%2F/{queue}"), None);
    }

    /// Takes up to so many messages out of a queue.
    pub fn take_many(&self, queue: &str, most: u64) -> Vec<Taken> {
        self.some(queue, "ack_requeue_false", most)
    }

    /// Looks at the first messages of a queue and leaves them there, as the page's "Get messages" does.
    pub fn peek(&self, queue: &str, count: u64) -> Vec<Taken> {
        self.some(queue, "ack_requeue_true", count)
    }

    /// Empties a queue.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn purge(&self, queue: &str) {
        self.ask("DELETE", &format!("/api/queues/%2F/{queue}/contents"), None);
    }

    /// Makes a user who may do everything, or gives it another password.
    pub fn set_user(&self, name: &str, password: &str) {
        let user = json!({ "password": password, "tags": "administrator" });
        self.ask("PUT", &format!("/api/users/{name}"), Some(&user));
        let all = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        self.ask("PUT", &format!("/api/permissions/%2F/{name}"), Some(&all));
    }

    fn get(&self, queue: &str, ackmode: &str) -> Option<Taken> {
        self.some(queue, ackmode, 1).pop()
    }

    fn some(&self, queue: &str, ackmode: &str, count: u64) -> Vec<Taken> {
        let path = format!("/api/queues/%2F/{queue}/get");
        let how = json!({ "count": count, "ackmode": ackmode, "encoding": "auto" });
        let answer = self.ask("POST", &path, Some(&how));
        let messages = answer.as_array().into_iter().flatten().map(|message| {
            let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
            Taken {
                exchange: text("exchange"),
                key: text("routing_key"),
                properties: message["properties"].clone(),
                body: text("payload"),
            }
        });
        messages.collect()
    }

    /// Messages in each queue. The broker counts every few seconds.
    pub fn depths(&self) -> BTreeMap<String, u64> {
        let queues = self.queues();
        let depth = |queue: &Value| Some((queue["name"].as_str()?.to_owned(), queue["messages"].as_u64()?));
        queues.iter().filter_map(depth).collect()
    }

    /// All queues as the API shows them.
    pub fn queues(&self) -> Vec<Value> {
        self.ask("GET", "/api/queues/%2F", None).as_array().cloned().unwrap_or_default()
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let login = Some((self.user.as_str(), self.password.as_str()));
        let body = body.map(Value::to_string);
        let answer = http::request(self.server, method, path, login, body.as_deref(), PATIENCE)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body);
        serde_json::from_str(&answer.body).unwrap_or(Value::Null)
    }
}
