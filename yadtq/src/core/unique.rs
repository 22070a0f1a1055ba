//! Unique keys, which make submits idempotent: the first submit reserves the key, and later ones get the first one's
//! task.
//!
//! ```text
//!            reserve            confirm
//!  free ──────────► pending ──────────► queued ──► free, when its TTL is over
//! ```
//! A `pending` key's task may not be in Kafka: its client may have died before it sent the record. So a client that
//! finds the key pending sends its own record under the same task id. Two records with one id are one task. As
//! everywhere, a call that is sent twice gets the same answer the second time.
//!
//! So there is no lock that could time out. The worker confirms the key of what it runs: a key that stayed pending for longer than
//! the end of its task is remembered would let the task run twice.

use std::sync::Arc;

use super::names::TaskId;

/// Length of the longest key, in bytes.
pub(crate) const MAX_KEY_BYTES: usize = 256;

/// A unique key. Tasks of different names may use the same text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UniqueKey {
    /// The name of the task.
    pub task: Arc<str>,
    /// The text that the sender chose.
    pub key: Arc<str>,
}

/// The state of a key that is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The task of the first submit.
    pub id: TaskId,
    /// Whether Kafka has acknowledged the task's record.
    pub queued: bool,
}

/// The answer to a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// The key belongs to the caller's task, which can be sent.
    New,
    /// The key belongs to an earlier submit.
    Taken(Taken),
}

/// Reserves a key for a task.
pub(crate) fn reserve(slot: &mut Option<Taken>, id: &TaskId) -> Reserved {
    match slot {
        Some(taken) if taken.id == *id && !taken.queued => Reserved::New,
        Some(taken) => Reserved::Taken(taken.clone()),
        None => {
            *slot = Some(Taken { id: id.clone(), queued: false });
            Reserved::New
        }
    }
}

/// Notes that Kafka has the task. `false`: the key is free or belongs to another task, and nothing changes.
pub(crate) fn confirm(slot: &mut Option<Taken>, id: &TaskId) -> bool {
    let Some(taken) = slot.as_mut().filter(|taken| taken.id == *id) else { return false };
    taken.queued = true;
    true
}
