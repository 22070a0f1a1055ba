//! Controls for all workers, as records of the control topic.
//!
//! All records are in the topic's first partition, whatever their key, so that they have one order. The key names the queue or
//! task, so that compaction keeps the latest control of each. A record without a value cancels the control of its key.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::core::controls::ControlRecord;

/// The partition that has all controls.
pub(crate) const CONTROL_PARTITION: i32 = 0;

/// Key and value of a control's record, which goes to [`CONTROL_PARTITION`].
#[must_use]
pub(crate) fn record(control: &ControlRecord) -> (Bytes, Bytes) {
    let value = match control {
        // A deletion, so that nothing is kept of it.
        ControlRecord::Forget { .. } => Vec::new(),
        control => serde_json::to_vec(control).expect("strings and numbers are always JSON"),
    };
    (key(control), value.into())
}

/// Reads a record; `None`: it is not a control, or a later version wrote it.
#[must_use]
pub(crate) fn read(key: &[u8], value: &[u8]) -> Option<ControlRecord> {
    if !value.is_empty() {
        return serde_json::from_slice(value).ok();
    }
    let (about, name) = std::str::from_utf8(key).ok()?.split_once('/')?;
    let (name, at) = (name.to_owned(), 0);
    match about {
        "queue" => Some(ControlRecord::Resume { queue: name, at }),
        "purge" => Some(ControlRecord::Purge { queue: name, at, below: BTreeMap::new() }),
        "task" => Some(ControlRecord::Enable { task: name, at }),
        "revoke" => Some(ControlRecord::Forget { task_id: name }),
        _ => None,
    }
}

fn key(control: &ControlRecord) -> Bytes {
    match control {
        ControlRecord::Pause { queue, .. } | ControlRecord::Resume { queue, .. } => format!("queue/{queue}"),
        ControlRecord::Purge { queue, .. } => format!("purge/{queue}"),
        ControlRecord::Disable { task, .. } | ControlRecord::Enable { task, .. } => format!("task/{task}"),
        ControlRecord::Revoke { task_id, .. } | ControlRecord::Forget { task_id } => format!("revoke/{task_id}"),
    }
    .into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::{controls::Disabled, priority::Priority};

    #[test]
    fn released_bytes_keep_their_meaning() {
        let (queue, task, at) = ("mail".to_owned(), "send_email".to_owned(), 1_700_000_000_000);
        let below = [(Priority::High, vec![(0, 7)]), (Priority::Normal, vec![(0, 17), (1, 0)])].into();
        let golden = [
            (
                ControlRecord::Pause { queue: queue.clone(), at },
                "queue/mail",
                r#"{"order":"pause","queue":"mail","at":1700000000000}"#,
            ),
            (
                ControlRecord::Resume { queue: queue.clone(), at },
                "queue/mail",
                r#"{"order":"resume","queue":"mail","at":1700000000000}"#,
            ),
            (
                ControlRecord::Purge { queue, at, below },
                "purge/mail",
                r#"{"order":"purge","queue":"mail","at":1700000000000,"below":{"high":[[0,7]],"normal":[[0,17],[1,0]]}}"#,
            ),
            (
                ControlRecord::Disable { task: task.clone(), at, then: Disabled::Wait },
                "task/send_email",
                r#"{"order":"disable","task":"send_email","at":1700000000000,"then":"wait"}"#,
            ),
            (
                ControlRecord::Enable { task, at },
                "task/send_email",
                r#"{"order":"enable","task":"send_email","at":1700000000000}"#,
            ),
            (
                ControlRecord::Revoke { task_id: "a/b".into(), at, until: 1_800_000_000_000, known: true },
                "revoke/a/b",
                r#"{"order":"revoke","task-id":"a/b","at":1700000000000,"until":1800000000000,"known":true}"#,
            ),
            (ControlRecord::Forget { task_id: "a/b".into() }, "revoke/a/b", ""),
        ];
        for (control, key, value) in golden {
            assert_eq!(record(&control), (Bytes::from(key), Bytes::from(value)));
            assert_eq!(read(key.as_bytes(), value.as_bytes()), Some(control));
        }
    }

    #[test]
    fn a_deletion_cancels_a_control() {
        assert_eq!(read(b"queue/mail", b""), Some(ControlRecord::Resume { queue: "mail".into(), at: 0 }));
        assert_eq!(read(b"task/a/b", b""), Some(ControlRecord::Enable { task: "a/b".into(), at: 0 }));
        let forgotten = ControlRecord::Purge { queue: "mail".into(), at: 0, below: BTreeMap::new() };
        assert_eq!(read(b"purge/mail", b""), Some(forgotten));
    }

    #[test]
    fn unknown_records_are_skipped() {
        for (key, value) in [
            ("queue/mail", "{}"),
            ("queue/mail", r#"{"order":"drown","queue":"mail","at":1}"#),
            ("pond/mail", ""),
            ("", ""),
            ("queue/mail", "\u{0}"),
        ] {
            assert_eq!(read(key.as_bytes(), value.as_bytes()), None, "{key} {value}");
        }
    }
}
