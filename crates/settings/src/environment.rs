//! Settings from the environment: one variable, one key.

use figment::{
    Error, Metadata, Profile, Provider,
    util::nest,
    value::{Dict, Map, Value},
};

const PREFIX: &str = "WARREN_";

/// A variable that names a key.
pub(crate) struct Variable {
    name: String,
    /// With dots, e.g. `broker.url`.
    key: String,
    value: Value,
}

/// Those among the variables of a process. Where the default is text, so is the variable, letter for letter: a
/// password may be all digits.
pub(crate) fn variables(defaults: &Value, process: impl IntoIterator<Item = (String, String)>) -> Vec<Variable> {
    let read = |(name, text): (String, String)| {
        let key = key(&name)?;
        let value = match defaults.find_ref(&key) {
            Some(Value::String(..)) => Value::from(text),
            _ => text.parse::<Value>().unwrap_or_else(|never| match never {}),
        };
        Some(Variable { name, key, value })
    };
    process.into_iter().filter_map(read).collect()
}

/// The key that a variable names. A key of a section always has `__` in it; other variables with the prefix belong to
/// the command line.
fn key(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_at_checked(PREFIX.len())?;
    let steps: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    let is_key = prefix.eq_ignore_ascii_case(PREFIX) && steps.len() > 1 && steps.iter().all(|step| !step.is_empty());
    is_key.then(|| steps.join("."))
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("variable {}", self.name))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        // The key has a dot in it, so there is a table.
        let table = nest(&self.key, self.value.clone()).into_dict().unwrap_or_default();
        Ok(Map::from([(Profile::Default, table)]))
    }
}
