//! The SDK client: timeouts, retries, and no proxy for loopback.

use std::time::Duration;

use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
};
use aws_smithy_http_client::{
    Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};

use crate::BlobSettings;

/// A part of 8 MiB must get through in one attempt on a line of 1 Mbit/s.
const ATTEMPT: Duration = Duration::from_secs(75);
const CONNECT: Duration = Duration::from_secs(3);
const READ: Duration = Duration::from_secs(30);
/// First try included. Longer trouble is for the caller, whose work it delays.
const ATTEMPTS: u32 = 4;

pub(crate) fn client(settings: &BlobSettings) -> Client {
    let https = settings.is_https();
    let proxy = if settings.is_loopback() { ProxyConfig::disabled() } else { ProxyConfig::from_env() };
    let http_client = aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        let connector = connector.proxy_config(proxy.clone());
        if https { connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).build() } else { connector.build_http() }
    });
    let credentials = Credentials::new(&settings.access_key, settings.secret_key.expose(), None, None, "settings");
    let config = Builder::new()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http_client)
        .endpoint_url(&settings.endpoint)
        .region(Region::new(settings.region.clone()))
        .credentials_provider(credentials)
        .force_path_style(settings.path_style)
        .retry_config(
            RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(Duration::from_millis(200)),
        )
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT)
                .read_timeout(READ)
                .operation_attempt_timeout(ATTEMPT)
                .build(),
        )
        // Not every store knows the newer checksum trailers; sha256 is checked here instead.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}
