//! A task as a Kafka record: JSON that any language can produce.
//!
//! Required are `task-id`, `task` and `args`; everything else has a default. Fields that this version does
//! not know are kept when a record is published again.

use std::{borrow::Cow, collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{
    failure::Failure,
    record::{Record, TaskOptions},
};
use crate::core::{
    names::{NameError, Queue, TaskId},
    priority::Priority,
    text::cut,
    unique::MAX_KEY_BYTES,
};

/// The largest number or time in ms that a record may have. Scripts in Redis compute with doubles, which are exact up to here.
pub(crate) const MAX_NUMBER: u64 = 1 << 52;

/// The largest `seq` that a record may have. The task of such a record can't go on under another one.
pub(crate) const MAX_SEQ: u64 = MAX_NUMBER - 1;

/// Longest name of a task or client, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 256;

/// What JSON takes for whitespace.
const JSON_WHITESPACE: [char; 4] = [' ', '\n', '\r', '\t'];

/// Why a record is not a task.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum Unreadable {
    /// The record has no value.
    #[error("the record has no value")]
    Empty,
    /// The record is larger than the worker takes.
    #[error("the record has {len} bytes, more than this worker's limit of {max}")]
    TooLarge {
        /// The record's size in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The value is not UTF-8.
    #[error("the record is not UTF-8 after byte {valid}")]
    NotUtf8 {
        /// Number of bytes at the start that are UTF-8.
        valid: usize,
    },
    /// The value is JSON, but no object.
    #[error("the record is not a JSON object")]
    NotAnObject,
    /// The value is not JSON, or lacks a required field.
    #[error("the record is not a task: {0}")]
    NotATask(String),
    /// The id is empty or too long.
    #[error(transparent)]
    Id(#[from] NameError),
    /// A text is longer than it may be.
    #[error("`{field}` has {len} bytes, more than {max}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// The text's length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The `seq` has no room to grow.
    #[error("`seq` is {seq}, more than {MAX_SEQ}")]
    Seq {
        /// The `seq`.
        seq: u64,
    },
    /// `args` is neither an array nor an object.
    #[error("`args` must be an array (by position) or an object (by parameter name)")]
    Args,
}

impl From<serde_json::Error> for Unreadable {
    /// The text of the error may quote the whole record, so it is cut.
    fn from(error: serde_json::Error) -> Self {
        Self::NotATask(cut(error.to_string(), Failure::MAX_MESSAGE))
    }
}

/// The arguments of a task, as they are in its record.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    record: Bytes,
    values: Range<usize>,
    params: Option<Range<usize>>,
}

impl Args {
    /// The JSON text: an array or an object.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        self.text(&self.values)
    }

    /// The JSON text of the names of the parameters that an array is for, if the record has them.
    #[must_use]
    pub(crate) fn params(&self) -> Option<&str> {
        self.params.as_ref().map(|range| self.text(range))
    }

    fn text(&self, range: &Range<usize>) -> &str {
        std::str::from_utf8(&self.record[range.clone()]).unwrap_or_default()
    }
}

/// A checked record of a task. [`Record`] documents the fields.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub id: TaskId,
    pub task: Arc<str>,
    pub args: Args,
    pub seq: u64,
    pub attempt: u32,
    pub reply_to: Option<Arc<str>>,
    pub options: TaskOptions,
    pub expires: Option<u64>,
    pub unique: Option<Arc<str>>,
    pub priority: Priority,
    pub ordering_key: Option<Arc<str>>,
    pub eta: Option<u64>,
    pub limit_slot: Option<u64>,
    pub last_error: Option<Arc<Failure>>,
    pub replayed: Option<u64>,
    pub unknown_since: Option<u64>,
}

impl Envelope {
    /// Reads and checks a record's value.
    ///
    /// # Errors
    /// The bytes are not a task; the error says why.
    pub(crate) fn read(record: &Bytes) -> Result<Self, Unreadable> {
        if record.is_empty() {
            return Err(Unreadable::Empty);
        }
        let text = std::str::from_utf8(record).map_err(|e| Unreadable::NotUtf8 { valid: e.valid_up_to() })?;
        // The fields of a task could be read from an array too, which could not be published again.
        if text.trim_start_matches(JSON_WHITESPACE).starts_with('[') {
            return Err(Unreadable::NotAnObject);
        }
        let reading: Record<'_> = serde_json::from_str(text)?;
        let args = reading.args.get();
        if !args.starts_with(['[', '{']) {
            return Err(Unreadable::Args);
        }
        let reply_to = reading.reply_to.as_deref().unwrap_or_default();
        for (field, text) in [("task", &*reading.task), ("reply-to", reply_to)] {
            if text.len() > MAX_NAME_BYTES {
                return Err(Unreadable::TooLong { field, len: text.len(), max: MAX_NAME_BYTES });
            }
        }
        let seq = reading.seq.unwrap_or(1).max(1);
        if seq > MAX_SEQ {
            return Err(Unreadable::Seq { seq });
        }
        let options = reading.options();
        let ordering_key = reading.ordering_key.filter(|key| !key.is_empty());
        if let Some(len) = ordering_key.as_ref().map(|key| key.len()).filter(|&len| len > MAX_KEY_BYTES) {
            return Err(Unreadable::TooLong { field: "ordering-key", len, max: MAX_KEY_BYTES });
        }
        let range = |part: &str| {
            let start = part.as_ptr() as usize - text.as_ptr() as usize;
            start..start + part.len()
        };
        let (values, params) = (range(args), reading.params.map(|params| range(params.get())));
        Ok(Self {
            id: reading.task_id.parse()?,
            task: reading.task.into(),
            args: Args { record: record.clone(), values, params },
            seq,
            attempt: reading.attempt.unwrap_or(1).max(1),
            reply_to: reading.reply_to.map(Into::into),
            options,
            expires: reading.expires,
            // The key is only a hint for the worker, so a key that is too long is ignored.
            unique: reading.unique.filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len())).map(Into::into),
            priority: reading.priority,
            ordering_key: ordering_key.map(Into::into),
            eta: reading.eta.map(|eta| eta.min(MAX_NUMBER)),
            limit_slot: reading.limit_slot,
            last_error: reading.last_error.map(Arc::new),
            replayed: reading.replayed,
            unknown_since: reading.unknown_since,
        })
    }

    /// The key of the task's record in a queue: the ordering key, so that its tasks are in one partition, else the id.
    #[must_use]
    pub(crate) fn key(&self) -> Bytes {
        self.ordering_key.as_deref().unwrap_or(self.id.as_str()).to_owned().into()
    }
}

/// The fields that change when a task's next record is published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FollowUp<'a> {
    /// The `seq` of the next record.
    pub seq: u64,
    /// The attempt that the next record asks for.
    pub attempt: u32,
    /// The time before which the task must not start, in ms since the Unix epoch; `None`: it may start at once.
    pub eta: Option<u64>,
    /// The queue to which a delayed record goes at that time.
    pub queue: &'a str,
    /// The priority in that queue.
    pub priority: Priority,
    /// The time at which limits allow the task to start, in ms since the Unix epoch; `None`: it does not wait for limits.
    pub limit_slot: Option<u64>,
    /// Since when the task waits for a worker that knows its name, in ms since the Unix epoch; `None`: it does not.
    pub unknown_since: Option<u64>,
    /// The failure that led to the next record, as JSON text, if there was one.
    pub error: Option<&'a str>,
}

/// The task's next record. All other fields stay as they are.
///
/// # Errors
/// The bytes are not a JSON object.
pub(crate) fn follow_up(record: &[u8], next: FollowUp<'_>) -> Result<Bytes, serde_json::Error> {
    let error = next.error.map(|text| RawValue::from_string(text.to_owned())).transpose()?;
    let slot = next.limit_slot.map(json);
    changed(record, |fields| {
        fields.insert("seq", json(next.seq));
        fields.insert("attempt", json(next.attempt));
        fields.set("last-error", error);
        fields.set("limit-slot", slot);
        fields.set("unknown-since", next.unknown_since.map(json));
        fields.set("eta", next.eta.map(json));
        if next.eta.is_some() {
            fields.insert("queue", json(next.queue));
            fields.insert("priority", json(next.priority));
        }
    })
}

/// The same record with another task id.
///
/// # Errors
/// The bytes are not a JSON object.
pub(crate) fn under(record: &[u8], id: &str) -> Result<Bytes, serde_json::Error> {
    changed(record, |fields| fields.insert("task-id", json(id)))
}

/// The record without the error of the attempt before; `None` if it has none.
#[must_use]
pub(crate) fn without_error(record: &[u8]) -> Option<Bytes> {
    let mut had_one = false;
    let without = changed(record, |fields| had_one = fields.set("last-error", None)).ok();
    without.filter(|_| had_one)
}

/// The record of a task that an operator has run again at this time, in ms since the Unix epoch.
///
/// # Errors
/// The bytes are not a JSON object.
pub(crate) fn replayed(record: &[u8], at: u64) -> Result<Bytes, serde_json::Error> {
    changed(record, |fields| fields.insert("replayed", json(at)))
}

/// The record with another `eta`, or without one.
///
/// # Errors
/// The bytes are not a JSON object.
pub(crate) fn at(record: &[u8], eta: Option<u64>) -> Result<Bytes, serde_json::Error> {
    changed(record, |fields| fields.set("eta", eta.map(json)))
}

/// The record without its due time, and without the queue to which it was to go then.
///
/// # Errors
/// The bytes are not a JSON object.
pub(crate) fn without_wait(record: &[u8]) -> Result<Bytes, serde_json::Error> {
    changed(record, |fields| {
        fields.set("eta", None);
        fields.set("queue", None);
    })
}

/// The fields of a record, by name.
#[derive(Deserialize, Serialize)]
#[serde(transparent)]
struct Fields<'a>(#[serde(borrow)] BTreeMap<Cow<'a, str>, Box<RawValue>>);

impl Fields<'_> {
    fn insert(&mut self, name: &'static str, value: Box<RawValue>) {
        self.0.insert(name.into(), value);
    }

    /// Sets a field, or removes it. Returns whether the record had the field.
    fn set(&mut self, name: &'static str, value: Option<Box<RawValue>>) -> bool {
        match value {
            Some(value) => self.0.insert(name.into(), value).is_some(),
            None => self.0.remove(name).is_some(),
        }
    }
}

/// The record with some fields changed. All other fields stay as they are.
fn changed<T>(record: &[u8], change: impl FnOnce(&mut Fields<'_>) -> T) -> Result<Bytes, serde_json::Error> {
    let mut fields: Fields<'_> = serde_json::from_slice(record)?;
    change(&mut fields);
    Ok(serde_json::to_vec(&fields)?.into())
}

fn json(value: impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(&value).expect("numbers and strings are always JSON")
}

/// A delayed task that is due.
#[derive(Debug)]
pub(crate) struct Due {
    /// The queue to which the task goes.
    pub queue: Queue,
    /// The task's priority in that queue.
    pub priority: Priority,
    /// The key of the task's record.
    pub key: Bytes,
    /// The task's record, without the due time.
    pub record: Bytes,
}

/// Where a delayed record goes when it is due.
///
/// # Errors
/// The record is not a task.
pub(crate) fn due(record: &Bytes) -> Result<Due, Unreadable> {
    #[derive(Deserialize)]
    struct Destination {
        queue: Option<String>,
    }
    let task = Envelope::read(record)?;
    let destination: Destination = serde_json::from_slice(record)?;
    let queue = destination.queue.map(|queue| queue.parse()).transpose()?.unwrap_or_default();
    let (priority, key) = (task.priority, task.key());
    Ok(Due { queue, priority, key, record: at(record, None)? })
}

/// The key of a delayed record. Every `seq` of a task has its own.
#[must_use]
pub(crate) fn delayed_key(id: &TaskId, seq: u64) -> Bytes {
    format!("{id}/{seq}").into()
}

/// The task and `seq` of a delayed record with this key, if it is one.
#[must_use]
pub(crate) fn of_delayed_key(key: &[u8]) -> Option<(&str, u64)> {
    let (id, seq) = std::str::from_utf8(key).ok()?.rsplit_once('/')?;
    let is_number = seq.bytes().all(|byte| byte.is_ascii_digit());
    Some((id, is_number.then(|| seq.parse().ok())??))
}

/// When a delayed record is due, in ms since the Unix epoch. A record that cannot be read is due at once.
#[must_use]
pub(crate) fn eta(record: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Eta {
        eta: Option<u64>,
    }
    // An array would be read as well.
    let is_object = record.trim_ascii_start().first() == Some(&b'{');
    let eta = serde_json::from_slice::<Eta>(record).ok().filter(|_| is_object).and_then(|read| read.eta);
    eta.unwrap_or(0).min(MAX_NUMBER)
}
