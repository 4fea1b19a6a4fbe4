//! What the storage has, against what the database needs.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use warren_blob::{Blobs, Key, Prefix};
use warren_messages::{replay::Content, wire};
use warren_store::{Discrepancy, Store};

use super::away;
use crate::error::CliError;

/// Owners that are looked up at once.
const GROUP: usize = 500;
/// Missing objects that are named; how many there are is told besides.
const EXAMPLES: usize = 10;

/// The objects in the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Objects {
    /// All of them.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Nobody needs them: of ended jobs, or of uploads that were never completed. The coordinator sweeps them.
    pub orphans: u64,
}

/// Counts the objects, and finds those that should be there.
///
/// # Errors
/// When the storage or the database is away.
pub(super) async fn look(store: &Store, blobs: &Blobs) -> Result<(Objects, Vec<Discrepancy>), CliError> {
    // What is needed is read first: an object that is written meanwhile is no surprise, one that is missing is.
    let media = store.read().media_objects().await.map_err(away("the database"))?;
    let payloads = store.read().needed_payloads().await.map_err(away("the database"))?;
    let listed = blobs.list(Prefix::EVERYTHING).await.map_err(away("the storage"))?;
    let mut objects = Objects { count: listed.len() as u64, ..Objects::default() };
    objects.bytes = listed.iter().map(|object| object.size).sum();
    let sizes: BTreeMap<&str, u64> = listed.iter().map(|object| (object.name.as_str(), object.size)).collect();

    let mut missing = BTreeSet::new();
    for (key, size) in &media {
        let why = match sizes.get(key.as_str()) {
            Some(found) if i64::try_from(*found) == Ok(*size) => continue,
            Some(found) => format!("a recording of {size} bytes; {found} are there"),
            None => format!("a recording of {size} bytes is gone"),
        };
        missing.insert((key.clone(), why));
    }
    for key in payloads.iter().flat_map(|payload| keys(payload)) {
        if !sizes.contains_key(key.as_str()) {
            missing.insert((key.to_string(), "a task that is not done needs it, and it is gone".to_owned()));
        }
    }

    let recordings: BTreeSet<&str> = media.iter().map(|(key, _)| key.as_str()).collect();
    let (uploads, others): (Vec<&str>, Vec<&str>) = sizes.keys().partition(|name| name.starts_with("media/"));
    objects.orphans = uploads.iter().filter(|name| !recordings.contains(*name)).count() as u64;
    let others: Vec<Key> = others.iter().filter_map(|name| Key::parse(name).ok()).collect();
    for group in others.chunks(GROUP) {
        let owners: BTreeSet<Uuid> = group.iter().map(Key::owner).collect();
        let owners: Vec<Uuid> = owners.into_iter().collect();
        let needed = store.read().need_objects(&owners).await.map_err(away("the database"))?;
        objects.orphans += group.iter().filter(|key| !needed.contains(&key.owner())).count() as u64;
    }

    let more = missing.len().saturating_sub(EXAMPLES);
    let mut found: Vec<Discrepancy> = missing
        .into_iter()
        .take(EXAMPLES)
        .map(|(subject, why)| Discrepancy { check: "needed objects are there", subject, why })
        .collect();
    if let (Some(last), true) = (found.last_mut(), more > 0) {
        last.why = format!("{}; and {more} others", last.why);
    }
    Ok((objects, found))
}

/// The objects that a task's payload names as its input. What cannot be read names none: other checks find it.
fn keys(payload: &str) -> Vec<Key> {
    let Ok(task) = serde_json::from_str::<wire::Task>(payload) else { return Vec::new() };
    let Some(kind) = task.kind() else { return Vec::new() };
    Content::Task(kind, task).inputs().into_iter().filter_map(|key| Key::parse(key).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_names_its_input_and_what_only_looks_like_one_is_none() {
        let key = Key::pcm(Uuid::from_u128(7), 3);
        let task = format!(r#"{{"transcribe":{{"pcmKey":"{key}","model":"tiny.en"}}}}"#);
        assert_eq!(keys(&task), std::slice::from_ref(&key));
        assert!(keys(&format!(r#"{{"embed":{{"texts":{{"texts":["{key}"]}}}}}}"#)).is_empty(), "a caller's text");
        let named = format!(r#"{{"prepare":{{"mediaKey":"{}","mediaName":"{key}"}}}}"#, Key::media(Uuid::from_u128(8)));
        assert_eq!(keys(&named), [Key::media(Uuid::from_u128(8))], "a caller's file name");
        assert!(keys("no json").is_empty());
    }
}
