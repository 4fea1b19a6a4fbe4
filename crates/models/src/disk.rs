//! Files: hashing, syncing, free space, and exchanging one folder for another.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use nix::{
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
    sys::statvfs::statvfs,
};
use sha2::{Digest as _, Sha256};

use crate::ModelError;

/// Left free for everything else on the disk.
const RESERVE: u64 = 64 * 1024 * 1024;
const BLOCK: usize = 1024 * 1024;

/// Lower-case hexadecimal sha256 of a file; `seen` is told the bytes read so far.
pub(crate) fn sha256(path: &Path, mut seen: impl FnMut(u64)) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK];
    let mut done = 0;
    loop {
        let count = file.read(&mut block)?;
        if count == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&block[..count]);
        done += count as u64;
        seen(done);
    }
}

/// Fails unless `needed` bytes and a reserve are free in `folder`, which must exist.
pub(crate) fn require_space(folder: &Path, needed: u64) -> Result<(), ModelError> {
    let disk = statvfs(folder).map_err(|error| ModelError::io(folder)(error.into()))?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    if free < needed.saturating_add(RESERVE) {
        return Err(ModelError::Disk { needed: needed.saturating_add(RESERVE), free, folder: folder.to_owned() });
    }
    Ok(())
}

/// Makes a folder's own entries durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Puts `fresh` in the place of `place` in one step, so that no reader ever finds half a model. What was at `place`
/// is at `fresh` afterwards, and is removed.
pub(crate) fn publish(fresh: &Path, place: &Path) -> io::Result<()> {
    sync_folder(fresh)?;
    if place.exists() {
        match renameat2(AT_FDCWD, fresh, AT_FDCWD, place, RenameFlags::RENAME_EXCHANGE) {
            Ok(()) => {}
            // Some network file systems cannot exchange; then there is a moment without the model.
            Err(_) => {
                let aside = fresh.with_extension("replaced");
                remove(&aside)?;
                fs::rename(place, &aside)?;
                fs::rename(fresh, place)?;
                remove(&aside)?;
            }
        }
        remove(fresh)?;
    } else {
        fs::rename(fresh, place)?;
    }
    place.parent().map_or(Ok(()), sync_folder)
}

/// Removes a file or folder; one that is not there counts as removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Bytes of all files under a folder that other processes may be changing.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => folder_bytes(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_published_over_another_in_one_step() {
        let root = tempfile::tempdir().expect("a folder");
        let (fresh, place) = (root.path().join("fresh"), root.path().join("place"));
        for (folder, text) in [(&place, "old"), (&fresh, "new")] {
            fs::create_dir(folder).expect("made");
            fs::write(folder.join("file"), text).expect("written");
        }
        publish(&fresh, &place).expect("published");
        assert_eq!(fs::read_to_string(place.join("file")).expect("read"), "new");
        assert!(!fresh.exists());
    }

    #[test]
    fn too_little_space_is_reported_with_numbers() {
        let root = tempfile::tempdir().expect("a folder");
        let error = require_space(root.path(), u64::MAX / 2).expect_err("no such disk");
        assert_eq!(error.code(), warren_fault::Code::InsufficientDisk);
    }
}
