//! The code that runs in the child between fork and exec.
#![allow(unsafe_code, reason = "pre_exec is unsafe: the closure runs in a forked copy of a threaded process")]

use std::{io, os::unix::process::CommandExt as _, process::Command};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::Signal,
    },
    unistd,
};

use crate::limits::Limits;

/// Makes the child lead its own group, die with this process, dump no core and stay within `limits`.
pub(crate) fn prepare(command: &mut Command, limits: Limits) {
    command.process_group(0);
    let parent = unistd::getpid();
    let ends_with_parent = move || -> io::Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before the line above; then nobody would send the signal.
        if unistd::getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        // 1 and not 0: a core_pattern that pipes to a program ignores 0.
        setrlimit(Resource::RLIMIT_CORE, 1, 1)?;
        if let Some(bytes) = limits.address_space_bytes {
            setrlimit(Resource::RLIMIT_AS, bytes, bytes)?;
        }
        if let Some(seconds) = limits.cpu_seconds {
            // One second between SIGXCPU and SIGKILL.
            setrlimit(Resource::RLIMIT_CPU, seconds, seconds.saturating_add(1))?;
        }
        if let Some(bytes) = limits.file_bytes {
            setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed, because another thread may have held a
    // lock (the allocator's, for one) at the moment of the fork. The closure calls prctl(2), getppid(2) and
    // setrlimit(2) through wrappers that neither allocate nor lock, its errors are plain error numbers, and all it
    // captured is Copy. It runs after std changed user and group, which would have cleared the death signal.
    unsafe {
        command.pre_exec(ends_with_parent);
    }
}
