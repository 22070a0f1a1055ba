//! A task as a Kafka record: JSON that any language can produce.
//!
//! Required are `task-id`, `task` and `args`; everything else has a default. Fields that this version does
//! not know are kept when a record is published again.

use std::{borrow::Cow, collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::failure::Failure;
use crate::core::{
    names::{NameError, Queue, TaskId},
    priority::Priority,
    retry::Retry,
    unique::MAX_KEY,
};

/// A year in ms: no duration in a record means more, and timers take no more.
const MAX_MS: u64 = 365 * 24 * 3_600_000;
/// The largest number, and the last time in ms, in a record: the store's scripts count in doubles.
pub const MAX_NUMBER: u64 = 1 << 52;

/// The longest name of a task or client, in bytes.
pub const MAX_NAME: usize = 256;

/// Why a record is not a task.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// The record has no value.
    #[error("the record has no value")]
    Empty,
    /// The record is larger than the worker takes.
    #[error("the record has {len} bytes, more than this worker's limit of {max}")]
    TooLarge {
        /// Its size in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The value is not UTF-8.
    #[error("the record is not UTF-8 after byte {valid}")]
    NotUtf8 {
        /// How many bytes are.
        valid: usize,
    },
    /// The value is not a JSON object with the required fields.
    #[error("the record is not a task: {0}")]
    NotATask(#[source] serde_json::Error),
    /// The id is empty or too long.
    #[error(transparent)]
    Id(#[from] NameError),
    /// A text is longer than it may be.
    #[error("`{field}` has {len} bytes, more than {max}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// `args` is neither an array nor an object.
    #[error("`args` must be an array (by position) or an object (by parameter name)")]
    Args,
}

/// The arguments of a task, as they stand in its record.
#[derive(Clone, Debug)]
pub struct Args {
    record: Bytes,
    range: Range<usize>,
}

impl Args {
    /// The JSON text: an array or an object.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.record[self.range.clone()]).unwrap_or_default()
    }
}

/// What a worker reads from a record.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The task's id.
    pub id: TaskId,
    /// The task's name.
    pub task: Arc<str>,
    /// The arguments.
    pub args: Args,
    /// How often the task was handed on, from 1.
    pub seq: u64,
    /// The attempt that this record asks for, from 1.
    pub attempt: u32,
    /// The client that waits for the result.
    pub reply_to: Option<Arc<str>>,
    /// Overrides the task's timeout.
    pub timeout_ms: Option<u64>,
    /// Overrides how long the result is kept; 0: the result is not kept.
    pub result_ttl_ms: Option<u64>,
    /// After that it must not start any more, in ms since the Unix epoch.
    pub expires: Option<u64>,
    /// The unique key under which it was sent; its client has reserved it.
    pub unique: Option<Arc<str>>,
    /// The priority it was sent with.
    pub priority: Priority,
    /// Tasks of one key run one after the other, in the order of their records.
    pub ordering_key: Option<Arc<str>>,
    /// Before that it must not start, in ms since the Unix epoch.
    pub eta: Option<u64>,
    /// Overrides when failed attempts are made again.
    pub retry: Retry,
    /// When it was let in by the limits for which it waited, in ms since the Unix epoch.
    pub limit_slot: Option<u64>,
    /// Why the attempt before this one failed.
    pub last_error: Option<Arc<Failure>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Reading<'a> {
    #[serde(borrow)]
    task_id: Cow<'a, str>,
    #[serde(borrow)]
    task: Cow<'a, str>,
    #[serde(borrow)]
    args: &'a RawValue,
    seq: Option<u64>,
    attempt: Option<u32>,
    #[serde(borrow)]
    reply_to: Option<Cow<'a, str>>,
    timeout_ms: Option<u64>,
    result_ttl_ms: Option<u64>,
    expires: Option<u64>,
    #[serde(borrow)]
    unique: Option<Cow<'a, str>>,
    #[serde(default)]
    priority: Priority,
    #[serde(borrow)]
    ordering_key: Option<Cow<'a, str>>,
    eta: Option<u64>,
    retry: Option<Retry>,
    limit_slot: Option<u64>,
    last_error: Option<Failure>,
}

impl Envelope {
    /// Reads a record's value.
    ///
    /// # Errors
    /// Says what keeps the bytes from being a task.
    pub fn read(record: &Bytes) -> Result<Self, Unreadable> {
        if record.is_empty() {
            return Err(Unreadable::Empty);
        }
        let text = std::str::from_utf8(record).map_err(|e| Unreadable::NotUtf8 { valid: e.valid_up_to() })?;
        let reading: Reading<'_> = serde_json::from_str(text).map_err(Unreadable::NotATask)?;
        let args = reading.args.get();
        if !args.starts_with(['[', '{']) {
            return Err(Unreadable::Args);
        }
        let reply_to = reading.reply_to.as_deref().unwrap_or_default();
        for (field, text) in [("task", &*reading.task), ("reply-to", reply_to)] {
            if text.len() > MAX_NAME {
                return Err(Unreadable::TooLong { field, len: text.len(), max: MAX_NAME });
            }
        }
        let ordering_key = reading.ordering_key.filter(|key| !key.is_empty());
        if let Some(len) = ordering_key.as_ref().map(|key| key.len()).filter(|&len| len > MAX_KEY) {
            return Err(Unreadable::TooLong { field: "ordering-key", len, max: MAX_KEY });
        }
        let start = args.as_ptr() as usize - text.as_ptr() as usize;
        Ok(Self {
            id: reading.task_id.parse()?,
            task: reading.task.into(),
            args: Args { record: record.clone(), range: start..start + args.len() },
            seq: reading.seq.unwrap_or(1).clamp(1, MAX_NUMBER),
            attempt: reading.attempt.unwrap_or(1).max(1),
            reply_to: reading.reply_to.map(Into::into),
            timeout_ms: reading.timeout_ms.map(|ms| ms.clamp(1, MAX_MS)),
            result_ttl_ms: reading.result_ttl_ms.map(|ms| ms.min(MAX_MS)),
            expires: reading.expires,
            // Only a hint, so none that is too long is an error.
            unique: reading.unique.filter(|key| (1..=MAX_KEY).contains(&key.len())).map(Into::into),
            priority: reading.priority,
            ordering_key: ordering_key.map(Into::into),
            eta: reading.eta.map(|eta| eta.min(MAX_NUMBER)),
            retry: reading.retry.unwrap_or_default(),
            limit_slot: reading.limit_slot,
            last_error: reading.last_error.map(Arc::new),
        })
    }

    /// The key of its record in a queue: what keeps it among its own kind, else its id.
    #[must_use]
    pub fn key(&self) -> Bytes {
        self.ordering_key.as_deref().unwrap_or(self.id.as_str()).to_owned().into()
    }
}

/// What a client writes into a record.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct NewRecord<'a> {
    /// The task's id.
    pub task_id: &'a str,
    /// The task's name.
    pub task: &'a str,
    /// JSON text of an array or an object.
    pub args: &'a RawValue,
    /// The client that waits for the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<&'a str>,
    /// Overrides the task's timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Overrides how long the result is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_ttl_ms: Option<u64>,
    /// After that it must not start any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// The unique key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique: Option<&'a str>,
    /// What it is ordered by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<&'a str>,
    /// Which of the queue's topics it is sent to.
    #[serde(skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// Overrides when failed attempts are made again.
    #[serde(skip_serializing_if = "Retry::is_empty")]
    pub retry: Retry,
    /// Before that it must not start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<u64>,
    /// Where it goes when its time has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<&'a str>,
}

impl NewRecord<'_> {
    /// The record's value.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings, numbers and checked JSON are always JSON").into()
    }
}

/// What a record's next step changes in it.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The next `seq`.
    pub seq: u64,
    /// Its attempt.
    pub attempt: u32,
    /// When it may run; `None`: at once, whatever the record said.
    pub eta: Option<u64>,
    /// Where it goes then.
    pub queue: &'a str,
    /// And how soon it runs there.
    pub priority: Priority,
    /// When the limits let it in, if it was they that made it wait.
    pub limit_slot: Option<u64>,
    /// JSON text of why it goes on.
    pub error: Option<&'a str>,
}

/// The record of the next step, with every other field as it was.
///
/// # Errors
/// The bytes are not a JSON object.
pub fn hand_on(record: &[u8], step: Step<'_>) -> Result<Bytes, serde_json::Error> {
    let error = step.error.map(|text| RawValue::from_string(text.to_owned())).transpose()?;
    let slot = step.limit_slot.map(json);
    changed(record, |fields| {
        fields.insert("seq", json(step.seq));
        fields.insert("attempt", json(step.attempt));
        fields.set("last-error", error);
        fields.set("limit-slot", slot);
        fields.set("eta", step.eta.map(json));
        if step.eta.is_some() {
            fields.insert("queue", json(step.queue));
            fields.insert("priority", json(step.priority));
        }
    })
}

/// The same record as one of another task.
///
/// # Errors
/// The bytes are not a JSON object.
pub fn under(record: &[u8], id: &str) -> Result<Bytes, serde_json::Error> {
    changed(record, |fields| fields.insert("task-id", json(id)))
}

/// The record without the reason why the attempt before failed, if it has one.
#[must_use]
pub fn without_error(record: &[u8]) -> Option<Bytes> {
    let mut had_one = false;
    let without = changed(record, |fields| had_one = fields.set("last-error", None)).ok();
    without.filter(|_| had_one)
}

/// The record with another time, or without one.
///
/// # Errors
/// The bytes are not a JSON object.
pub fn at(record: &[u8], eta: Option<u64>) -> Result<Bytes, serde_json::Error> {
    changed(record, |fields| fields.set("eta", eta.map(json)))
}

/// The fields of a record, by name.
#[derive(Deserialize, Serialize)]
#[serde(transparent)]
struct Fields<'a>(#[serde(borrow)] BTreeMap<Cow<'a, str>, Box<RawValue>>);

impl Fields<'_> {
    fn insert(&mut self, name: &'static str, value: Box<RawValue>) {
        self.0.insert(name.into(), value);
    }

    /// Whether there was one before.
    fn set(&mut self, name: &'static str, value: Option<Box<RawValue>>) -> bool {
        match value {
            Some(value) => self.0.insert(name.into(), value).is_some(),
            None => self.0.remove(name).is_some(),
        }
    }
}

/// The record with some fields changed, and every other as it was.
fn changed<T>(record: &[u8], change: impl FnOnce(&mut Fields<'_>) -> T) -> Result<Bytes, serde_json::Error> {
    let mut fields: Fields<'_> = serde_json::from_slice(record)?;
    change(&mut fields);
    Ok(serde_json::to_vec(&fields)?.into())
}

fn json(value: impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(&value).expect("numbers and strings are always JSON")
}

/// A task that has waited for its time.
#[derive(Debug)]
pub struct Due {
    /// Where it goes now.
    pub queue: Queue,
    /// And how soon it runs there.
    pub priority: Priority,
    /// The key of its record.
    pub key: Bytes,
    /// Its record, without its time.
    pub record: Bytes,
}

/// What becomes of a delayed record when its time has come.
///
/// # Errors
/// It is not a task.
pub fn due(record: &Bytes) -> Result<Due, Unreadable> {
    #[derive(Deserialize)]
    struct Goes {
        queue: Option<String>,
    }
    let task = Envelope::read(record)?;
    let goes: Goes = serde_json::from_slice(record).map_err(Unreadable::NotATask)?;
    let queue = goes.queue.map(|queue| queue.parse()).transpose()?.unwrap_or_default();
    let (priority, key) = (task.priority, task.key());
    Ok(Due { queue, priority, key, record: at(record, None).map_err(Unreadable::NotATask)? })
}

/// The key of a delayed record: one step of one task.
#[must_use]
pub fn delayed_key(id: &TaskId, seq: u64) -> Bytes {
    format!("{id}/{seq}").into()
}

/// When a delayed record is due, in ms since the Unix epoch. What cannot be read is due at once.
#[must_use]
pub fn eta(record: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Eta {
        eta: Option<u64>,
    }
    serde_json::from_slice::<Eta>(record).ok().and_then(|read| read.eta).unwrap_or(0).min(MAX_NUMBER)
}
