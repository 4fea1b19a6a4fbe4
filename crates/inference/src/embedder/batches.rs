//! Which texts share a forward pass.

/// Groups of indices into `lengths`, the shortest first, so that no group holds more than `budget` tokens once all its
/// members are padded to its longest, nor more than `rows` members. A single one over the budget gets a group of its own.
pub(crate) fn batches(lengths: &[usize], budget: usize, rows: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|index| lengths[*index]);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for index in order {
        // Sorted: the newcomer is the longest.
        match batches.last_mut() {
            Some(batch) if batch.len() < rows && (batch.len() + 1) * lengths[index] <= budget => batch.push(index),
            _ => batches.push(vec![index]),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lengths_go_together_within_the_budget() {
        assert_eq!(batches(&[5, 9, 5, 5], 10, 9), [vec![0, 2], vec![3], vec![1]]);
        assert_eq!(batches(&[], 10, 9), Vec::<Vec<usize>>::new());
        assert_eq!(batches(&[50, 60], 10, 9), [vec![0], vec![1]]);
        assert_eq!(batches(&[1, 1, 1, 1, 1], 10, 2), [vec![0, 1], vec![2, 3], vec![4]]);
    }

    #[test]
    fn everything_is_in_exactly_one_batch_within_the_budget() {
        let lengths: Vec<usize> = (0..500).map(|i| 3 + (i * 7919) % 254).collect();
        let batches = batches(&lengths, 4096, usize::MAX);
        let mut seen: Vec<usize> = batches.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
        for batch in &batches {
            let longest = batch.iter().map(|i| lengths[*i]).max().unwrap();
            assert!(batch.len() * longest <= 4096);
        }
    }
}
