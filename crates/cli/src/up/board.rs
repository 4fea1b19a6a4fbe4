//! What runs at the moment: kept by the supervisor, read by every other command from `run/services.json`.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use warren_local::process::Identity;

use super::folder::{read_json, write_json};

/// One process and its history since the supervisor started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub service: String,
    /// `None` while it is down.
    pub process: Option<Identity>,
    /// Starts after the first.
    pub restarts: u32,
    /// How it ended last, when it ended by itself.
    pub last_end: Option<String>,
    /// Its exit code then, if it had one.
    #[serde(default)]
    pub last_code: Option<i32>,
    /// A part of another one, not listed for people.
    pub hidden: bool,
}

/// The supervisor's list.
#[derive(Debug)]
pub(super) struct Board {
    file: PathBuf,
    entries: Mutex<Vec<Entry>>,
}

impl Board {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, entries: Mutex::new(Vec::new()) }
    }

    /// Changes the entry of `service`, which is made if it is not there, and writes the file.
    pub(super) fn change(&self, service: &str, hidden: bool, change: impl FnOnce(&mut Entry)) {
        self.edit(|entries| {
            let at = entries.iter().position(|entry| entry.service == service).unwrap_or_else(|| {
                let service = service.to_owned();
                entries.push(Entry { service, process: None, restarts: 0, last_end: None, last_code: None, hidden });
                entries.len() - 1
            });
            change(&mut entries[at]);
        });
    }

    /// Takes `service` off the list.
    pub(super) fn remove(&self, service: &str) {
        self.edit(|entries| entries.retain(|entry| entry.service != service));
    }

    fn edit(&self, edit: impl FnOnce(&mut Vec<Entry>)) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        edit(&mut entries);
        // Without the file the stack still runs; `ps` and the next start know less.
        if let Err(error) = write_json(&self.file, &*entries) {
            eprintln!("{error}");
        }
    }
}

/// The list as it was written last; empty when there is none.
pub(super) fn read(file: &std::path::Path) -> Vec<Entry> {
    read_json(file).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_follows() {
        let dir = tempfile::tempdir().unwrap();
        let board = Board::new(dir.path().join("services.json"));
        board.change("ingest", false, |entry| entry.process = Identity::me());
        board.change("ingest", false, |entry| entry.restarts += 1);
        let entries = read(&dir.path().join("services.json"));
        assert_eq!((entries.len(), entries[0].restarts, entries[0].process), (1, 1, Identity::me()));
        board.remove("ingest");
        assert!(read(&dir.path().join("services.json")).is_empty());
    }
}
