//! One job's story: what every service of a stack wrote about it, in order of time.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use super::{
    UpError,
    logs::{LogTail, logs},
};

/// What to look for in log lines: the job, and the tasks that are known to be its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Story {
    job: String,
    tasks: BTreeSet<String>,
}

impl Story {
    /// Of this job.
    pub(crate) fn of(job: &str) -> Self {
        Self { job: job.to_owned(), tasks: BTreeSet::new() }
    }

    /// True when the line belongs to the story. Lines that name the job make its tasks known.
    pub(crate) fn tells(&mut self, line: &str) -> bool {
        if line.contains(&self.job) {
            if let Some(task) =
                serde_json::from_str::<Value>(line).ok().as_ref().and_then(|line| line["task.id"].as_str())
            {
                self.tasks.insert(task.to_owned());
            }
            return true;
        }
        self.tasks.iter().any(|task| line.contains(task.as_str()))
    }
}

/// The lines about a job, each with the service that wrote it, oldest first; those put aside are looked through, too.
///
/// # Errors
/// [`UpError::NoStack`] when nothing was ever started in `data`, [`UpError::Usage`] for a service without a log.
pub(crate) fn story(data: &Path, services: &[String], story: &mut Story) -> Result<Vec<(String, String)>, UpError> {
    let all: Vec<(String, String)> = logs(data, services, 0)?.iter().flat_map(lines).collect();
    // A line that names only the task may come from another service than the one that names both.
    for (_, line) in &all {
        story.tells(line);
    }
    let mut told: Vec<_> = all.into_iter().filter(|(_, line)| story.tells(line)).collect();
    told.sort_by_cached_key(|(_, line)| timestamp(line));
    Ok(told)
}

fn lines(log: &LogTail) -> Vec<(String, String)> {
    let aside = (1..=super::logs::KEPT).rev().map(|number| {
        let mut path = log.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path
    });
    let texts = aside.chain([log.path.clone().into_os_string()]).filter_map(|path| fs::read(path).ok());
    texts
        .flat_map(|bytes| String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect::<Vec<_>>())
        .map(|line| (log.service.clone(), line))
        .collect()
}

/// When a line was written, as RFC 3339 in UTC, which sorts as text. In logs that are not JSON it is the first word.
fn timestamp(line: &str) -> String {
    match serde_json::from_str::<Value>(line) {
        Ok(line) => line["timestamp"].as_str().unwrap_or_default().to_owned(),
        Err(_) => line.split_whitespace().next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::up::folder::Folder;

    #[test]
    fn a_story_is_told_by_all_services_in_order_of_time() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        let line = |at: u32, what: &str, fields: Value| {
            let mut line = json!({ "timestamp": format!("2026-01-01T00:00:{at:02}.000000Z"), "message": what });
            line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            format!("{line}\n")
        };
        let worker = line(3, "third", json!({ "task.id": "task_1", "job.id": "job_1" }))
            + &line(4, "other", json!({ "task.id": "task_2", "job.id": "job_2" }));
        fs::write(folder.log("transcription"), worker).unwrap();
        let mut aside = folder.log("coordinator").into_os_string();
        aside.push(".1");
        fs::write(aside, line(1, "first", json!({ "job.id": "job_1" }))).unwrap();
        fs::write(folder.log("coordinator"), line(2, "second", json!({ "task.id": "task_1" })) + "not JSON\n").unwrap();
        let told = story(dir.path(), &[], &mut Story::of("job_1")).unwrap();
        let told: Vec<_> = told
            .iter()
            .map(|(service, line)| {
                let line: Value = serde_json::from_str(line).unwrap();
                format!("{service} {}", line["message"].as_str().unwrap())
            })
            .collect();
        assert_eq!(told, ["coordinator first", "coordinator second", "transcription third"]);
    }
}
