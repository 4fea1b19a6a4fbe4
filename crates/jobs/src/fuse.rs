//! One ranking out of several.

use std::collections::{BTreeMap, BTreeSet};

/// The constant of the paper; it damps the weight of the very first ranks.
pub const K: f64 = 60.0;

/// Reciprocal rank fusion: an item scores the sum of `1 / (k + rank)` over the rankings that hold it, with rank 1 for
/// the best. Returns items with their scores, best first; equal scores in the order of their ids. An id that a
/// ranking repeats counts where it comes first.
///
/// Source: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
/// methods", SIGIR 2009.
pub fn rrf<Id: Clone + Ord>(rankings: &[Vec<Id>], k: f64) -> Vec<(Id, f64)> {
    let mut scores = BTreeMap::new();
    for ranking in rankings {
        let mut seen = BTreeSet::new();
        let distinct = ranking.iter().filter(|id| seen.insert(*id));
        for (above, id) in distinct.enumerate() {
            *scores.entry(id).or_insert(0.0) += 1.0 / (k + above as f64 + 1.0);
        }
    }
    let mut fused: Vec<_> = scores.into_iter().map(|(id, score)| (id.clone(), score)).collect();
    fused.sort_by(|(_, left), (_, right)| right.total_cmp(left));
    fused
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_both_rankings_hold_comes_first() {
        let fused = rrf(&[vec!["words", "both"], vec!["meaning", "both"]], K);
        let order: Vec<_> = fused.iter().map(|(id, _)| *id).collect();
        assert_eq!(order, ["both", "meaning", "words"], "equal scores go by id");
        assert!((fused[0].1 - 2.0 / 62.0).abs() < 1e-12);
        assert!((fused[1].1 - 1.0 / 61.0).abs() < 1e-12);
    }

    #[test]
    fn a_repeated_id_counts_once() {
        assert_eq!(rrf(&[vec![7, 7, 8]], K), [(7, 1.0 / 61.0), (8, 1.0 / 62.0)]);
    }

    proptest! {
        #[test]
        fn one_ranking_keeps_its_order(ids in prop::collection::hash_set(0_u32..1000, 0..50)) {
            let ids: Vec<_> = ids.into_iter().collect();
            let fused: Vec<_> = rrf(std::slice::from_ref(&ids), K).into_iter().map(|(id, _)| id).collect();
            prop_assert_eq!(fused, ids);
        }
    }
}
