//! The settings of ingest. Every field has a documented default; see `--print-settings`.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use warren_blob::BlobSettings;
use warren_broker::BrokerSettings;
use warren_host::{DrainSettings, HttpSettings, ServiceSettings, ensure_loopback_or_auth};
use warren_jobs::plan::MAX_TEXTS_BYTES;
use warren_models::{Catalogue, Family};
use warren_settings::Validate;
use warren_store::StoreSettings;
use warren_telemetry::TelemetrySettings;

use crate::auth::AuthSettings;

/// All sections.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Health and metrics.
    pub(crate) http: HttpSettings,
    /// Logs, traces.
    pub(crate) telemetry: TelemetrySettings,
    /// What happens on SIGTERM.
    pub(crate) drain: DrainSettings,
    /// RabbitMQ.
    pub(crate) broker: BrokerSettings,
    /// The database.
    pub(crate) store: StoreSettings,
    /// Object storage.
    pub(crate) blob: BlobSettings,
    /// The door for callers.
    pub(crate) grpc: GrpcSettings,
    /// Who may call.
    pub(crate) auth: AuthSettings,
    /// What is refused.
    pub(crate) limits: LimitSettings,
    /// What is used when a caller names nothing.
    pub(crate) defaults: DefaultSettings,
}

/// Section `grpc`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GrpcSettings {
    /// Address and port. Default 127.0.0.1:7070. Another machine can reach it only with `auth.keys` set.
    pub(crate) bind: SocketAddr,
}

impl Default for GrpcSettings {
    fn default() -> Self {
        Self { bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)) }
    }
}

/// Section `limits`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitSettings {
    /// Largest recording in bytes. Default 8 GiB.
    pub(crate) upload_bytes: u64,
    /// Longest recording in seconds of sound, where its first bytes tell; of others the workers find out. Default 172 800
    /// (48 hours), as in the workers' `prepare.max_seconds`.
    pub(crate) audio_s: u32,
    /// Uploads that run at once; others wait. Each takes up to 16 MiB of memory. Default 16.
    pub(crate) uploads: usize,
    /// Of them, those of one caller; its others wait. Default 8: as many as `warren transcribe` sends.
    pub(crate) uploads_per_caller: usize,
    /// Bytes a second that a caller has to send on average, once a minute has passed. Default 8 192.
    pub(crate) upload_bytes_per_s: u64,
    /// Most texts in one embed job. Default 100 000.
    pub(crate) texts: usize,
    /// Most bytes of one text. Default 1 MiB.
    pub(crate) text_bytes: usize,
    /// Seconds that a caller may ask a job to run. Default 172 800 (two days).
    pub(crate) timeout_s: u32,
    /// Seconds that accepted jobs may wait for RabbitMQ to come back; then new ones are refused until it is there. Default
    /// 30.
    pub(crate) broker_away_s: u64,
    /// A folder on the disk that holds the objects, where that is this machine's: new work is refused when it fills.
    /// Default: none, the object storage looks after itself. `warren up` sets it for its own.
    pub(crate) disk: String,
    /// MB of it that stay free, for the work that runs. Default 256.
    pub(crate) keep_free_mb: u64,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            upload_bytes: 8 << 30,
            audio_s: 172_800,
            uploads: 16,
            uploads_per_caller: 8,
            upload_bytes_per_s: 8 << 10,
            texts: 100_000,
            text_bytes: 1 << 20,
            timeout_s: 172_800,
            broker_away_s: 30,
            disk: String::new(),
            keep_free_mb: 256,
        }
    }
}

/// Section `defaults`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DefaultSettings {
    /// Speech model. Default `base`: it knows about a hundred languages.
    pub(crate) speech_model: String,
    /// Embedding model. Default `all-MiniLM-L6-v2`.
    pub(crate) embedding_model: String,
}

impl Default for DefaultSettings {
    fn default() -> Self {
        Self { speech_model: Family::Whisper.usual().to_owned(), embedding_model: Family::Bert.usual().to_owned() }
    }
}

impl DefaultSettings {
    fn check(&self) -> Result<(), String> {
        let catalogue = Catalogue::builtin();
        for (field, name, family) in [
            ("speech_model", &self.speech_model, Family::Whisper),
            ("embedding_model", &self.embedding_model, Family::Bert),
        ] {
            let model = catalogue.get(name).map_err(|error| format!("defaults.{field}: {error}"))?;
            if model.family != family {
                return Err(format!("defaults.{field}: `{name}` is a model of another kind"));
            }
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http: HttpSettings::on(HttpSettings::INGEST),
            telemetry: TelemetrySettings::default(),
            drain: DrainSettings::default(),
            broker: BrokerSettings::default(),
            store: StoreSettings::default(),
            blob: BlobSettings::default(),
            grpc: GrpcSettings::default(),
            auth: AuthSettings::default(),
            limits: LimitSettings::default(),
            defaults: DefaultSettings::default(),
        }
    }
}

impl Validate for Settings {
    fn validate(&self) -> Result<(), String> {
        ensure_loopback_or_auth("grpc.bind", self.grpc.bind, !self.auth.keys.is_empty())?;
        self.broker.validate()?;
        self.store.validate()?;
        self.blob.validate()?;
        if self.limits.uploads == 0 {
            return Err("limits.uploads: must be at least 1".to_owned());
        }
        if self.limits.uploads_per_caller == 0 {
            return Err("limits.uploads_per_caller: must be at least 1".to_owned());
        }
        if self.limits.text_bytes > MAX_TEXTS_BYTES {
            return Err(format!(
                "limits.text_bytes: must be at most {MAX_TEXTS_BYTES}, as much as a whole job may have"
            ));
        }
        self.defaults.check()?;
        for (index, key) in self.auth.keys.iter().enumerate() {
            if key.caller.is_empty() || key.key.expose().len() < 20 {
                return Err(format!("auth.keys[{index}]: needs a `caller` and a `key` of at least 20 characters"));
            }
        }
        Ok(())
    }
}

impl ServiceSettings for Settings {
    const ABOUT: &'static str =
        "The front door: takes recordings and texts in, submits jobs, answers for them, searches.";

    fn http(&self) -> &HttpSettings {
        &self.http
    }

    fn telemetry(&self) -> &TelemetrySettings {
        &self.telemetry
    }

    fn drain(&self) -> &DrainSettings {
        &self.drain
    }
}

#[cfg(test)]
mod tests {
    use warren_settings::{
        Secret,
        testing::{assert_defaults, assert_refused},
    };

    use super::*;
    use crate::auth::ApiKey;

    #[test]
    fn defaults_are_valid_and_what_is_wrong_is_named() {
        assert_defaults::<Settings>();
        type Spoil = fn(&mut Settings);
        let wrong: [(&str, Spoil); 7] = [
            ("grpc.bind", |settings| settings.grpc.bind = ([0, 0, 0, 0], 7070).into()),
            ("auth.keys[0]", |settings| {
                let key = Secret::new("short".to_owned());
                settings.auth.keys = vec![ApiKey { caller: "anna".to_owned(), key, operator: false }];
            }),
            ("limits.uploads", |settings| settings.limits.uploads = 0),
            ("limits.uploads_per_caller", |settings| settings.limits.uploads_per_caller = 0),
            ("limits.text_bytes", |settings| settings.limits.text_bytes = MAX_TEXTS_BYTES + 1),
            ("defaults.speech_model", |settings| settings.defaults.speech_model = "huge".to_owned()),
            ("defaults.embedding_model", |settings| settings.defaults.embedding_model = "base".to_owned()),
        ];
        for (field, spoil) in wrong {
            assert_refused(field, spoil);
        }
    }
}
