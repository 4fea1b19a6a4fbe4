//! Child processes that never outlive their parent.
//!
//! A child leads its own process group, is killed by the kernel when this process ends in whatever way, never writes
//! a core dump, and can be bounded in memory, CPU time and file size. Killing or dropping the handle kills the whole
//! group, so helpers that the child started go too.

mod async_child;
mod child;
mod limits;
mod pre_exec;
mod spawner;

pub use async_child::AsyncChild;
pub use child::Child;
pub use limits::Limits;

use std::io;

/// Starts `command` as a child that ends with this process. May be called from any thread.
///
/// # Errors
/// What `Command::spawn` gives, e.g. [`io::ErrorKind::NotFound`] for a missing program.
pub fn spawn(mut command: std::process::Command, limits: Limits) -> io::Result<Child> {
    pre_exec::prepare(&mut command, limits);
    spawner::run(move || command.spawn()).map(Child::new)
}

/// Like [`spawn`], for a child that a tokio runtime waits for.
///
/// # Errors
/// As [`spawn`].
///
/// # Panics
/// Outside a tokio runtime.
pub fn spawn_async(mut command: tokio::process::Command, limits: Limits) -> io::Result<AsyncChild> {
    pre_exec::prepare(command.as_std_mut(), limits);
    let runtime = tokio::runtime::Handle::current();
    spawner::run(move || {
        let _entered = runtime.enter();
        command.spawn()
    })
    .map(AsyncChild::new)
}
