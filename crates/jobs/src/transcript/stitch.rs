//! One time line out of the results of many tasks.

use super::Segment;

/// Puts the segments of all tasks on one time line.
///
/// `tasks`: the segments of each task, in the order of the tasks. `duration`: seconds of the whole recording. Returns
/// segments with trimmed, non-empty text and `0 <= start <= end <= duration`, none starting before its forerunner ends.
pub fn stitch<T>(tasks: T, duration: f64) -> Vec<Segment>
where
    T: IntoIterator,
    T::Item: IntoIterator<Item = Segment>,
{
    let duration = if duration.is_finite() { duration.max(0.0) } else { 0.0 };
    let mut heard = 0.0_f64;
    let mut line = Vec::new();
    for mut segment in tasks.into_iter().flatten() {
        let text = segment.text.trim();
        if text.is_empty() {
            continue;
        }
        if text.len() != segment.text.len() {
            segment.text = text.to_owned();
        }
        // `max` and `min` prefer the number when the other side is NaN, which a damaged result may hold.
        segment.start = segment.start.max(heard).min(duration);
        segment.end = segment.end.max(segment.start).min(duration);
        heard = segment.end;
        line.push(segment);
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(start: f64, end: f64, text: &str) -> Segment {
        Segment { start, end, text: text.into(), ..Segment::default() }
    }

    #[test]
    fn overlaps_are_cut_blanks_dropped_and_ends_clamped() {
        let line = stitch(
            [
                vec![segment(0.0, 5.2, " one ")],
                vec![segment(5.0, 6.0, "two"), segment(6.0, 7.0, "  ")],
                vec![segment(7.0, 99.0, "three")],
            ],
            8.0,
        );
        assert_eq!(line, [segment(0.0, 5.2, "one"), segment(5.2, 6.0, "two"), segment(7.0, 8.0, "three")]);
    }

    proptest! {
        #[test]
        fn the_line_is_in_order_whatever_came(
            tasks in prop::collection::vec(prop::collection::vec((any::<f64>(), any::<f64>(), " ?[a-z]{0,3} ?"), 0..5), 0..5),
            duration in prop_oneof![0.0..100.0, any::<f64>()],
        ) {
            let tasks = tasks.into_iter().map(|of| of.into_iter().map(|(start, end, text)| segment(start, end, &text)).collect::<Vec<_>>());
            let mut last = 0.0;
            for segment in stitch(tasks, duration) {
                prop_assert!(last <= segment.start && segment.start <= segment.end);
                prop_assert!(segment.end <= duration.max(0.0));
                prop_assert!(!segment.text.is_empty() && segment.text.trim() == segment.text);
                last = segment.end;
            }
        }
    }
}
