//! Who calls: API keys in `authorization: Bearer …`.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Status, service::Interceptor};
use warren_settings::Secret;

/// Section `auth`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuthSettings {
    /// The keys that are accepted. Default: none, everybody on this machine is the caller `local`. A bind address
    /// outside this machine needs at least one.
    pub(crate) keys: Vec<ApiKey>,
}

/// One key and whose it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ApiKey {
    /// Jobs and media belong to a caller; several keys may belong to one, for rotation.
    pub(crate) caller: String,
    /// The key itself, at least 20 characters.
    pub(crate) key: Secret<String>,
    /// Whether it opens what shows everybody's work: dead letters, queues, workers. Default false.
    pub(crate) operator: bool,
}

/// The caller of a request, put there by [`Keys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Whose jobs and media these are.
    pub(crate) name: String,
    /// May see what is everybody's: dead letters, queues, workers. Jobs and recordings stay their caller's alone.
    pub(crate) operator: bool,
}

impl Caller {
    /// Everybody on this machine, when there are no keys.
    fn local() -> Self {
        Self { name: "local".to_owned(), operator: true }
    }

    /// Refuses callers that are no operators.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub(crate) fn must_operate(&self) -> Result<(), Status> {
        if self.operator {
            return Ok(());
        }
        Err(Status::permission_denied(
            "this shows everybody's work; it needs a key with `operator = true` in auth.keys",
        ))
    }
}

/// Checks keys. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Keys(std::sync::Arc<[(Caller, [u8; 32])]>);

impl Keys {
    /// Keeps only digests of the keys.
    pub(crate) fn new(settings: &AuthSettings) -> Self {
        let known = |key: &ApiKey| {
            let caller = Caller { name: key.caller.clone(), operator: key.operator };
            (caller, digest(key.key.expose()))
        };
        Self(settings.keys.iter().map(known).collect())
    }

    fn caller(&self, header: Option<&str>) -> Result<Caller, Status> {
        if self.0.is_empty() {
            return Ok(Caller::local());
        }
        let key = header
            .and_then(|header| header.strip_prefix("Bearer "))
            .ok_or_else(|| Status::unauthenticated("send your API key as `authorization: Bearer <key>`"))?;
        // Comparing digests takes the same time wherever two keys differ.
        let given = digest(key.trim());
        self.0
            .iter()
            .find(|(_, known)| *known == given)
            .map(|(caller, _)| caller.clone())
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
///
/// # Errors
/// `UNAUTHENTICATED` when it did not.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::unauthenticated("the caller is not known"))
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let key =
            |key: &str, operator| ApiKey { caller: "anna".to_owned(), key: Secret::new(key.to_owned()), operator };
        Keys::new(&AuthSettings { keys: vec![key("a-long-key-of-anna-1", false), key("a-long-key-of-anna-2", true)] })
    }

    #[test]
    fn both_keys_of_a_rotation_work_and_a_wrong_one_does_not() {
        for (key, operator) in [("a-long-key-of-anna-1", false), ("a-long-key-of-anna-2", true)] {
            let caller = keys().caller(Some(&format!("Bearer {key}"))).expect("known");
            assert_eq!(caller, Caller { name: "anna".to_owned(), operator });
            assert_eq!(caller.must_operate().is_ok(), operator);
        }
        for header in [None, Some("a-long-key-of-anna-1"), Some("Bearer x"), Some("Bearer ")] {
            assert_eq!(keys().caller(header).expect_err("refused").code(), tonic::Code::Unauthenticated);
        }
    }

    #[test]
    fn without_keys_everybody_is_local() {
        assert_eq!(Keys::new(&AuthSettings::default()).caller(None).expect("open"), Caller::local());
    }
}
