//! Faults made on purpose, so that tests can show what becomes of them. Nothing of it is there unless the feature
//! `armed` is on, which the tests' package turns on and the builds for images do not.
//!
//! - [`StandIn`]: a model without weights. It costs a set time and its vectors depend on the texts alone.
//! - [`held`]: memory of a device that a stranger seems to have.
//! - [`passing`]: a place in the code where the process can be made to end, as if by `kill -9`.

#[cfg(all(feature = "armed", not(debug_assertions)))]
compile_error!(
    "drills do not belong into a release; build its binaries with `-p`, without the package warren-tests \
     (to measure a test build with optimisation: --profile measured)"
);

mod points;
mod stand_in;

pub use stand_in::{Order, StandIn};

/// True in a build for tests.
pub const ARMED: bool = cfg!(feature = "armed");

/// Names the folder of orders for [`passing`].
pub const FOLDER: &str = "WARREN_DRILLS";

/// Ends this process as the kernel does when memory is short: no destructor runs, no buffer is written.
pub fn kill() {
    if ARMED {
        points::kill();
    }
}

/// A process passes this point, and ends here at once if it was ordered to.
///
/// An order is a file with the point's name in the folder [`FOLDER`], holding a number n: whichever process passes the
/// point n times while the file is there renames it to `POINT.done` and kills itself. So one order ends one process,
/// once, however often it is started again.
#[inline]
pub fn passing(point: &'static str) {
    if ARMED {
        points::passing(point);
    }
}

/// Bytes of `device` that somebody else is to have, as it seems: the number in the file `held-DEVICE` in the folder
/// [`FOLDER`]; 0 without one.
pub fn held(device: &str) -> u64 {
    if ARMED { points::held(device) } else { 0 }
}
