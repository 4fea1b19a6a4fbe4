//! Parts that run elsewhere and are named in the environment, with the same variables that the services read.

use serde::{Deserialize, Serialize};

/// A broker, a database and an S3 server to be used instead of private ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct External {
    /// From `WARREN_BROKER__URL`.
    pub broker: Option<ExternalBroker>,
    /// `WARREN_STORE__URL`.
    pub store_url: Option<String>,
    /// From `WARREN_BLOB__ENDPOINT`.
    pub blob: Option<ExternalBlob>,
}

/// A broker elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExternalBroker {
    /// `WARREN_BROKER__URL`.
    pub url: String,
    /// `WARREN_BROKER__MANAGEMENT_URL`; may be empty.
    pub management_url: String,
}

/// An S3 server elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExternalBlob {
    /// `WARREN_BLOB__ENDPOINT`.
    pub endpoint: String,
    /// `WARREN_BLOB__BUCKET`.
    pub bucket: String,
    /// `WARREN_BLOB__ACCESS_KEY`.
    pub access_key: String,
    /// `WARREN_BLOB__SECRET_KEY`.
    pub secret_key: String,
}

impl External {
    /// Reads this process's environment.
    pub(crate) fn from_env() -> Self {
        Self::read(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name| variable(name).unwrap_or_default();
        Self {
            broker: variable("WARREN_BROKER__URL")
                .map(|url| ExternalBroker { url, management_url: text("WARREN_BROKER__MANAGEMENT_URL") }),
            store_url: variable("WARREN_STORE__URL"),
            blob: variable("WARREN_BLOB__ENDPOINT").map(|endpoint| ExternalBlob {
                endpoint,
                bucket: variable("WARREN_BLOB__BUCKET").unwrap_or_else(|| "warren".to_owned()),
                access_key: text("WARREN_BLOB__ACCESS_KEY"),
                secret_key: text("WARREN_BLOB__SECRET_KEY"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_private() {
        assert_eq!(External::read(|_| None), External::default());
        let external = External::read(|name| (name == "WARREN_BROKER__URL").then(|| "amqp://elsewhere".to_owned()));
        assert_eq!(external.broker.map(|broker| broker.url).as_deref(), Some("amqp://elsewhere"));
        assert_eq!(external.blob, None);
    }
}
