//! Waiting for something to become true.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Looks again and again until `look` finds it.
///
/// # Panics
/// After `limit`, saying what did not come.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "{what}: not within {} s", limit.as_secs());
        thread::sleep(LOOK);
    }
}

/// Looks on for all of `span`, and returns early only with what `look` finds.
pub fn during<T>(span: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Some(found) = look() {
            return Some(found);
        }
        thread::sleep(LOOK);
    }
    None
}
