//! How to reach the broker.

use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};
use serde::{Deserialize, Serialize};
use warren_settings::{Secret, Validate};

/// The section `broker`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerSettings {
    /// `amqp://user:password@host:port/vhost`; `%2f` is the default vhost.
    pub url: Secret<String>,
    /// `http://host:port` of the management API, without user and password: those of `url` are used. Empty: not used.
    pub management_url: String,
    /// Seconds between heartbeats; a silent broker is noticed after two.
    pub heartbeat_s: u16,
    /// Seconds after which a publish that nobody confirmed counts as unknown.
    pub confirm_timeout_s: u64,
    /// Seconds that messages in hand may take to finish when the process stops. No key of its own: see
    /// [`BrokerSettings::within`].
    #[serde(skip)]
    pub drain_s: u64,
    /// Most publishes in flight.
    pub publishes_in_flight: usize,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            url: Secret::new("amqp://guest:guest@127.0.0.1:5672/%2f".to_owned()),
            management_url: "http://127.0.0.1:15672".to_owned(),
            heartbeat_s: 10,
            confirm_timeout_s: 15,
            drain_s: 25,
            publishes_in_flight: 256,
        }
    }
}

impl BrokerSettings {
    /// The same settings for a process that ends `grace_s` seconds after it was asked to: messages in hand must be
    /// settled a little before, so that what is left can still be closed.
    #[must_use]
    pub fn within(&self, grace_s: u64) -> Self {
        Self { drain_s: grace_s.saturating_sub(5).max(grace_s / 2), ..self.clone() }
    }

    pub(crate) fn uri(&self) -> Result<AMQPUri, String> {
        // The parser's own error may quote the password.
        let mut uri: AMQPUri = self
            .url
            .expose()
            .parse()
            .map_err(|_| "broker.url: is not of the form amqp://user:password@host:port/vhost".to_owned())?;
        uri.query.heartbeat = Some(self.heartbeat_s);
        uri.query.connection_timeout = Some(10_000);
        Ok(uri)
    }

    pub(crate) fn confirm_timeout(&self) -> Duration {
        Duration::from_secs(self.confirm_timeout_s)
    }

    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_s)
    }
}

impl Validate for BrokerSettings {
    fn validate(&self) -> Result<(), String> {
        let uri = self.uri()?;
        if uri.scheme == AMQPScheme::AMQP && uri.authority.host.is_empty() {
            return Err("broker.url: names no host".to_owned());
        }
        if !self.management_url.is_empty() {
            let rest = self
                .management_url
                .strip_prefix("http://")
                .ok_or("broker.management_url: must start with http:// (https is not supported)")?;
            if rest.contains('@') {
                return Err("broker.management_url: leave user and password out; those of broker.url are used".into());
            }
        }
        if self.heartbeat_s == 0 {
            return Err("broker.heartbeat_s: must be at least 1; without it a dead broker is never noticed".to_owned());
        }
        if self.confirm_timeout_s == 0 {
            return Err("broker.confirm_timeout_s: must be at least 1".to_owned());
        }
        if !(1..=1000).contains(&self.publishes_in_flight) {
            return Err("broker.publishes_in_flight: must be 1 to 1000".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(BrokerSettings::default().validate(), Ok(()));
    }

    #[test]
    fn messages_are_settled_before_the_process_ends() {
        let settings = BrokerSettings::default();
        for (grace_s, drain_s) in [(30, 25), (90, 85), (6, 3), (1, 0)] {
            assert_eq!(settings.within(grace_s).drain_s, drain_s);
        }
        assert_eq!(settings.within(30).drain_s, settings.drain_s, "the default of both");
    }

    #[test]
    fn a_bad_url_is_named_without_its_password() {
        let settings = BrokerSettings { url: Secret::new("rabbit://u:hunter2@h".to_owned()), ..Default::default() };
        let error = settings.validate().expect_err("not amqp");
        assert!(error.contains("broker.url") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_management_url_carries_no_password() {
        let settings =
            BrokerSettings { management_url: "http://u:hunter2@127.0.0.1:1".to_owned(), ..Default::default() };
        let error = settings.validate().expect_err("has a password");
        assert!(error.contains("broker.management_url") && !error.contains("hunter2"), "{error}");
    }
}
