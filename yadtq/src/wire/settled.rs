//! What became of dead letters: a record that says so of many at once.
//!
//! A letter cannot be taken out of the middle of its topic, so that it has been dealt with is written down beside it, in
//! a topic of its own. Offsets start over when the topic of dead letters is deleted and made again; the time tells
//! those letters from the ones that are meant.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Letters of one partition that have been dealt with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settled {
    /// The partition of the topic of dead letters.
    pub partition: i32,
    /// First and last offsets.
    pub offsets: Vec<(i64, i64)>,
    /// When the latest of them became a dead letter, in ms since the Unix epoch.
    pub until: u64,
    /// `replayed` or `purged`.
    pub how: String,
}

impl Settled {
    /// Reads a record's value; `None`: it is something else, or of a later version.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    /// The record's value.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings and numbers are always JSON").into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_are_read_as_they_were_meant() {
        let bytes = br#"{"partition":3,"offsets":[[17,20],[33,33]],"until":1700000000000,"how":"replayed"}"#;
        let settled = Settled {
            partition: 3,
            offsets: vec![(17, 20), (33, 33)],
            until: 1_700_000_000_000,
            how: "replayed".into(),
        };
        assert_eq!(Settled::read(bytes).unwrap(), settled);
        assert_eq!(&settled.to_bytes()[..], bytes);
        assert_eq!(Settled::read(b"{}"), None);
    }
}
