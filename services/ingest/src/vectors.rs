//! The vectors of recent searches, so that turning a page or asking again needs no worker.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// Searches that are remembered. Each takes a few kilobytes.
const REMEMBERED: usize = 256;

/// A vector.
pub(crate) type Vector = Arc<[f32]>;

/// Recent searches, the most recent last. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vectors(Arc<Mutex<VecDeque<Entry>>>);

#[derive(Debug)]
struct Entry {
    model: String,
    query: String,
    vector: Vector,
}

impl Vectors {
    /// The vector of `query` by `model`.
    pub(crate) fn get(&self, model: &str, query: &str) -> Option<Vector> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = entries.iter().position(|entry| entry.query == query && entry.model == model)?;
        let entry = entries.remove(place)?;
        let vector = entry.vector.clone();
        entries.push_back(entry);
        Some(vector)
    }

    /// Remembers a vector, and forgets the one that was used longest ago.
    pub(crate) fn put(&self, model: &str, query: &str, vector: Vector) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.query != query || entry.model != model);
        if entries.len() == REMEMBERED {
            entries.pop_front();
        }
        entries.push_back(Entry { model: model.to_owned(), query: query.to_owned(), vector });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_used_longest_ago_is_forgotten() {
        let vectors = Vectors::default();
        for number in 0..REMEMBERED {
            vectors.put("m", &number.to_string(), Arc::from([number as f32]));
        }
        assert!(vectors.get("m", "0").is_some());
        vectors.put("m", "new", Arc::from([1.0]));
        assert!(vectors.get("m", "0").is_some() && vectors.get("m", "1").is_none());
        assert!(vectors.get("other", "0").is_none());
    }
}
