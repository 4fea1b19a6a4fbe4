//! Settings as TOML that may be shown to anybody: values of secret keys and passwords in URLs are masked.

use serde::Serialize;
use toml::Value;

const MASK: &str = "***";
/// A key with one of these words in its name holds a secret.
const SECRET_WORDS: [&str; 4] = ["secret", "password", "token", "key"];

/// Renders `settings`.
///
/// # Errors
/// When a value has no TOML form.
pub(crate) fn toml<S: Serialize>(settings: &S) -> Result<String, toml::ser::Error> {
    let mut value = Value::try_from(settings)?;
    mask(&mut value);
    toml::to_string(&value)
}

fn mask(value: &mut Value) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                if SECRET_WORDS.iter().any(|word| key.contains(word)) { hide(value) } else { mask(value) }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        Value::String(text) => {
            if let Some(masked) = without_password(text) {
                *text = masked;
            }
        }
        _ => {}
    }
}

fn hide(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(hide),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| hide(value)),
        Value::String(text) if text.is_empty() => {}
        other => *other = Value::String(MASK.to_owned()),
    }
}

/// `scheme://user:password@rest` with the password masked; `None` when there is none.
fn without_password(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
    let (login, host) = authority.rsplit_once('@')?;
    let (user, _) = login.split_once(':')?;
    Some(format!("{scheme}://{user}:{MASK}@{host}{}", &rest[authority.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_masked() {
        assert_eq!(
            without_password("amqp://warren:s3:cr@t@127.0.0.1:5672/vhost").as_deref(),
            Some("amqp://warren:***@127.0.0.1:5672/vhost")
        );
        assert_eq!(without_password("sqlite:///tmp/a@b:c"), None);
        assert_eq!(without_password("http://127.0.0.1:9000"), None);
    }

    #[test]
    fn secret_keys_are_masked_wherever_they_are() {
        let mut value: Value = toml::from_str(
            "[blob]\nsecret_key = 'hush'\nbucket = 'warren'\n[auth]\nkeys = ['a', 'b']\n[store]\nurl = 'postgres://u:p@h/d'\n",
        )
        .expect("TOML");
        mask(&mut value);
        let text = toml::to_string(&value).expect("TOML");
        assert!(text.contains("bucket = \"warren\"") && text.contains("postgres://u:***@h/d"), "{text}");
        assert!(!text.contains("hush") && !text.contains("\"a\""), "{text}");
    }
}
