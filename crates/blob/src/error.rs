//! What can go wrong with objects, and what that means for the work in hand.

use std::io;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use warren_fault::{Code, Fault};

use crate::Key;

/// An object could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The object is not there.
    #[error("object {0} does not exist")]
    Missing(Key),
    /// The store is out of reach, refuses the login, or fails inside.
    #[error("object storage: {0}")]
    Unavailable(String),
    /// The bytes are not the ones that were stored.
    #[error("object {key}: {reason}")]
    Damaged {
        /// The object.
        key: Key,
        /// What differs.
        reason: String,
    },
    /// More bytes than the limit allows.
    #[error("object {key} has more than {limit} bytes")]
    TooLarge {
        /// The object.
        key: Key,
        /// The limit, bytes.
        limit: u64,
    },
    /// A range that lies outside the object.
    #[error("object {key} has no bytes at {first}")]
    OutOfRange {
        /// The object.
        key: Key,
        /// First byte asked for.
        first: u64,
    },
    /// The stream to be stored failed; nothing was stored.
    #[error("the upload broke off: {0}")]
    Source(String),
}

impl BlobError {
    /// What the failure means for the work in hand.
    pub fn fault(&self) -> Fault {
        let message = self.to_string();
        match self {
            Self::Missing(_) | Self::OutOfRange { .. } => Fault::permanent(Code::BlobMissing, message),
            Self::Unavailable(_) => Fault::retry_later(Code::BlobUnavailable, message),
            Self::Damaged { .. } => Fault::retryable(Code::BlobDamaged, message),
            Self::TooLarge { .. } => Fault::permanent(Code::InputTooLarge, message),
            Self::Source(_) => Fault::retryable(Code::InputInvalid, message),
        }
    }

    /// The blob error behind an I/O error of a [`crate::BlobReader`], if there is one.
    pub fn behind(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// A failed request about `key`.
    pub(crate) fn about<E, R>(key: &Key, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + 'static,
        R: 'static,
        SdkError<E, R>: std::error::Error + HttpStatus,
    {
        match (error.status(), error.as_service_error().and_then(ProvideErrorMetadata::code)) {
            (Some(404), code) if code != Some("NoSuchBucket") => Self::Missing(key.clone()),
            _ => Self::unavailable(error),
        }
    }

    /// A failed request about no object in particular.
    pub(crate) fn unavailable<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + 'static,
        R: 'static,
        SdkError<E, R>: std::error::Error + HttpStatus,
    {
        let said = error.as_service_error();
        let code = said.and_then(ProvideErrorMetadata::code).unwrap_or_default();
        let hint = match (error.status(), code) {
            (_, "NoSuchBucket") => "the bucket named in blob.bucket does not exist",
            (Some(401 | 403), _) => "it refuses blob.access_key and blob.secret_key",
            (Some(status), _) if status >= 500 => "it failed inside",
            (Some(_), _) => "it refused the request",
            (None, _) => "no answer from blob.endpoint",
        };
        Self::Unavailable(format!("{hint} ({})", chain(error)))
    }

    /// Wraps the error for the traits of `std::io`.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Missing(_) => io::ErrorKind::NotFound,
            Self::Unavailable(_) => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

/// The HTTP status that came with a failure, if any.
pub(crate) trait HttpStatus {
    /// 404, 503, …
    fn status(&self) -> Option<u16>;
}

impl<E> HttpStatus for SdkError<E, aws_sdk_s3::config::http::HttpResponse> {
    fn status(&self) -> Option<u16> {
        self.raw_response().map(|response| response.status().as_u16())
    }
}

/// The SDK's errors say nothing at the top level; the reason is further down.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn trouble_of_the_store_spends_no_attempt() {
        assert!(matches!(BlobError::Unavailable("away".to_owned()).fault(), Fault::RetryLater { .. }));
        assert!(matches!(BlobError::Missing(Key::media(Uuid::nil())).fault(), Fault::Permanent(_)));
    }

    #[test]
    fn an_io_error_still_says_which_blob_error_it_was() {
        let error = BlobError::Missing(Key::media(Uuid::nil())).into_io();
        assert!(matches!(BlobError::behind(&error), Some(BlobError::Missing(_))));
        assert!(BlobError::behind(&io::Error::other("else")).is_none());
    }
}
