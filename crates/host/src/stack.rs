//! Stacks deep enough for any message.

use std::{env, os::unix::process::CommandExt as _, process::Command};

/// Bytes of stack for each thread; only what is used is ever taken from the machine.
///
/// A message's headers may hold tables in tables, as deep as a frame of RabbitMQ is long: 128 KiB at six bytes a level.
/// lapin reads them by recursion on a thread that it starts itself, about 5 KiB a level in a build for tests, and what is
/// made of them is shown and dropped by recursion too. A thread without stack takes the whole process with it, and the
/// message would be handed to the next one.
const STACK: usize = 256 << 20;
/// The one way to tell the standard library about threads that others start; read once, at the first thread.
const VARIABLE: &str = "RUST_MIN_STACK";

/// Sees to it that every thread to come has [`STACK`]: the process becomes itself again, with the same pid, and the
/// variable set.
pub(crate) fn deepen() {
    let now = env::var(VARIABLE).ok().and_then(|bytes| bytes.parse::<usize>().ok());
    if now.is_some_and(|bytes| bytes >= STACK) {
        return;
    }
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let error = match env::current_exe() {
        Ok(binary) => Command::new(binary).arg0(name).args(arguments).env(VARIABLE, STACK.to_string()).exec(),
        Err(error) => error,
    };
    eprintln!("{VARIABLE}={STACK} is not set, and cannot be: {error}. A message with deep headers ends this process.");
}
