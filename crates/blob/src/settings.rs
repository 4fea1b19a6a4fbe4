//! The `blob` section.

use std::net::IpAddr;

use http::Uri;
use serde::{Deserialize, Serialize};
use warren_settings::{Secret, Validate};

/// Where objects are kept: any store that speaks S3.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobSettings {
    /// Address of the store, `http://HOST:PORT` or `https://HOST`. Default `http://127.0.0.1:9000`.
    pub endpoint: String,
    /// Region name used to sign requests. Default `us-east-1`; most stores accept any.
    pub region: String,
    /// The bucket that holds every object of this installation; made at start when it is missing. Default `warren`.
    pub bucket: String,
    /// Access key id. Default `warren`.
    pub access_key: String,
    /// Secret access key. No default: the store refuses an empty one.
    pub secret_key: Secret<String>,
    /// Whether the bucket is a part of the path (`http://HOST/BUCKET/KEY`) instead of the host name. Default true; set it
    /// to false for stores that only know `http://BUCKET.HOST/KEY`.
    pub path_style: bool,
}

impl Default for BlobSettings {
    fn default() -> Self {
        Self {
            endpoint: "http://127.0.0.1:9000".to_owned(),
            region: "us-east-1".to_owned(),
            bucket: "warren".to_owned(),
            access_key: "warren".to_owned(),
            secret_key: Secret::new(String::new()),
            path_style: true,
        }
    }
}

impl Validate for BlobSettings {
    fn validate(&self) -> Result<(), String> {
        let uri: Uri = self.endpoint.parse().map_err(|error| format!("blob.endpoint: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(format!("blob.endpoint: `{}` is not http://HOST:PORT or https://HOST", self.endpoint));
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        if !(3..=63).contains(&self.bucket.len()) || !self.bucket.bytes().all(plain) {
            return Err("blob.bucket: use 3 to 63 lower-case letters, digits, dots or dashes".to_owned());
        }
        if self.region.is_empty() {
            return Err("blob.region: must not be empty; `us-east-1` suits most stores".to_owned());
        }
        Ok(())
    }
}

impl BlobSettings {
    pub(crate) fn is_https(&self) -> bool {
        self.endpoint.starts_with("https:")
    }

    /// True when the store runs on this machine: a proxy named in the environment must not catch it.
    pub(crate) fn is_loopback(&self) -> bool {
        let Ok(uri) = self.endpoint.parse::<Uri>() else { return false };
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(endpoint: &str) -> BlobSettings {
        BlobSettings { endpoint: endpoint.to_owned(), ..BlobSettings::default() }
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(BlobSettings::default().validate(), Ok(()));
    }

    #[test]
    fn an_endpoint_without_scheme_is_refused_by_name() {
        for endpoint in ["127.0.0.1:9000", "ftp://host", "", "http://"] {
            assert!(at(endpoint).validate().expect_err(endpoint).contains("blob.endpoint"));
        }
    }

    #[test]
    fn a_bucket_name_that_no_store_accepts_is_refused() {
        for bucket in ["", "ab", "Upper", "under_score", "../x"] {
            let settings = BlobSettings { bucket: bucket.to_owned(), ..BlobSettings::default() };
            assert!(settings.validate().expect_err(bucket).contains("blob.bucket"));
        }
    }

    #[test]
    fn loopback_is_recognised_in_every_spelling() {
        for endpoint in ["http://127.0.0.1:9000", "http://127.8.8.8", "http://localhost:1", "https://[::1]:9000"] {
            assert!(at(endpoint).is_loopback(), "{endpoint}");
        }
        for endpoint in ["http://10.0.0.1:9000", "https://s3.example.org", "http://localhost.example.org"] {
            assert!(!at(endpoint).is_loopback(), "{endpoint}");
        }
    }

    #[test]
    fn the_secret_does_not_print() {
        let settings = BlobSettings { secret_key: Secret::new("hunter2".to_owned()), ..BlobSettings::default() };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
