//! Decides which offset may be committed when tasks finish in any order, and what the commit says of those above it.
//!
//! ```text
//!  committed ──► watermark                highest seen
//!      │             │                         │
//!  ────┴── done ─────┴─ running ─ done ─ running ──► done, as the owner before has noted
//!                                └─ the finished set ─────┘
//! ```
//! All records below the watermark are finished. Offsets may have gaps (compaction, transaction markers): an offset
//! that was never started does not hold the watermark back. One tracker serves one assignment of one partition. A
//! finish that names another epoch is ignored, because the partition may have another owner since.
//!
//! Of what is finished nothing is kept: it is what lies between the watermark and the newest record and is not open. So a task
//! that ends in order costs nothing more, and the set is worked out only when it is to be committed.

use std::collections::BTreeMap;

use super::finished_set::FinishedSet;

/// Turns completions of one partition's records into the next offset to commit.
#[derive(Debug)]
pub(crate) struct OffsetTracker<T> {
    epoch: u64,
    /// The records that were started and not finished, by offset.
    open: BTreeMap<i64, Open<T>>,
    /// The offset after the newest record that was started.
    next: Option<i64>,
    /// What the owner before has noted as finished, until all of it was read.
    noted: Option<FinishedSet>,
    /// When the latest record that was started was written, in ms since the Unix epoch.
    latest_ms: u64,
    /// Whether there is more to commit than [`commit`](Self::commit) has said.
    has_news: bool,
}

#[derive(Debug)]
struct Open<T> {
    written_ms: Option<u64>,
    /// What the caller keeps of it.
    kept: Option<T>,
}

/// A record that is open, and the window as it is when those before have been finished.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a, T> {
    pub(crate) offset: i64,
    /// What the caller keeps of it.
    pub(crate) kept: Option<&'a T>,
    /// Number of offsets from this record to the newest polled one.
    pub(crate) size: u64,
    /// How many of them have ended.
    pub(crate) done: u64,
}

/// What a record is that was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// It is open until it is finished.
    Open,
    /// It had ended before this assignment. It is open all the same, and is to be finished at once.
    HasEnded,
    /// It was polled before in this assignment.
    Again,
}

impl<T> OffsetTracker<T> {
    /// A tracker for one assignment. No two assignments of a partition share an epoch. `noted`: what the commit says that the
    /// assignment starts at.
    #[must_use]
    pub(crate) fn new(epoch: u64, noted: FinishedSet) -> Self {
        let noted = Some(noted).filter(|noted| !noted.is_empty());
        Self { epoch, open: BTreeMap::new(), next: None, noted, latest_ms: 0, has_news: false }
    }

    /// The assignment that this tracker serves.
    #[must_use]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Notes a record that was polled, and when it was written, in ms since the Unix epoch.
    pub(crate) fn start(&mut self, offset: i64, written_ms: Option<u64>) -> Started {
        if self.next.is_some_and(|next| offset < next) {
            return Started::Again;
        }
        let has_ended = self.noted.is_some() && self.has_ended(offset, written_ms);
        self.next = Some(offset + 1);
        self.latest_ms = self.latest_ms.max(written_ms.unwrap_or(0));
        self.open.insert(offset, Open { written_ms, kept: None });
        if has_ended { Started::HasEnded } else { Started::Open }
    }

    /// Whether the owner before has noted the record as finished. A set that is of another log, or was read to its end, goes.
    fn has_ended(&mut self, offset: i64, written_ms: Option<u64>) -> bool {
        let is_first = self.next.is_none();
        self.noted.take_if(|noted| is_first && !noted.is_of_log(offset, written_ms));
        let has_ended = self.noted.as_ref().is_some_and(|noted| noted.names(offset, written_ms));
        self.noted.take_if(|noted| noted.end() <= offset + 1);
        has_ended
    }

    /// Keeps something with the newest record, until it is finished.
    pub(crate) fn keep(&mut self, offset: i64, what: T) {
        if let Some(open) = self.open.last_entry().filter(|open| *open.key() == offset) {
            open.into_mut().kept = Some(what);
        }
    }

    /// What was kept with a record, if it is open in this assignment.
    pub(crate) fn kept(&self, epoch: u64, offset: i64) -> Option<&T> {
        if epoch == self.epoch { self.open.get(&offset)?.kept.as_ref() } else { None }
    }

    /// Notes that a record's task is terminal or rescheduled. `false`: it was not open, so nothing has changed.
    pub(crate) fn finish(&mut self, epoch: u64, offset: i64) -> bool {
        let was_open = epoch == self.epoch && self.open.remove(&offset).is_some();
        self.has_news |= was_open;
        was_open
    }

    /// Whether a record was started and not finished, in this assignment.
    #[must_use]
    pub(crate) fn is_open(&self, epoch: u64, offset: i64) -> bool {
        epoch == self.epoch && self.open.contains_key(&offset)
    }

    /// Whether something above the watermark has ended.
    #[must_use]
    pub(crate) fn has_gaps(&self) -> bool {
        self.noted.is_some() || self.window() > self.open.len() as u64
    }

    /// The next offset to commit, and the metadata of the commit: what has ended above it. `None`: as before.
    pub(crate) fn commit(&mut self) -> Option<(i64, String)> {
        if !std::mem::take(&mut self.has_news) {
            return None;
        }
        let end = self.next?;
        let head = self.open.first_key_value();
        let (next, head) = head.map_or((end, None), |(&offset, open)| (offset, open.written_ms));
        if !self.has_gaps() {
            return Some((next, String::new()));
        }
        let mut set = FinishedSet::between(next, head, self.latest_ms, self.open.keys().copied(), end);
        if let Some(noted) = &self.noted {
            set.append(noted, end);
        }
        Some((next, set.to_metadata()))
    }

    /// The records that are open, the oldest first.
    pub(crate) fn open(&self) -> impl Iterator<Item = Head<'_, T>> {
        let (end, count) = (self.next.unwrap_or(0), self.open.len());
        self.open.iter().enumerate().map(move |(before, (&offset, open))| {
            let size = end.abs_diff(offset);
            Head { offset, kept: open.kept.as_ref(), size, done: size - (count - before) as u64 }
        })
    }

    /// Number of offsets from the oldest unfinished record to the newest polled one. The worker limits it, because it
    /// remembers which of these records are finished.
    #[must_use]
    pub(crate) fn window(&self) -> u64 {
        match (self.open.first_key_value(), self.next) {
            (Some((&first, _)), Some(next)) => next.abs_diff(first),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    type Tracker = OffsetTracker<()>;

    fn tracker(epoch: u64) -> Tracker {
        Tracker::new(epoch, FinishedSet::default())
    }

    fn start(tracker: &mut Tracker, offset: i64) -> Started {
        tracker.start(offset, Some(1_000 + offset.unsigned_abs()))
    }

    fn start_all(tracker: &mut Tracker, offsets: impl IntoIterator<Item = i64>) {
        for offset in offsets {
            assert_eq!(start(tracker, offset), Started::Open);
        }
    }

    fn finish_all(tracker: &mut Tracker, offsets: impl IntoIterator<Item = i64>) {
        let epoch = tracker.epoch();
        assert!(offsets.into_iter().all(|offset| tracker.finish(epoch, offset)));
    }

    /// The next offset to commit, if there is something new to commit.
    fn next(tracker: &mut Tracker) -> Option<i64> {
        tracker.commit().map(|(next, _)| next)
    }

    #[test]
    fn the_oldest_record_holds_the_watermark_back() {
        let mut tracker = tracker(1);
        for offset in [5, 6, 9] {
            assert_eq!(start(&mut tracker, offset), Started::Open);
        }
        assert_eq!((next(&mut tracker), tracker.window()), (None, 5));
        assert!(tracker.finish(1, 6));
        let heads = tracker.open().map(|head| (head.offset, head.size, head.done));
        assert_eq!(heads.collect::<Vec<_>>(), [(5, 5, 3), (9, 1, 0)], "an offset without a record counts as ended");
        assert_eq!(next(&mut tracker), Some(5));
        assert!(tracker.finish(1, 5));
        assert_eq!((next(&mut tracker), tracker.window()), (Some(9), 1));
        assert!(!tracker.has_gaps() && tracker.finish(1, 9));
        assert_eq!((tracker.commit(), tracker.commit()), (Some((10, String::new())), None));
    }

    #[test]
    fn refetched_and_foreign_offsets_change_nothing() {
        let mut tracker = tracker(2);
        assert_eq!([start(&mut tracker, 3), start(&mut tracker, 3)], [Started::Open, Started::Again]);
        assert!(tracker.is_open(2, 3) && !tracker.is_open(1, 3) && !tracker.is_open(2, 4));
        assert!(!tracker.finish(1, 3), "an older epoch");
        assert!(!tracker.finish(2, 4), "never started");
        assert_eq!(next(&mut tracker), None);
        assert!(tracker.finish(2, 3));
        assert_eq!(next(&mut tracker), Some(4));
        assert_eq!(start(&mut tracker, 3), Started::Again);
        assert!(!tracker.finish(2, 3) && !tracker.is_open(2, 3), "finished twice");
    }

    #[test]
    fn what_is_kept_goes_with_its_record() {
        let mut tracker = OffsetTracker::new(1, FinishedSet::default());
        for offset in [3, 4] {
            tracker.start(offset, None);
        }
        tracker.keep(3, 'x');
        tracker.keep(4, 'y');
        let kept = |tracker: &OffsetTracker<_>| tracker.open().map(|head| head.kept.copied()).collect::<Vec<_>>();
        assert_eq!(kept(&tracker), [None, Some('y')], "only with the newest");
        tracker.finish(1, 4);
        assert_eq!(kept(&tracker), [None]);
    }

    #[test]
    fn a_log_that_is_another_one_hides_nothing() {
        let mut before = tracker(1);
        start_all(&mut before, 10..20);
        finish_all(&mut before, 11..19);
        let (next, metadata) = before.commit().unwrap();
        let noted = || FinishedSet::read(next, &metadata);
        let starts = |first, written| {
            let mut tracker = Tracker::new(2, noted());
            tracker.start(first, Some(written));
            start(&mut tracker, 15)
        };
        assert_eq!(starts(10, 1_010), Started::HasEnded);
        assert_eq!(starts(10, 1_011), Started::Open, "the head is another record");
        assert_eq!(starts(0, 1_010), Started::Open, "the log begins elsewhere");
        let mut tracker = Tracker::new(2, noted());
        assert_eq!(start(&mut tracker, 10), Started::Open);
        assert_eq!(tracker.start(15, Some(1_020)), Started::Open, "it was written after the commit: the end was lost");
    }

    #[test]
    fn what_was_noted_is_committed_again_until_it_is_read() {
        let mut before = tracker(1);
        start_all(&mut before, 0..10);
        finish_all(&mut before, 1..9);
        let (next, metadata) = before.commit().unwrap();
        let mut tracker = Tracker::new(2, FinishedSet::read(next, &metadata));
        start(&mut tracker, 0);
        assert!(tracker.has_gaps() && tracker.finish(2, 0));
        let (next, metadata) = tracker.commit().unwrap();
        let noted = FinishedSet::read(next, &metadata);
        assert!(next == 1 && (1..9).all(|offset| noted.names(offset, Some(1_001))), "{metadata}");
        for offset in 1..9 {
            assert_eq!(start(&mut tracker, offset), Started::HasEnded);
            assert!(tracker.finish(2, offset));
        }
        assert_eq!(tracker.commit(), Some((9, String::new())));
        assert_eq!(start(&mut tracker, 9), Started::Open);
    }

    /// Offsets with gaps, and an order to finish them in.
    fn history() -> impl Strategy<Value = (Vec<i64>, Vec<i64>)> {
        prop::collection::vec(1_i64..4, 1..60).prop_flat_map(|gaps| {
            let offsets: Vec<i64> = gaps
                .iter()
                .scan(0, |at, gap| {
                    *at += gap;
                    Some(*at)
                })
                .collect();
            (Just(offsets.clone()), Just(offsets).prop_shuffle())
        })
    }

    proptest! {
        /// Whatever the order and the gaps, all records below a committed offset are finished and so is what the metadata
        /// names, the committed offset never goes back, and it ends after the last record.
        #[test]
        fn commits_only_what_is_finished((offsets, order) in history()) {
            let mut tracker = tracker(7);
            for &offset in &offsets {
                prop_assert_eq!(start(&mut tracker, offset), Started::Open);
            }
            let (mut done, mut last) = (BTreeSet::new(), 0);
            for offset in order {
                done.insert(offset);
                prop_assert!(tracker.finish(7, offset));
                let (next, metadata) = tracker.commit().expect("there is news");
                prop_assert!(last <= next);
                let noted = FinishedSet::read(next, &metadata);
                let is_named = |offset: &i64| *offset < next || noted.names(*offset, Some(0));
                prop_assert!(offsets.iter().all(|offset| is_named(offset) == done.contains(offset)));
                prop_assert_eq!(tracker.open().count(), offsets.len() - done.len());
                last = next;
            }
            prop_assert_eq!(Some(last), offsets.last().map(|offset| offset + 1));
            prop_assert_eq!((tracker.window(), tracker.has_gaps()), (0, false));
        }

        /// The next owner, which reads from the commit on, ends up as an owner that saw everything end.
        #[test]
        fn a_seeded_tracker_is_as_one_that_saw_it_end((offsets, order) in history(), ended in any::<prop::sample::Index>(), read in any::<prop::sample::Index>()) {
            let mut first = tracker(1);
            // It had read so many of the records.
            let read = 1 + read.index(offsets.len());
            start_all(&mut first, offsets[..read].iter().copied());
            let order: Vec<_> = order.into_iter().filter(|offset| offsets[..read].contains(offset)).collect();
            let ended = ended.index(order.len() + 1);
            finish_all(&mut first, order[..ended].iter().copied());
            let (next, metadata) = first.commit().unwrap_or((offsets[0], String::new()));

            let mut second = Tracker::new(2, FinishedSet::read(next, &metadata));
            for &offset in offsets.iter().filter(|offset| **offset >= next) {
                if start(&mut second, offset) == Started::HasEnded {
                    prop_assert!(second.finish(2, offset));
                }
            }
            start_all(&mut first, offsets[read..].iter().copied());
            prop_assert!(first.open().eq(second.open()));
            (first.has_news, second.has_news) = (true, true);
            if next <= offsets[offsets.len() - 1] {
                prop_assert_eq!(first.commit(), second.commit());
            }
        }
    }
}
