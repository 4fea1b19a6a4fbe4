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
                if is_secret(key) { hide(value) } else { mask(value) }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        Value::String(text) => *text = without_passwords(text),
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

fn is_secret(name: &str) -> bool {
    SECRET_WORDS.iter().any(|word| name.to_ascii_lowercase().contains(word))
}

/// `scheme://user:password@host?password=…` with the passwords masked. A password may hold any character, so it ends
/// at the last `@`, and a parameter at the next `&`: where a path looks like either, more is hidden than need be, never
/// less.
fn without_passwords(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let hidden = |pair: &str| match pair.match_indices('=').find(|(at, _)| is_secret(&pair[..*at])) {
        Some((at, _)) => format!("{}={MASK}", &pair[..at]),
        None => pair.to_owned(),
    };
    let shown = rest.split('&').map(hidden).collect::<Vec<_>>().join("&");
    match rest.split_once('@').and_then(|(login, _)| login.split_once(':')) {
        Some((user, _)) if !user.contains('/') => {
            let host = shown.rfind('@').map_or("", |at| &shown[at..]);
            format!("{scheme}://{user}:{MASK}{host}")
        }
        _ => format!("{scheme}://{shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_masked() {
        for (url, shown) in [
            ("amqp://warren:s3:cr@t@127.0.0.1:5672/vhost", "amqp://warren:***@127.0.0.1:5672/vhost"),
            ("amqp://warren:s3/cr?t#@127.0.0.1:5672/vhost", "amqp://warren:***@127.0.0.1:5672/vhost"),
            ("postgres://h/d?user=u&password=hush&sslmode=on", "postgres://h/d?user=u&password=***&sslmode=on"),
            ("postgres://u:a@h/d?sslpassword=hu@sh", "postgres://u:***@h/d?sslpassword=***"),
            ("postgres://h/d?password=hu@sh=h?x", "postgres://h/d?password=***"),
            ("postgres://h:5432/d?password=hu@sh", "postgres://h:***"),
            ("amqp://u:my=secret=pw@h/v", "amqp://u:***"),
            ("sqlite:///tmp/a@b:c", "sqlite:///tmp/a@b:c"),
            ("sqlite:///tmp/x:y@z", "sqlite:///tmp/x:y@z"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("warren.sqlite", "warren.sqlite"),
        ] {
            assert_eq!(without_passwords(url), shown);
        }
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
