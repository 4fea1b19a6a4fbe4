//! Settings section `[store]`.

use serde::{Deserialize, Serialize};
use warren_settings::{Secret, Validate};

/// Where the database is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSettings {
    /// `sqlite:FILE` for one host, or `postgres://user:password@host/database`. The folder of a SQLite file must
    /// exist. Default `sqlite:warren.sqlite`, in the folder that the process was started in.
    pub url: Secret<String>,
    /// Most connections of this process: all of them on PostgreSQL, the readers on SQLite, which has one writer
    /// besides. Default 8. Raise it when statements wait for a connection, and keep the sum over all processes under
    /// PostgreSQL's `max_connections`.
    pub max_connections: u32,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { url: Secret::new("sqlite:warren.sqlite".to_owned()), max_connections: 8 }
    }
}

impl StoreSettings {
    /// The defaults with another database.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: Secret::new(url.into()), ..Self::default() }
    }
}

impl Validate for StoreSettings {
    fn validate(&self) -> Result<(), String> {
        let url = self.url.expose();
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err("store.url: must start with sqlite: or postgres:".to_owned());
        }
        if self.max_connections == 0 {
            return Err("store.max_connections: must be at least 1".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_others_are_named() {
        assert_eq!(StoreSettings::default().validate(), Ok(()));
        let error = StoreSettings::at("mysql://somewhere").validate().unwrap_err();
        assert!(error.starts_with("store.url"), "{error}");
        let none = StoreSettings { max_connections: 0, ..StoreSettings::default() };
        assert!(none.validate().unwrap_err().starts_with("store.max_connections"));
    }
}
