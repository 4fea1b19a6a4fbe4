//! Section `leases` of a worker's settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a worker finds the coordinator and which device it uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseSettings {
    /// gRPC addresses of all coordinators; the worker finds the one that leads. Default `http://127.0.0.1:7071`.
    pub coordinators: Vec<String>,
    /// Name of this worker, stable over restarts, e.g. `transcription-1`. Default: service, host and process id.
    pub worker: String,
    /// Device to compute on: `cpu`, or `cuda:0` with a CUDA build; of several hosts each names its own, as `east/cpu` or
    /// `east/cuda:0`. Workers that give the same name share a device. Default `cpu`.
    pub device: String,
    /// Seconds that one forward pass may take. After that it hangs: the worker ends itself, and its tasks go to others.
    /// It must be longer than the largest model needs on this device. Default 300.
    pub longest_pass_s: u64,
    /// Seconds that a task waits for the device in its worker. After that it waits outside, longer each time and never
    /// over ten minutes, and the worker is free for other work. Default 120.
    pub wait_s: u64,
    /// File that gets one JSON line for each forward pass (`worker`, `device`, `model`, `fence`, `start_ns`, `end_ns`
    /// on the machine's monotonic clock): evidence that no two workers used a device at once. Default: none.
    pub record: Option<PathBuf>,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            coordinators: vec!["http://127.0.0.1:7071".to_owned()],
            worker: String::new(),
            device: "cpu".to_owned(),
            longest_pass_s: 300,
            wait_s: 120,
            record: None,
        }
    }
}

impl LeaseSettings {
    /// Says which key cannot be used.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.coordinators.is_empty() {
            return Err("leases.coordinators: name at least one, e.g. http://127.0.0.1:7071".to_owned());
        }
        for address in &self.coordinators {
            address_of(address).map_err(|reason| format!("leases.coordinators: `{address}`: {reason}"))?;
        }
        if self.longest_pass_s == 0 {
            return Err("leases.longest_pass_s: must be at least 1".to_owned());
        }
        if self.wait_s == 0 {
            return Err("leases.wait_s: must be at least 1".to_owned());
        }
        if self.device.is_empty() {
            return Err("leases.device: is empty; use cpu or cuda:0".to_owned());
        }
        Ok(())
    }

    /// True for a device with memory of its own, where models stay until the process ends. The processor's leases share
    /// out its time; what a model fills there is the system's to give.
    pub(crate) fn keeps_memory(&self) -> bool {
        self.local_device() != "cpu"
    }

    /// The device by its name on this host.
    pub fn local_device(&self) -> &str {
        self.device.rsplit('/').next().unwrap_or_default()
    }

    /// The configured name, or one made from service, host and process id.
    pub(crate) fn worker_name(&self, service: &str) -> String {
        if !self.worker.is_empty() {
            return self.worker.clone();
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
        format!("{service}-{host}-{}", std::process::id())
    }
}

/// An address as tonic wants it; `host:port` is taken as `http://host:port`.
pub(crate) fn address_of(text: &str) -> Result<tonic::transport::Endpoint, String> {
    let uri = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    tonic::transport::Endpoint::from_shared(uri).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_mistakes_are_named() {
        LeaseSettings::default().validate().expect("defaults");
        let none = LeaseSettings { coordinators: vec![], ..Default::default() };
        assert!(none.validate().expect_err("empty").contains("leases.coordinators"));
        let bad = LeaseSettings { coordinators: vec!["http://not an address".to_owned()], ..Default::default() };
        assert!(bad.validate().expect_err("spaces").contains("not an address"));
    }

    #[test]
    fn a_worker_without_a_name_gets_one() {
        assert!(LeaseSettings::default().worker_name("transcription").starts_with("transcription-"));
        let named = LeaseSettings { worker: "gpu-7".to_owned(), ..Default::default() };
        assert_eq!(named.worker_name("transcription"), "gpu-7");
    }
}
