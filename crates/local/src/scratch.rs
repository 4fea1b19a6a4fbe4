//! Temporary folders that vanish with the process, however it ends.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A temporary folder, removed when dropped and also when this process is killed.
///
/// A small shell holds the reading end of a pipe: it sees the end of this process as the end of its input, and
/// removes the folder.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    janitor: Child,
}

impl Scratch {
    /// Makes a folder `warren-NAME-…` that only this user can read.
    ///
    /// # Errors
    /// When the folder or the shell cannot be made.
    pub fn new(name: &str) -> io::Result<Self> {
        let path = tempfile::Builder::new()
            .prefix(&format!("warren-{name}-"))
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()?
            .keep();
        // Servers that die at the same moment may still be writing, hence the second and third look.
        let script = "cat >/dev/null; for i in 1 2 3 4 5; do rm -rf -- \"$1\" && exit; sleep 0.2; done";
        let janitor = Command::new("sh")
            .args([OsString::from("-c"), script.into(), "sh".into(), path.clone().into()])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match janitor {
            Ok(janitor) => Ok(Self { path, janitor }),
            Err(error) => {
                let _ = fs::remove_dir_all(&path);
                Err(error)
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // `wait` closes the pipe first, which is the janitor's signal.
        let _ = self.janitor.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_goes_when_dropped() {
        let scratch = Scratch::new("a b").unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
