//! Which offset may be committed, when tasks finish in any order.
//!
//! ```text
//!  committed ──► watermark            highest seen
//!      │             │                     │
//!  ────┴── done ─────┴─ running ─ done ─ running ──►
//! ```
//! Everything below the watermark is finished. Offsets may have gaps (compaction, transaction markers):
//! an offset that was never started holds nothing back. One tracker serves one assignment of one
//! partition; a finish that names another epoch is ignored, since another owner decides now.

use std::collections::BTreeSet;

/// Turns completions of one partition's records into the next offset to commit.
#[derive(Debug, Clone)]
pub struct OffsetTracker {
    epoch: u64,
    open: BTreeSet<i64>,
    next: Option<i64>,
    watermark: Option<i64>,
}

impl OffsetTracker {
    /// A tracker for one assignment. No two assignments of a partition share an epoch.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self { epoch, open: BTreeSet::new(), next: None, watermark: None }
    }

    /// The assignment that this tracker serves.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Notes a record that was polled. `false` if it was seen before in this assignment (a refetch after
    /// a pause): it must not be run again, its first copy is on its way.
    pub fn start(&mut self, offset: i64) -> bool {
        if self.next.is_some_and(|next| offset < next) {
            return false;
        }
        self.watermark.get_or_insert(offset);
        self.next = Some(offset + 1);
        self.open.insert(offset)
    }

    /// Notes that a record is terminal or handed on. Returns the next offset to commit, if it grew.
    pub fn finish(&mut self, epoch: u64, offset: i64) -> Option<i64> {
        if epoch != self.epoch || !self.open.remove(&offset) {
            return None;
        }
        let watermark = self.open.first().copied().or(self.next);
        (watermark > self.watermark).then(|| {
            self.watermark = watermark;
            watermark
        })?
    }

    /// Offsets between the oldest unfinished record and the newest polled one: what a commit would have
    /// to remember, so what the window limits.
    #[must_use]
    pub fn window(&self) -> u64 {
        match (self.open.first(), self.next) {
            (Some(&first), Some(next)) => next.abs_diff(first),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_head_holds_the_watermark() {
        let mut tracker = OffsetTracker::new(1);
        for offset in [5, 6, 9] {
            assert!(tracker.start(offset));
        }
        assert_eq!(tracker.finish(1, 6), None);
        assert_eq!(tracker.finish(1, 5), Some(9));
        assert_eq!(tracker.window(), 1);
        assert_eq!(tracker.finish(1, 9), Some(10));
    }

    #[test]
    fn refetched_and_foreign_offsets_change_nothing() {
        let mut tracker = OffsetTracker::new(2);
        assert!(tracker.start(3));
        assert!(!tracker.start(3));
        assert_eq!(tracker.finish(1, 3), None, "an older epoch");
        assert_eq!(tracker.finish(2, 4), None, "never started");
        assert_eq!(tracker.finish(2, 3), Some(4));
        assert!(!tracker.start(3));
        assert_eq!(tracker.finish(2, 3), None, "finished twice");
    }

    proptest! {
        /// Whatever the order and the gaps: what is committed has everything below it finished, never goes
        /// back, and ends behind the last record.
        #[test]
        fn commits_only_finished_prefixes(gaps in prop::collection::vec(1_i64..4, 1..60), seed in any::<u64>()) {
            let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut order = offsets.clone();
            let mut state = seed | 1;
            for i in (1..order.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                order.swap(i, usize::try_from(state >> 33).unwrap() % (i + 1));
            }
            let mut tracker = OffsetTracker::new(7);
            for &offset in &offsets {
                prop_assert!(tracker.start(offset));
            }
            let (mut done, mut last) = (BTreeSet::new(), None);
            for offset in order {
                done.insert(offset);
                if let Some(next) = tracker.finish(7, offset) {
                    prop_assert!(last < Some(next));
                    prop_assert!(offsets.iter().filter(|o| **o < next).all(|o| done.contains(o)));
                    last = Some(next);
                }
            }
            prop_assert_eq!(last, offsets.last().map(|o| o + 1));
            prop_assert_eq!(tracker.window(), 0);
        }
    }
}
