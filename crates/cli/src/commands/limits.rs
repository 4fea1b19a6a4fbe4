//! What one job may take and how long it may go on, as options.

use clap::Args;
use warren_messages::wire::JobLimits;

use crate::client::Terms;

/// Limits of one job.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// Seconds after which the job is failed, whatever it does. Default: the server's, 6 hours.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true)]
    timeout: u32,
    /// Seconds after which no more of it is begun; what is done is kept, and the job fails.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true)]
    soft_timeout: u32,
    /// MB of memory that its model, and ffmpeg, may take; at least 512.
    #[arg(long, value_name = "MB", default_value_t = 0, hide_default_value = true)]
    max_memory: u32,
    /// MB of disk that preparing a recording may take.
    #[arg(long, value_name = "MB", default_value_t = 0, hide_default_value = true)]
    max_disk: u32,
    /// Cancel it when this command is interrupted or its connection breaks, unless somebody else waits for it.
    #[arg(long)]
    attached: bool,
}

impl Limits {
    /// As they are sent.
    pub(crate) const fn terms(self) -> Terms {
        let limits = JobLimits {
            timeout_s: self.timeout,
            soft_timeout_s: self.soft_timeout,
            max_memory_mb: self.max_memory,
            max_disk_mb: self.max_disk,
        };
        Terms { limits, attached: self.attached }
    }
}
