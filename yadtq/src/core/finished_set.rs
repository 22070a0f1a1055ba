//! What has ended above a committed offset, as the metadata of the commit carries it to the next owner of the partition.
//!
//! ```text
//!  committed                                  1 <head> <latest> <open><ended><open><ended>..
//!      ▼                                        │     └ ms, when the latest record that the owner had read was written
//!  ────┴─ open ── ended ─ open ─ ended ── ..    └ ms, when the record at the committed offset was written
//! ```
//! The lengths of the runs follow each other without a space: each is a number in base 32, its lowest digit first, and a digit that
//! another one follows is written as itself + 32. A text that would be too long loses its last runs, so it names less, and nothing
//! that has not ended.
//!
//! It is an aid: what it names needs no claim, and does not run again even if the store has lost its memory. It must never hide
//! a record that is another one than its writer meant: a topic that was deleted and made again, or a log that has lost its end,
//! counts the same offsets anew. So nothing is believed unless the log begins with the record that was the head, and a record
//! that was written after the latest one is not meant. What cannot be read names nothing.

use std::ops::Range;

/// The most bytes of metadata that Kafka takes by default (`offset.metadata.max.bytes`).
const MAX_METADATA_BYTES: usize = 4_096;
/// What a text begins with.
const VERSION: &str = "1";
/// The digits of a number; from the 33rd on they say that another one follows.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The offsets above a committed one whose records have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FinishedSet {
    /// The committed offset.
    next: i64,
    /// When the record there was written, in ms since the Unix epoch. `None`: it had not been read.
    head_ms: Option<u64>,
    /// When the latest of all records that had been read was written, in ms since the Unix epoch.
    latest_ms: u64,
    /// In order, with something between them.
    ranges: Vec<Range<i64>>,
}

impl FinishedSet {
    /// Everything between the committed offset and `end` but the open offsets, which come in order.
    pub(crate) fn between(
        next: i64, head_ms: Option<u64>, latest_ms: u64, open: impl Iterator<Item = i64>, end: i64,
    ) -> Self {
        let mut set = Self { next, head_ms, latest_ms, ranges: Vec::new() };
        let mut from = next;
        for offset in open.chain([end]) {
            set.push(from..offset);
            from = offset + 1;
        }
        set
    }

    /// Reads the metadata of a commit. Empty if it names nothing, or cannot be read.
    #[must_use]
    pub(crate) fn read(next: i64, metadata: &str) -> Self {
        Self::parse(next, metadata).unwrap_or_default()
    }

    fn parse(next: i64, metadata: &str) -> Option<Self> {
        let mut words = metadata.split(' ');
        if words.next()? != VERSION {
            return None;
        }
        let head_ms = match words.next()? {
            "-" => None,
            text => Some(text.parse().ok()?),
        };
        let mut set = Self { next, head_ms, latest_ms: words.next()?.parse().ok()?, ranges: Vec::new() };
        let (mut digits, mut from) = (words.next()?.bytes(), next);
        while digits.len() > 0 {
            let start = from.checked_add(number(&mut digits)?)?;
            from = start.checked_add(number(&mut digits)?)?;
            set.push(start..from);
        }
        Some(set)
    }

    /// The metadata of the commit. Empty if nothing has ended above the offset.
    #[must_use]
    pub(crate) fn to_metadata(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let head = self.head_ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string());
        let mut text = format!("{VERSION} {head} {} ", self.latest_ms);
        let mut from = self.next;
        for range in &self.ranges {
            let length = text.len();
            push_number(&mut text, range.start.abs_diff(from));
            push_number(&mut text, range.end.abs_diff(range.start));
            if text.len() > MAX_METADATA_BYTES {
                text.truncate(length);
                break;
            }
            from = range.end;
        }
        text
    }

    /// When the record at the committed offset was written, in ms since the Unix epoch, if that is known.
    #[must_use]
    pub(crate) fn head_ms(&self) -> Option<u64> {
        self.head_ms
    }

    /// How many of these offsets it names.
    #[must_use]
    pub(crate) fn count(&self, offsets: Range<i64>) -> u64 {
        let named = |range: &Range<i64>| range.end.min(offsets.end) - range.start.max(offsets.start);
        self.ranges.iter().filter_map(|range| u64::try_from(named(range)).ok()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The offset after the last one that it names.
    pub(super) fn end(&self) -> i64 {
        self.ranges.last().map_or(self.next, |range| range.end)
    }

    /// Whether the log that begins with this record may be the one that was meant.
    pub(super) fn is_of_log(&self, offset: i64, written_ms: Option<u64>) -> bool {
        offset == self.next && (self.head_ms.is_none() || self.head_ms == written_ms)
    }

    /// Whether this record has ended.
    pub(crate) fn names(&self, offset: i64, written_ms: Option<u64>) -> bool {
        let before = self.ranges.partition_point(|range| range.start <= offset);
        let is_within = before.checked_sub(1).is_some_and(|last| offset < self.ranges[last].end);
        is_within && written_ms.is_some_and(|written| written <= self.latest_ms)
    }

    /// Names also what another one names from an offset on, which must not be below its own end.
    pub(super) fn append(&mut self, other: &Self, from: i64) {
        other.ranges.iter().for_each(|range| self.push(range.start.max(from)..range.end));
        self.latest_ms = self.latest_ms.max(other.latest_ms);
    }

    fn push(&mut self, range: Range<i64>) {
        match self.ranges.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
    }
}

fn push_number(text: &mut String, mut number: u64) {
    loop {
        let (digit, rest) = (number % 32, number / 32);
        let digit = if rest > 0 { digit + 32 } else { digit };
        text.push(usize::try_from(digit).map_or('A', |digit| char::from(DIGITS[digit])));
        if rest == 0 {
            return;
        }
        number = rest;
    }
}

fn number(digits: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let mut number = 0;
    // More digits than these make no offset.
    for place in 0..12 {
        let digit = digits.next()?;
        let digit = i64::try_from(DIGITS.iter().position(|&known| known == digit)?).ok()?;
        number |= (digit % 32) << (5 * place);
        if digit < 32 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(next: i64, open: &BTreeSet<i64>, end: i64) -> FinishedSet {
        FinishedSet::between(next, Some(1_000), 2_000, open.iter().copied(), end)
    }

    #[test]
    fn the_text_is_what_the_next_version_reads() {
        let set = set(100, &[100, 102, 140].into(), 1_200);
        assert_eq!(set.to_metadata(), "1 1000 2000 BBBlBBjhB");
        assert_eq!(FinishedSet::read(100, "1 1000 2000 BBBlBBjhB"), set);
        assert_eq!(FinishedSet::read(100, "1 - 2000 BB").head_ms, None);
    }

    #[test]
    fn what_cannot_be_read_names_nothing() {
        for text in [
            "",
            "1",
            "1 1 2",
            "1 1 2 B",
            "1 1 2 B!",
            "2 1 2 BB",
            "1 x 2 BB",
            "1 1 -2 BB",
            "1 1 2 ________________",
            "é",
        ] {
            assert!(FinishedSet::read(5, text).is_empty(), "{text}");
        }
        let huge = "_".repeat(11) + "f";
        assert!(FinishedSet::read(i64::MAX - 1, &format!("1 1 2 {huge}{huge}")).is_empty());
    }

    #[test]
    fn a_record_of_another_log_is_not_meant() {
        let set = FinishedSet::read(100, &set(100, &[100].into(), 200).to_metadata());
        assert!(set.is_of_log(100, Some(1_000)));
        assert!(!set.is_of_log(100, Some(1_001)) && !set.is_of_log(100, None) && !set.is_of_log(0, Some(1_000)));
        assert!(set.names(101, Some(2_000)) && set.names(199, Some(5)));
        assert!(!set.names(101, Some(2_001)), "it was written later");
        assert!(!set.names(101, None) && !set.names(100, Some(5)) && !set.names(200, Some(5)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            next in 0_i64..1 << 40, open in prop::collection::btree_set(0_i64..10_000, 0..300), end in 0_i64..20_000,
        ) {
            let end = open.last().copied().unwrap_or(0).max(end);
            let open = open.into_iter().map(|offset| next + offset).collect();
            let set = set(next, &open, next + end);
            let read = FinishedSet::read(next, &set.to_metadata());
            prop_assert_eq!(&read, &if set.is_empty() { FinishedSet::default() } else { set });
            for offset in (next..next + end + 2).step_by(7).chain(open.iter().copied()) {
                prop_assert_eq!(read.names(offset, Some(0)), offset < next + end && !open.contains(&offset), "{}", offset);
            }
        }

        /// However many runs there are: the text fits, and what it names has ended.
        #[test]
        fn a_long_one_is_cut_short_and_names_nothing_open(every in 2_i64..40, stretch in 1_i64..3) {
            let open: BTreeSet<i64> = (0..20_000).filter(|offset| offset % every < stretch.min(every - 1)).collect();
            let set = set(0, &open, 20_000);
            let (text, read) = (set.to_metadata(), FinishedSet::read(0, &set.to_metadata()));
            prop_assert!(text.len() <= MAX_METADATA_BYTES);
            prop_assert!(!read.is_empty() && set.ranges.starts_with(&read.ranges));
            prop_assert!(read == set || text.len() > MAX_METADATA_BYTES - 2);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "1 [0-9-]{1,20} [0-9]{1,20} [A-Za-z0-9_ -]{0,40}", next in 0..=i64::MAX) {
            let _ = FinishedSet::read(next, &text).to_metadata();
        }
    }
}
