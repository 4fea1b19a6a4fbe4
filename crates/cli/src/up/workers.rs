//! The kinds of worker that a stack runs, as people name them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A kind of worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WorkerKind {
    /// Speech to text.
    Transcription,
    /// Texts to vectors.
    BatchEmbedding,
}

impl WorkerKind {
    /// All kinds, in the order in which they are listed.
    pub(crate) const ALL: [Self; 2] = [Self::Transcription, Self::BatchEmbedding];

    /// The service's name; its binary is `warren-NAME`.
    pub(crate) const fn service(self) -> &'static str {
        match self {
            Self::Transcription => "transcription",
            Self::BatchEmbedding => "batch-embedding",
        }
    }
}

impl fmt::Display for WorkerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.service())
    }
}

impl FromStr for WorkerKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "transcription" | "transcribe" => Ok(Self::Transcription),
            "batch-embedding" | "embedding" | "embed" => Ok(Self::BatchEmbedding),
            _ => Err(format!("no kind of worker is called `{name}`; use transcription or batch-embedding")),
        }
    }
}

/// Reads `KIND=N[,KIND=N…]`, e.g. `transcription=2,embed=1`.
///
/// # Errors
/// A sentence that names the part at fault.
pub(crate) fn parse_workers(text: &str) -> Result<BTreeMap<WorkerKind, u16>, String> {
    let mut workers = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (kind, count) = part.split_once('=').ok_or_else(|| format!("`{part}` is not of the form KIND=N"))?;
        let count: u16 = count.parse().map_err(|_| format!("`{part}`: `{count}` is not a number of workers"))?;
        if count > 64 {
            return Err(format!("`{part}`: at most 64 workers of a kind"));
        }
        workers.insert(kind.parse()?, count);
    }
    Ok(workers)
}

/// The name of the `number`th instance of a service, counting from 1: `coordinator`, `coordinator-2`, …
pub(super) fn instance(service: &str, number: u16) -> String {
    if number == 1 { service.to_owned() } else { format!("{service}-{number}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_short_names() {
        let workers = parse_workers("transcribe=2, embed=1").unwrap();
        assert_eq!(workers, BTreeMap::from([(WorkerKind::Transcription, 2), (WorkerKind::BatchEmbedding, 1)]));
        assert!(parse_workers("").unwrap().is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [("speech=1", "speech"), ("embed", "embed"), ("embed=-1", "-1"), ("embed=900", "64")] {
            let error = parse_workers(text).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn the_first_instance_has_no_number() {
        assert_eq!(instance("coordinator", 1), "coordinator");
        assert_eq!(instance("coordinator", 3), "coordinator-3");
    }
}
