//! Unique keys: the first submit reserves one, the later ones are told its task.
//!
//! ```text
//!            reserve            confirm
//!  free ──────────► pending ──────────► queued ──► free, when its time is over
//! ```
//! `pending` is not known to be in Kafka: its caller may have died on the way. So whoever meets it sends a record of its
//! own under the same id, and two records of one id are one task. As everywhere, a call that is sent twice gives the same
//! answer the second time.

use std::sync::Arc;

use super::names::TaskId;

/// The longest key, in bytes.
pub const MAX_KEY: usize = 256;

/// A unique key: that of a task's name and of what the sender chose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UniqueKey {
    /// The task's name.
    pub task: Arc<str>,
    /// What the sender chose.
    pub key: Arc<str>,
}

/// What is kept of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The task of the first submit.
    pub id: TaskId,
    /// Whether Kafka is known to have it.
    pub queued: bool,
}

/// The answer to a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The key is the caller's: its task can be sent.
    New,
    /// An earlier submit has it.
    Taken(Taken),
}

/// Asks for a key on behalf of a task.
pub fn reserve(slot: &mut Option<Taken>, id: &TaskId) -> Reserved {
    match slot {
        Some(taken) if taken.id == *id && !taken.queued => Reserved::New,
        Some(taken) => Reserved::Taken(taken.clone()),
        None => {
            *slot = Some(Taken { id: id.clone(), queued: false });
            Reserved::New
        }
    }
}

/// Kafka has the task. `false`: the key is free, or another task's, and nothing changes.
pub fn confirm(slot: &mut Option<Taken>, id: &TaskId) -> bool {
    let Some(taken) = slot.as_mut().filter(|taken| taken.id == *id) else { return false };
    taken.queued = true;
    true
}
