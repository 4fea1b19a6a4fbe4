//! Whether there is room for new work. What is refused here has not been read, and says when to come back; what was
//! accepted before goes on.

use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tonic::Status;
use warren_broker::Health;
use warren_fault::Code;

use crate::{
    parts::Parts,
    settings::LimitSettings,
    status::{busy, of_store, pressed},
};

impl Parts {
    /// Refuses new work that the platform cannot take now.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` while RabbitMQ takes no messages or the disk is full, `UNAVAILABLE` while a part is away.
    pub(crate) async fn admit(&self) -> Result<(), Status> {
        self.need("database", Code::StoreUnavailable)?;
        self.need("s3", Code::BlobUnavailable)?;
        room(&self.settings.limits, 0).map_err(|full| pressed(Code::InsufficientDisk, full))?;
        let health = self.broker.health().borrow().clone();
        match health {
            Health::Ready => Ok(()),
            Health::Blocked { reason } => {
                Err(pressed(Code::BrokerUnavailable, format!("RabbitMQ takes no messages: {reason}")))
            }
            // The outbox keeps what is accepted, but not for ever.
            Health::Connecting { error } => {
                let oldest = self.store.read().oldest_unsent().await.map_err(|error| of_store(&error))?;
                let age = oldest.map_or(Duration::ZERO, |oldest| self.clock.now().since(oldest));
                if age < Duration::from_secs(self.settings.limits.broker_away_s) {
                    return Ok(());
                }
                let why = error.unwrap_or_else(|| "connecting".to_owned());
                let message = format!("RabbitMQ is away, and what was accepted waits for {} s: {why}", age.as_secs());
                Err(busy(Code::BrokerUnavailable, message))
            }
        }
    }
}

/// Whether the disk of the object storage, if it is this machine's, has room for so many bytes.
///
/// # Errors
/// The arithmetic.
pub(crate) fn room(limits: &LimitSettings, bytes: u64) -> Result<(), String> {
    if limits.disk.is_empty() {
        return Ok(());
    }
    let disk = statvfs(limits.disk.as_str()).map_err(|error| format!("limits.disk: {}: {error}", limits.disk))?;
    let free = u128::from(disk.blocks_available()) * u128::from(disk.fragment_size());
    let wanted = u128::from(limits.keep_free_mb) * 1_000_000 + u128::from(bytes);
    if free >= wanted {
        return Ok(());
    }
    Err(format!(
        "the disk of {} has {} MB left, and {} MB are to stay free; make room",
        limits.disk,
        free / 1_000_000,
        wanted / 1_000_000
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_the_arithmetic() {
        let on = |disk: &str, keep_free_mb| LimitSettings { disk: disk.to_owned(), keep_free_mb, ..Default::default() };
        assert_eq!(room(&on("", u64::MAX), u64::MAX), Ok(()), "somebody else's disk");
        assert_eq!(room(&on("/", 0), 1), Ok(()));
        // It has no blocks at all.
        let full = room(&on("/proc", 256), 4_000_000).expect_err("full");
        assert_eq!(full, "the disk of /proc has 0 MB left, and 260 MB are to stay free; make room");
        assert!(room(&on("/nowhere", 1), 0).expect_err("missing").starts_with("limits.disk: /nowhere: "));
    }
}
