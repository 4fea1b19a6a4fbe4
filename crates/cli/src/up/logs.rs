//! Log files of bounded size, and reading them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{UpError, folder::Folder};

/// A log is put aside when it has grown to this size, bytes.
const LARGEST: u64 = 10 << 20;
/// Logs put aside that are kept: `NAME.log.1` is the newest.
pub(super) const KEPT: u32 = 2;

/// Appends to a log file and puts it aside when it is large.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    largest: u64,
    file: File,
    size: u64,
}

impl LogWriter {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, LARGEST)
    }

    fn with_limit(path: &Path, largest: u64) -> io::Result<Self> {
        let file = File::options().create(true).append(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), largest, file, size })
    }

    /// Appends `bytes`; a line is not cut in two unless it is very long.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        if self.size >= self.largest && (bytes.ends_with(b"\n") || self.size >= 2 * self.largest) {
            self.put_aside()?;
        }
        Ok(())
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..KEPT).rev() {
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        fs::rename(&self.path, numbered(1))?;
        *self = Self::with_limit(&self.path, self.largest)?;
        Ok(())
    }
}

/// The end of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogTail {
    /// E.g. `transcription-2`, or `supervisor`.
    pub service: String,
    /// The file.
    pub path: PathBuf,
    /// Its last lines.
    pub lines: Vec<String>,
}

/// The last `lines` lines of the logs of `services`; of all when none is named.
///
/// # Errors
/// [`UpError::NoStack`] when nothing was ever started in `data`, [`UpError::Usage`] for a service without a log, naming
/// those that have one.
pub(crate) fn logs(data: &Path, services: &[String], lines: usize) -> Result<Vec<LogTail>, UpError> {
    let files = files(&Folder::of_stack(data)?, services)?;
    Ok(files.into_iter().map(|(service, path)| LogTail { service, lines: tail(&path, lines), path }).collect())
}

/// Calls `line` with service and line for everything that is written to the logs from now on, until it returns false.
///
/// # Errors
/// As [`logs`].
pub(crate) async fn follow_logs(
    data: &Path,
    services: &[String],
    mut line: impl FnMut(&str, &str) -> bool,
) -> Result<(), UpError> {
    let folder = Folder::of_stack(data)?;
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    let mut first = true;
    loop {
        // A service may start to log later.
        for (service, path) in files(&folder, services)? {
            let place = places.entry(service.clone()).or_insert_with(|| Place::start(&path, first));
            for text in place.news(&path) {
                if !line(&service, &text) {
                    return Ok(());
                }
            }
        }
        first = false;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// How far a log was read.
#[derive(Debug, Default)]
struct Place {
    file: u64,
    offset: u64,
}

impl Place {
    fn start(path: &Path, at_end: bool) -> Self {
        let known = fs::metadata(path).map(|meta| Self { file: meta.ino(), offset: meta.len() });
        if at_end { known.unwrap_or_default() } else { Self::default() }
    }

    /// Whole lines that are new.
    fn news(&mut self, path: &Path) -> Vec<String> {
        let mut read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(path)?;
            let meta = file.metadata()?;
            if meta.ino() != self.file || meta.len() < self.offset {
                *self = Self { file: meta.ino(), offset: 0 };
            }
            file.seek(SeekFrom::Start(self.offset))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            bytes.truncate(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1));
            self.offset += bytes.len() as u64;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).lines().map(str::to_owned).collect()
    }
}

/// A line of a log for people: of one in JSON, when, how bad, what, and its other fields.
pub(crate) fn plain(line: &str) -> String {
    /// Shown by themselves, or of no use to people.
    const SHOWN: [&str; 7] = ["timestamp", "level", "message", "service", "target", "trace_id", "span_id"];
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_str::<serde_json::Value>(line) else {
        return line.to_owned();
    };
    let text = |name: &str| fields.get(name).and_then(|value| value.as_str()).unwrap_or_default();
    let time = text("timestamp").chars().take(23).collect::<String>().replace('T', " ");
    let rest = fields.iter().filter(|(name, _)| !SHOWN.contains(&name.as_str()));
    let rest: Vec<_> = rest
        .map(|(name, value)| format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    format!("{time} {:<5} {} {}", text("level"), text("message"), rest.join(" ")).trim_end().to_owned()
}

fn files(folder: &Folder, services: &[String]) -> Result<Vec<(String, PathBuf)>, UpError> {
    let logs = folder.root().join("logs");
    let entries = fs::read_dir(&logs).map_err(UpError::io(format!("read {}", logs.display())))?;
    let all: BTreeMap<String, PathBuf> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.strip_suffix(".log")?.to_owned(), entry.path())))
        .collect();
    if let Some(unknown) = services.iter().find(|service| !all.contains_key(*service)) {
        let known = if all.is_empty() { "none yet".to_owned() } else { all.into_keys().collect::<Vec<_>>().join(", ") };
        return Err(UpError::Usage(format!("there is no log of `{unknown}`; there are: {known}")));
    }
    Ok(all.into_iter().filter(|(service, _)| services.is_empty() || services.contains(service)).collect())
}

/// The last lines of a file, looking at its last mebibyte; empty when there is no file.
pub(super) fn tail(path: &Path, lines: usize) -> Vec<String> {
    const WINDOW: u64 = 1 << 20;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|&line| line.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ingest.log");
        let mut log = LogWriter::with_limit(&path, 20).unwrap();
        for number in 0..12 {
            log.write(format!("line {number}\n").as_bytes()).unwrap();
        }
        assert_eq!(tail(&path, 9), Vec::<String>::new());
        assert_eq!(tail(&dir.path().join("ingest.log.1"), 9), ["line 9", "line 10", "line 11"]);
        assert_eq!(tail(&dir.path().join("ingest.log.2"), 1), ["line 8"]);
        assert!(!dir.path().join("ingest.log.3").exists());
    }

    #[test]
    fn followers_see_whole_lines_across_a_change_of_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ingest.log");
        let mut log = LogWriter::with_limit(&path, 12).unwrap();
        log.write(b"old\n").unwrap();
        let mut place = Place::start(&path, true);
        log.write(b"new\nhal").unwrap();
        assert_eq!(place.news(&path), ["new"]);
        log.write(b"f\n").unwrap();
        log.write(b"next\n").unwrap();
        assert_eq!(place.news(&path), ["next"], "what was put aside between two looks is skipped");
    }

    #[test]
    fn lines_of_services_read_well_and_others_stay() {
        let line = r#"{"timestamp":"2026-01-01T10:00:00.123456Z","level":"INFO","service":"transcription","target":"x",
            "message":"task ended","outcome":"done","busy_ms":5}"#;
        assert_eq!(plain(line), "2026-01-01 10:00:00.123 INFO  task ended busy_ms=5 outcome=done");
        assert_eq!(plain("warren-ingest: no"), "warren-ingest: no");
    }

    #[test]
    fn an_unknown_service_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        fs::write(folder.log("ingest"), "one\ntwo\n").unwrap();
        let error = logs(dir.path(), &["inges".to_owned()], 5).unwrap_err().to_string();
        assert!(error.contains("`inges`") && error.contains("there are: ingest"), "{error}");
        assert_eq!(logs(dir.path(), &[], 1).unwrap()[0].lines, ["two"]);
        fs::remove_file(folder.log("ingest")).unwrap();
        let error = logs(dir.path(), &["ingest".to_owned()], 5).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("none yet"), "{error}");
    }

    #[tokio::test]
    async fn a_folder_without_a_stack_has_no_logs() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(logs(dir.path(), &[], 1), Err(UpError::NoStack(_))));
        assert!(matches!(follow_logs(dir.path(), &[], |_, _| false).await, Err(UpError::NoStack(_))));
    }
}
