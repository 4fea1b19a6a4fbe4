//! Who calls: API keys in `authorization: Bearer …`.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Status, service::Interceptor};
use warren_settings::Secret;

/// Section `auth`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSettings {
    /// The keys that are accepted. Default: none, everybody on this machine is the caller `local`. A bind address
    /// outside this machine needs at least one.
    pub keys: Vec<ApiKey>,
}

/// One key and whose it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiKey {
    /// Jobs and media belong to a caller; several keys may belong to one, for rotation.
    pub caller: String,
    /// The key itself, at least 20 characters.
    pub key: Secret<String>,
}

/// The caller of a request, put there by [`Keys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub String);

/// Checks keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keys(std::sync::Arc<[(String, [u8; 32])]>);

impl Keys {
    /// Keeps only digests of the keys.
    pub fn new(settings: &AuthSettings) -> Self {
        Self(settings.keys.iter().map(|key| (key.caller.clone(), digest(key.key.expose()))).collect())
    }

    fn caller(&self, header: Option<&str>) -> Result<Caller, Status> {
        if self.0.is_empty() {
            return Ok(Caller("local".to_owned()));
        }
        let key = header
            .and_then(|header| header.strip_prefix("Bearer "))
            .ok_or_else(|| Status::unauthenticated("send your API key as `authorization: Bearer <key>`"))?;
        // Comparing digests takes the same time wherever two keys differ.
        let given = digest(key.trim());
        self.0
            .iter()
            .find(|(_, known)| *known == given)
            .map(|(caller, _)| Caller(caller.clone()))
            .ok_or_else(|| Status::unauthenticated("this API key is not known; ask the operator for a current one"))
    }
}

impl Interceptor for Keys {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let caller = self.caller(header)?;
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

/// The caller of a request that came through [`Keys`].
pub fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or_else(|| Caller("local".to_owned()))
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let key = |caller: &str, key: &str| ApiKey { caller: caller.to_owned(), key: Secret::new(key.to_owned()) };
        Keys::new(&AuthSettings { keys: vec![key("anna", "a-long-key-of-anna-1"), key("anna", "a-long-key-of-anna-2")] })
    }

    #[test]
    fn both_keys_of_a_rotation_work_and_a_wrong_one_does_not() {
        for key in ["a-long-key-of-anna-1", "a-long-key-of-anna-2"] {
            assert_eq!(keys().caller(Some(&format!("Bearer {key}"))).expect("known"), Caller("anna".to_owned()));
        }
        for header in [None, Some("a-long-key-of-anna-1"), Some("Bearer x"), Some("Bearer ")] {
            assert_eq!(keys().caller(header).expect_err("refused").code(), tonic::Code::Unauthenticated);
        }
    }

    #[test]
    fn without_keys_everybody_is_local() {
        assert_eq!(Keys::new(&AuthSettings::default()).caller(None).expect("open"), Caller("local".to_owned()));
    }
}
