//! What a child may use at most.

/// Bounds that the kernel enforces; `None` leaves the parent's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Address space, bytes (`RLIMIT_AS`). Allocations beyond it fail inside the child.
    pub address_space_bytes: Option<u64>,
    /// CPU time of the process, seconds (`RLIMIT_CPU`). The child is killed beyond it.
    pub cpu_seconds: Option<u64>,
    /// Size of any one file it writes, bytes (`RLIMIT_FSIZE`). Pipes are not bounded by it.
    pub file_bytes: Option<u64>,
}

impl Limits {
    /// No bounds beyond the parent's own.
    pub const NONE: Self = Self { address_space_bytes: None, cpu_seconds: None, file_bytes: None };
}
