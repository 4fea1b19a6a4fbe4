//! Whether a model fits a device, and which smaller one would do the same.

use std::fmt;

use tonic::Status;
use warren_fault::Code;
use warren_models::{Catalogue, Model};
use warren_store::{Device, JobLimits};

use crate::status::refused;

/// The memory that a job may count on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// The device that lends most, and what that is; `None` while no coordinator has told of any.
    device: Option<(String, u64)>,
    /// The job's own limit.
    own: Option<u64>,
}

impl Room {
    /// What these devices have for a job with these limits.
    pub(crate) fn new(devices: &[Device], limits: &JobLimits) -> Self {
        let lends = |device: &Device| u64::try_from(device.memory_bytes).unwrap_or(0);
        let usable = devices.iter().filter(|device| device.max_concurrent > 0);
        let largest = usable.max_by_key(|device| lends(device));
        let own = u64::try_from(limits.max_memory_mb).unwrap_or(0) * 1_000_000;
        Self { device: largest.map(|device| (device.name.clone(), lends(device))), own: (own > 0).then_some(own) }
    }

    /// Bytes; `None`: nobody knows a limit.
    fn bytes(&self) -> Option<u64> {
        self.device.iter().map(|(_, bytes)| *bytes).chain(self.own).min()
    }

    /// True when the model's estimate fits.
    pub(crate) fn fits(&self, model: &Model) -> bool {
        self.bytes().is_none_or(|bytes| model.memory_bytes <= bytes)
    }

    /// The largest model that is smaller than this one, can do what is asked, and fits.
    pub(crate) fn next_smaller<'a>(
        &self,
        catalogue: &'a Catalogue,
        than: &Model,
        able: impl Fn(&Model) -> bool,
    ) -> Option<&'a Model> {
        let smaller = |model: &&Model| model.memory_bytes < than.memory_bytes && able(model) && self.fits(model);
        catalogue.models().iter().filter(smaller).max_by_key(|model| model.memory_bytes)
    }

    /// Refuses a model that does not fit, with the arithmetic. `instead`: what would do.
    pub(crate) fn refuse(&self, field: &str, model: &Model, instead: Option<&Model>) -> Status {
        let instead = match instead {
            Some(other) => format!(
                "use {} ({}), or set `allow_downgrade` to have that done by itself",
                other.name,
                GB(other.memory_bytes)
            ),
            None => "no model of the catalogue that can do this fits".to_owned(),
        };
        let problem = format!("`{}` needs {}, {self}; {instead}", model.name, GB(model.memory_bytes));
        refused(field, Code::OutOfMemory, problem)
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.device, self.own) {
            (Some((_, lends)), Some(own)) if own < *lends => {
                write!(f, "the job's own max_memory_mb allows {}", GB(own))
            }
            (Some((name, lends)), _) => write!(f, "the largest device, {name}, has {} for models", GB(*lends)),
            (None, Some(own)) => write!(f, "the job's own max_memory_mb allows {}", GB(own)),
            (None, None) => f.write_str("no device is known"),
        }
    }
}

/// Bytes, for people.
struct GB(u64);

impl fmt::Display for GB {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} GB", self.0 as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use warren_models::Family;

    use super::*;

    fn device(name: &str, gigabytes: i64, max_concurrent: i64) -> Device {
        Device { name: name.to_owned(), last_fence: 0, memory_bytes: gigabytes * 1_000_000_000, max_concurrent }
    }

    fn told(room: &Room, name: &str) -> String {
        let catalogue = Catalogue::builtin();
        let model = catalogue.get(name).expect("in the catalogue");
        let instead = room.next_smaller(&catalogue, model, |model| model.family == Family::Whisper);
        room.refuse("transcribe.model", model, instead).message().to_owned()
    }

    #[test]
    fn the_largest_device_decides_and_the_arithmetic_is_told() {
        let devices = [device("cpu", 2, 4), device("cuda:0", 8, 1), device("gone", 80, 0)];
        let room = Room::new(&devices, &JobLimits::default());
        let fits = |name: &str| room.fits(Catalogue::builtin().get(name).expect("in the catalogue"));
        assert_eq!(["large-v3", "turbo", "small", "minilm"].map(fits), [false, true, true, true]);
        assert_eq!(
            told(&room, "large-v3"),
            "transcribe.model: `large-v3` needs 10.0 GB, the largest device, cuda:0, has 8.0 GB for models; use \
             large-v3-turbo (6.0 GB), or set `allow_downgrade` to have that done by itself"
        );
    }

    #[test]
    fn a_jobs_own_limit_counts_where_it_is_smaller() {
        let own = JobLimits { max_memory_mb: 1_000, ..JobLimits::default() };
        let room = Room::new(&[device("cpu", 2, 4)], &own);
        let message = told(&room, "small");
        assert!(
            message.contains("needs 2.5 GB, the job's own max_memory_mb allows 1.0 GB; use base (0.9"),
            "{message}"
        );
        let room = Room::new(&[device("cpu", 2, 4)], &JobLimits { max_memory_mb: 600, ..own });
        assert!(told(&room, "base").contains("use tiny.en"));
        let room = Room::new(&[], &JobLimits { max_memory_mb: 512, ..own });
        assert!(told(&room, "tiny.en").contains("no model of the catalogue"));
    }

    #[test]
    fn nothing_is_refused_before_a_device_is_known() {
        let room = Room::new(&[], &JobLimits::default());
        assert!(Catalogue::builtin().models().iter().all(|model| room.fits(model)));
    }
}
