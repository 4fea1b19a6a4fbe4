//! Waiting until every part of a stack can be used.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::{
    UpError,
    board::{self, Entry},
    folder::{Folder, read_json},
    logs::{plain, tail},
    probe::Probe,
};

/// Ends after which a part that never became ready is given up.
const TRIES: u32 = 5;
/// Lines of a log that explain a failure.
const LINES: usize = 15;
/// With what a service ends that refuses its settings.
const BAD_SETTINGS: i32 = 64;

/// A part that is waited for.
pub(super) struct Awaited {
    pub name: String,
    pub probe: Probe,
}

/// Returns once all parts of this `generation` of the stack are ready. Says every 5 s what it waits for. Blocks.
///
/// # Errors
/// [`UpError::NotReady`] naming the parts, their reasons and the ends of their logs, after `timeout`, when a part
/// keeps ending, or when the supervisor gave up; [`UpError::Settings`] as soon as a service refuses its settings;
/// [`UpError::Usage`] when the supervisor refused the change.
pub(super) fn wait(
    folder: &Folder,
    parts: &[Awaited],
    generation: u64,
    timeout: Duration,
    progress: &mut dyn FnMut(&str),
) -> Result<(), UpError> {
    let start = Instant::now();
    let mut said = 0;
    let mut missing: Vec<&Awaited> = parts.iter().collect();
    let before = board::read(&folder.services());
    loop {
        let entries = board::read(&folder.services());
        let reasons = check(&mut missing, &entries);
        let applied: Option<u64> = read_json(&folder.applied());
        // A later change may have taken effect together with ours.
        if missing.is_empty() && applied.is_some_and(|applied| applied >= generation) {
            // One that was ready may have ended meanwhile.
            missing = parts.iter().collect();
            if check(&mut missing, &board::read(&folder.services())).is_empty() {
                return Ok(());
            }
        }
        if folder.live_supervisor().is_none() {
            return Err(UpError::NotReady(gave_up(folder)));
        }
        if applied.is_some_and(|applied| applied < generation) && folder.failure().exists() {
            return Err(UpError::Usage(gave_up(folder)));
        }
        if let Some(refused) = entries.iter().find(|entry| refuses_settings(entry, &before)) {
            return Err(UpError::Settings(refusal(folder, &refused.service)));
        }
        let ending = entries.iter().any(|entry| {
            let earlier = before.iter().find(|earlier| earlier.service == entry.service);
            let tries = entry.restarts.saturating_sub(earlier.map_or(0, |earlier| earlier.restarts));
            tries >= TRIES && missing.iter().any(|part| part.name == entry.service)
        });
        if ending || start.elapsed() >= timeout {
            let waited = start.elapsed().as_secs();
            return Err(UpError::NotReady(explain(folder, &missing, &reasons, &entries, waited)));
        }
        if start.elapsed().as_secs() / 5 > said {
            said = start.elapsed().as_secs() / 5;
            let names: Vec<_> = missing.iter().map(|part| part.name.as_str()).collect();
            let names = if names.is_empty() { vec!["the change to take effect"] } else { names };
            progress(&format!("waiting for {} ({} s)", names.join(", "), start.elapsed().as_secs()));
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// True for a service that is down since it refused its settings, which it did after the entries `before`.
fn refuses_settings(entry: &Entry, before: &[Entry]) -> bool {
    let earlier = before.iter().find(|earlier| earlier.service == entry.service);
    let since = earlier.is_none_or(|earlier| earlier.restarts < entry.restarts || earlier.last_code.is_none());
    entry.process.is_none() && entry.last_code == Some(BAD_SETTINGS) && since
}

/// What the service said about its settings: the last thing in its log.
fn refusal(folder: &Folder, service: &str) -> String {
    let log = folder.log(service);
    let lines = tail(&log, LINES);
    let first = lines.iter().rposition(|line| line.starts_with("warren-")).unwrap_or(0);
    format!("{service} refuses its settings: {} (its log is {})", lines[first..].join("\n"), log.display())
}

/// Leaves in `missing` what is not ready, and gives the reasons in the same order. All are asked at once.
fn check(missing: &mut Vec<&Awaited>, entries: &[Entry]) -> Vec<String> {
    let answers: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = missing
            .iter()
            .map(|part| {
                let runs = entries.iter().any(|entry| entry.service == part.name && entry.process.is_some());
                scope.spawn(move || if runs { part.probe.check() } else { Err("not running".to_owned()) })
            })
            .collect();
        asked.into_iter().map(|asked| asked.join().unwrap_or_else(|_| Err("the check failed".to_owned()))).collect()
    });
    let (left, reasons) = missing
        .iter()
        .zip(answers)
        .filter_map(|(part, answer)| Some((*part, answer.err()?)))
        .unzip::<_, _, Vec<_>, Vec<_>>();
    *missing = left;
    reasons
}

fn gave_up(folder: &Folder) -> String {
    match fs::read_to_string(folder.failure()) {
        Ok(why) => why.trim().to_owned(),
        Err(_) => {
            let log = folder.log("supervisor");
            format!("the supervisor ended; the end of {}:\n{}", log.display(), tail(&log, LINES).join("\n"))
        }
    }
}

fn explain(folder: &Folder, missing: &[&Awaited], reasons: &[String], entries: &[Entry], waited: u64) -> String {
    let mut text = format!("not ready after {waited} s:");
    for (part, reason) in missing.iter().zip(reasons) {
        text.push_str(&format!("\n  {}: {reason}", part.name));
        let entry = entries.iter().find(|entry| entry.service == part.name);
        if let Some(end) = entry.and_then(|entry| entry.last_end.as_ref()) {
            text.push_str(&format!("; it {end}"));
        }
    }
    // The log that explains most: of a part that ends again and again, else of the first that is waited for.
    let ends = |part: &&&Awaited| {
        entries
            .iter()
            .find(|entry| entry.service == part.name)
            .filter(|entry| entry.last_end.is_some())
            .map(|entry| entry.restarts)
    };
    if let Some(part) = missing.iter().rev().max_by_key(ends) {
        let log = folder.log(&part.name);
        let lines: Vec<_> = tail(&log, LINES).iter().map(|line| plain(line)).collect();
        text.push_str(&format!("\nthe end of {}:\n{}", log.display(), lines.join("\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use warren_local::process::Identity;

    use super::*;
    use crate::up::{
        board::Board,
        folder::{write_file, write_json},
    };

    const LONG: Duration = Duration::from_secs(600);

    /// A folder with a live supervisor, and a part that never gets ready.
    fn stage() -> (tempfile::TempDir, Folder, Board, [Awaited; 1]) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        write_json(&folder.supervisor(), &Identity::me()).unwrap();
        let board = Board::new(folder.services());
        let part = Awaited { name: "transcription".to_owned(), probe: Probe::Open(1) };
        (dir, folder, board, [part])
    }

    #[test]
    fn a_service_that_refuses_its_settings_is_not_waited_for() {
        let (_dir, folder, board, parts) = stage();
        let said = "warren-transcription: settings: models.hub: `x` is not an address";
        fs::write(folder.log("transcription"), format!("an earlier run\n{said}\n")).unwrap();
        let start = Instant::now();
        let over = AtomicBool::new(false);
        let error = thread::scope(|scope| {
            // As its keeper does: it is tried again and again.
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    board.change("transcription", false, |entry| {
                        (entry.restarts, entry.last_code) = (entry.restarts + 1, Some(BAD_SETTINGS));
                    });
                }
            });
            let error = wait(&folder, &parts, 1, LONG, &mut |_| ()).unwrap_err();
            over.store(true, Ordering::Relaxed);
            error
        });
        assert!(error.exit_code() == 2 && error.to_string().contains(said), "{error}");
        assert!(!error.to_string().contains("an earlier run") && start.elapsed() < Duration::from_secs(60), "{error}");
    }

    #[test]
    fn an_earlier_refusal_does_not_count() {
        let entry = |restarts, last_code| Entry {
            service: "transcription".to_owned(),
            process: None,
            restarts,
            last_end: None,
            last_code,
            hidden: false,
        };
        let refused = entry(4, Some(BAD_SETTINGS));
        assert!(refuses_settings(&refused, &[]) && refuses_settings(&refused, &[entry(4, None)]));
        assert!(!refuses_settings(&refused, std::slice::from_ref(&refused)), "its settings may be right by now");
        assert!(refuses_settings(&entry(5, Some(BAD_SETTINGS)), &[refused]));
        assert!(!refuses_settings(&entry(0, Some(1)), &[]));
    }

    #[test]
    fn a_refused_change_is_not_waited_for() {
        let (_dir, folder, _board, parts) = stage();
        write_json(&folder.applied(), &1).unwrap();
        write_file(&folder.failure(), "the stack stays as it was: because\n").unwrap();
        let error = wait(&folder, &parts, 2, LONG, &mut |_| ()).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (2, "the stack stays as it was: because"));
    }

    #[test]
    fn a_later_change_is_good_enough() {
        let (_dir, folder, _board, _) = stage();
        write_json(&folder.applied(), &3).unwrap();
        wait(&folder, &[], 2, LONG, &mut |_| ()).unwrap();
    }
}
