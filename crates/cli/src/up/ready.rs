//! Waiting until every part of a stack can be used.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::{
    UpError,
    board::{self, Entry},
    folder::{Folder, read_json},
    logs::tail,
    probe::Probe,
};

/// Ends after which a part that never became ready is given up.
const TRIES: u32 = 5;
/// Lines of a log that explain a failure.
const LINES: usize = 15;

/// A part that is waited for.
pub(super) struct Awaited {
    pub name: String,
    pub probe: Probe,
}

/// Returns once all parts of this `generation` of the stack are ready. Says every 5 s what it waits for. Blocks.
///
/// # Errors
/// [`UpError::NotReady`] naming the parts, their reasons and the ends of their logs, after `timeout`, when a part
/// keeps ending, or when the supervisor gave up.
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
        if missing.is_empty() && read_json(&folder.applied()) == Some(generation) {
            // One that was ready may have ended meanwhile.
            missing = parts.iter().collect();
            if check(&mut missing, &board::read(&folder.services())).is_empty() {
                return Ok(());
            }
        }
        if folder.live_supervisor().is_none() {
            return Err(UpError::NotReady(gave_up(folder)));
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
        text.push_str(&format!("\nthe end of {}:\n{}", log.display(), tail(&log, LINES).join("\n")));
    }
    text
}
