//! Settled dead letters, which were replayed or purged: one record names many of them.
//!
//! Kafka cannot delete a letter in the middle of its topic, so a topic of its own says which letters are settled. If the topic
//! of dead letters is deleted and created again, its offsets start at 0 again; the time in the record distinguishes the new
//! letters from those that the record names.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Settled letters of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SettledLetters {
    /// The partition of the topic of dead letters.
    pub partition: i32,
    /// Ranges of offsets, each with its first and last offset.
    pub offsets: Vec<(i64, i64)>,
    /// When the latest of these letters became a dead letter, in ms since the Unix epoch.
    pub until: u64,
    /// What was done with them: `replayed` or `purged`.
    pub how: String,
}

impl SettledLetters {
    /// Reads a record's value; `None`: it is not such a record, or a later version wrote it.
    #[must_use]
    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    /// The record's value.
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings and numbers are always JSON").into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_keep_their_meaning() {
        let bytes = br#"{"partition":3,"offsets":[[17,20],[33,33]],"until":1700000000000,"how":"replayed"}"#;
        let settled = SettledLetters {
            partition: 3,
            offsets: vec![(17, 20), (33, 33)],
            until: 1_700_000_000_000,
            how: "replayed".into(),
        };
        assert_eq!(SettledLetters::read(bytes).unwrap(), settled);
        assert_eq!(&settled.to_bytes()[..], bytes);
        assert_eq!(SettledLetters::read(b"{}"), None);
    }
}
