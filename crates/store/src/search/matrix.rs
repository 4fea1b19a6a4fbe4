//! Vectors in memory, searched exactly. 100 000 vectors of 384 values take 154 MB and about 12 ms a query.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
};

use crate::{StoreError, results::from_bytes};

/// All vectors of one model, row after row.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    generation: i64,
    /// Everything up to this version of the archive has been read.
    version: i64,
    /// Version and id of the last row read, while reading.
    last: (i64, i64),
    dim: usize,
    ids: Vec<i64>,
    /// Whose each row is, as a place in `callers`.
    owners: Vec<u32>,
    callers: Vec<String>,
    rows: HashMap<i64, usize>,
    values: Vec<f32>,
}

/// Ordered so that the worst of the heap is on top.
#[derive(Debug, PartialEq)]
struct Candidate {
    score: f32,
    id: i64,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Matrix {
    pub(super) fn is_at(&self, generation: i64, version: i64) -> bool {
        self.generation == generation && self.version >= version
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// Starts over when the generation is another one.
    pub(super) fn enter(&mut self, generation: i64) {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
    }

    /// Version and id after which the next rows are wanted.
    pub(super) fn position(&self) -> (i64, i64) {
        self.last
    }

    /// Everything up to `version` has been read.
    pub(super) fn arrive(&mut self, version: i64) {
        self.version = self.version.max(version);
        self.last = self.last.max((self.version, i64::MAX));
    }

    /// Adds a row, or replaces the one with this id. A passage stays its caller's.
    pub(super) fn put(&mut self, id: i64, version: i64, caller: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let vector = from_bytes("passage.vector", bytes)?;
        if self.ids.is_empty() {
            self.dim = vector.len();
        }
        if vector.len() != self.dim || vector.is_empty() {
            return Err(StoreError::corrupt(format!(
                "passage.vector: passage {id} has {} dimensions, the others have {}",
                vector.len(),
                self.dim
            )));
        }
        match self.rows.get(&id) {
            Some(row) => self.values[row * self.dim..][..self.dim].copy_from_slice(&vector),
            None => {
                self.rows.insert(id, self.ids.len());
                self.ids.push(id);
                let owner = self.owner(caller).unwrap_or_else(|| {
                    self.callers.push(caller.to_owned());
                    self.callers.len() as u32 - 1
                });
                self.owners.push(owner);
                self.values.extend(vector);
            }
        }
        self.last = (version, id);
        Ok(())
    }

    /// Takes rows out; the last one moves into each gap.
    pub(super) fn forget(&mut self, ids: &[i64]) {
        for id in ids {
            let Some(row) = self.rows.remove(id) else { continue };
            let last = self.ids.len() - 1;
            self.values.copy_within(last * self.dim.., row * self.dim);
            self.values.truncate(last * self.dim);
            self.ids.swap_remove(row);
            self.owners.swap_remove(row);
            if row < last {
                self.rows.insert(self.ids[row], row);
            }
        }
    }

    fn owner(&self, caller: &str) -> Option<u32> {
        self.callers.iter().position(|known| known == caller).map(|place| place as u32)
    }

    /// The ids of the caller's `k` rows with the largest dot product, best first; of equals, the lower id first.
    pub(super) fn top_k(&self, caller: &str, query: &[f32], k: usize) -> Vec<(i64, f32)> {
        let Some(caller) = self.owner(caller).filter(|_| k > 0 && self.dim > 0) else { return Vec::new() };
        let mut best = BinaryHeap::with_capacity(k.min(self.ids.len()) + 1);
        let rows = self.ids.iter().zip(&self.owners).zip(self.values.chunks_exact(self.dim));
        for ((id, _), row) in rows.filter(|((_, owner), _)| **owner == caller) {
            let candidate = Candidate { score: dot(query, row), id: *id };
            if best.len() < k {
                best.push(candidate);
            } else if best.peek().is_some_and(|worst| candidate < *worst) {
                best.pop();
                best.push(candidate);
            }
        }
        best.into_sorted_vec().into_iter().map(|candidate| (candidate.id, candidate.score)).collect()
    }
}

/// Eight sums side by side, so that the compiler can use vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::to_bytes;

    fn filled(vectors: &[[f32; 3]]) -> Matrix {
        let mut matrix = Matrix::default();
        matrix.enter(1);
        for (id, vector) in vectors.iter().enumerate() {
            matrix.put(id as i64, 1, "ada", &to_bytes(vector)).expect("put");
        }
        matrix.arrive(1);
        matrix
    }

    #[test]
    fn the_nearest_come_first_and_equals_by_id() {
        let matrix = filled(&[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [1.0, 0.0, 0.0]]);
        let ids: Vec<_> = matrix.top_k("ada", &[1.0, 0.0, 0.0], 3).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [1, 3, 2]);
        assert_eq!(matrix.top_k("ada", &[1.0, 0.0, 0.0], 99).len(), 4);
        assert!(matrix.top_k("ada", &[1.0, 0.0, 0.0], 0).is_empty());
    }

    #[test]
    fn what_is_forgotten_makes_room_for_others() {
        let mut matrix = filled(&[[0.9, 0.0, 0.0], [0.8, 0.0, 0.0], [0.7, 0.0, 0.0], [0.6, 0.0, 0.0]]);
        matrix.forget(&[0, 3, 77]);
        assert_eq!(matrix.top_k("ada", &[1.0, 0.0, 0.0], 9), [(1, 0.8), (2, 0.7)]);
        matrix.put(0, 2, "ada", &to_bytes(&[0.5, 0.0, 0.0])).expect("put");
        matrix.forget(&[1]);
        assert_eq!(matrix.top_k("ada", &[1.0, 0.0, 0.0], 9), [(2, 0.7), (0, 0.5)]);
    }

    #[test]
    fn only_the_callers_own_rows_are_ranked() {
        let mut matrix = filled(&[[1.0, 0.0, 0.0], [0.9, 0.0, 0.0], [0.8, 0.0, 0.0]]);
        matrix.put(9, 2, "bob", &to_bytes(&[0.1, 0.0, 0.0])).expect("put");
        assert_eq!(matrix.top_k("bob", &[1.0, 0.0, 0.0], 2), [(9, 0.1)]);
        assert_eq!(matrix.top_k("ada", &[1.0, 0.0, 0.0], 9).len(), 3);
        assert!(matrix.top_k("eve", &[1.0, 0.0, 0.0], 9).is_empty());
    }

    #[test]
    fn a_row_read_again_is_replaced() {
        let mut matrix = filled(&[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]);
        assert!(matrix.is_at(1, 1) && !matrix.is_at(1, 2) && !matrix.is_at(2, 1));
        matrix.put(0, 2, "ada", &to_bytes(&[-1.0, 0.0, 0.0])).expect("put");
        assert_eq!(matrix.top_k("ada", &[-1.0, 0.0, 0.0], 9), [(0, 1.0), (1, -1.0)]);
    }

    #[test]
    fn a_row_of_another_dimension_is_corrupt() {
        let mut matrix = filled(&[[0.0, 1.0, 0.0]]);
        assert!(matches!(matrix.put(7, 2, "ada", &to_bytes(&[1.0])), Err(StoreError::Corrupt { .. })));
    }

    #[test]
    fn the_dot_product_agrees_with_the_plain_sum() {
        let a: Vec<f32> = (0..389).map(|n| (n as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..389).map(|n| (n as f32 * 0.11).cos()).collect();
        let plain: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!((f64::from(dot(&a, &b)) - plain).abs() < 1e-3);
    }
}
