//! Orders to end at a named point: see `warren_drills::passing`.

use std::{fs, path::PathBuf, time::Duration};

use crate::wait::until;

/// The folder that all services of a stack look into.
#[derive(Debug)]
pub struct Points(PathBuf);

impl Points {
    /// In a new folder.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        Self(folder)
    }

    /// For the services' environment.
    pub fn folder(&self) -> &PathBuf {
        &self.0
    }

    /// Whichever process passes the point for the `nth` time from now on ends there.
    ///
    /// # Panics
    /// When the folder is gone.
    pub fn order(&self, point: &str, nth: u32) {
        let file = self.0.join(point);
        let new = self.0.join(format!("{point}.new"));
        // Whole or not at all.
        fs::write(&new, nth.to_string()).and_then(|()| fs::rename(new, file)).expect("ours");
    }

    /// Waits until the last order for this point was carried out.
    ///
    /// # Panics
    /// When it is not within `limit`.
    pub fn carried_out(&self, point: &str, limit: Duration) {
        let done = self.0.join(format!("{point}.done"));
        until(&format!("a process ends at {point}"), limit, || done.exists().then_some(()));
        fs::remove_file(done).expect("ours");
    }
}
