//! What the end-to-end suites share: a private stack of the real parts, driven through the `warren` program as a user
//! would, and real speech with its text.
//!
//! A suite is one file beside this crate, one process and one stack; its cases run one after the other.

pub mod cases;
pub mod command;
pub mod faults;
pub mod management;
pub mod memory;
pub mod processes;
pub mod recordings;
pub mod stack;
pub mod wait;
pub mod wave;

/// True in the long run (`WARREN_TEST_NIGHTLY=1`): sizes are then those of the promise, else smaller ones.
pub fn nightly() -> bool {
    std::env::var_os("WARREN_TEST_NIGHTLY").is_some_and(|value| value != "0" && !value.is_empty())
}
