//! The fields of a task's record, and the options that tasks and calls choose.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::failure::Failure;
use crate::{
    clock::millis,
    core::{priority::Priority, retry::Retry},
};

/// Longest duration in a record. Timers accept no longer one.
const MAX_DURATION_MS: u64 = 365 * 24 * 3_600_000;

/// A task's record as it is in JSON: a client writes it, and [`Envelope::read`](super::envelope::Envelope::read) checks
/// it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Record<'a> {
    /// The task's id.
    #[serde(borrow)]
    pub task_id: Cow<'a, str>,
    /// The task's name.
    #[serde(borrow)]
    pub task: Cow<'a, str>,
    /// The arguments: an array or an object.
    #[serde(borrow)]
    pub args: &'a RawValue,
    /// The names of the parameters for which the arguments in an array are. Default: they are for the worker's parameters, in
    /// their order.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub params: Option<&'a RawValue>,
    /// The number of this record among those of its task, from 1. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The attempt that this record asks for, from 1. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The client that waits for the result. Default: none does.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Cow<'a, str>>,
    /// See [`TaskOptions::timeout`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// See [`TaskOptions::soft_timeout`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_timeout_ms: Option<u64>,
    /// See [`TaskOptions::result_ttl`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_ttl_ms: Option<u64>,
    /// The time after which the task must not start, in ms since the Unix epoch. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// The unique key, which the sender has reserved. Default: the call is not unique.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub unique: Option<Cow<'a, str>>,
    /// The ordering key: tasks with the same key run one after the other, in the order of their records. Default: no order.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<Cow<'a, str>>,
    /// The priority. Every priority of a queue has its own topic. Default: normal.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// See [`TaskOptions::retry`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// The time before which the task must not start, in ms since the Unix epoch. Default: it may start at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<u64>,
    /// The queue to which a delayed record goes when it is due. Only [`due`](super::envelope::due) reads it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Cow<'a, str>>,
    /// The time at which limits allowed the task to start, in ms since the Unix epoch. Default: it did not wait for limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_slot: Option<u64>,
    /// The error of the attempt before this one. Default: there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Failure>,
    /// When an operator had the task run again, in ms since the Unix epoch: it lifts earlier revocations. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<u64>,
    /// Since when the task waits for a worker that knows its name, in ms since the Unix epoch. Default: it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_since: Option<u64>,
}

impl<'a> Record<'a> {
    /// The record of a task's first attempt. All fields that are not passed have their defaults.
    #[must_use]
    pub(crate) fn new(task_id: &'a str, task: &'a str, args: &'a RawValue, options: &TaskOptions) -> Self {
        Self {
            task_id: task_id.into(),
            task: task.into(),
            args,
            params: None,
            seq: None,
            attempt: None,
            reply_to: None,
            timeout_ms: options.timeout.map(millis),
            soft_timeout_ms: options.soft_timeout.map(millis),
            result_ttl_ms: options.result_ttl.map(millis),
            expires: None,
            unique: None,
            ordering_key: None,
            priority: Priority::Normal,
            retry: Some(options.retry).filter(|retry| !retry.is_empty()),
            eta: None,
            queue: None,
            limit_slot: None,
            last_error: None,
            replayed: None,
            unknown_since: None,
        }
    }

    /// The task's options. Values out of range are replaced by the nearest allowed ones.
    pub(super) fn options(&self) -> TaskOptions {
        TaskOptions {
            timeout: self.timeout_ms.map(|ms| Duration::from_millis(ms.clamp(1, MAX_DURATION_MS))),
            soft_timeout: self.soft_timeout_ms.map(|ms| Duration::from_millis(ms.clamp(1, MAX_DURATION_MS))),
            result_ttl: self.result_ttl_ms.map(|ms| Duration::from_millis(ms.min(MAX_DURATION_MS))),
            retry: self.retry.unwrap_or_default(),
        }
    }

    /// The record's value.
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings, numbers and checked JSON are always JSON").into()
    }
}

/// The options that a task's definition sets and a call can override. The call's values are in the record. A worker applies
/// `record.or(task).or(worker)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskOptions {
    /// The longest time that one run may take. Default: no limit.
    pub timeout: Option<Duration>,
    /// How long one run may take before it is asked to end; it goes on if it does not. Default: 90 % of the timeout.
    pub soft_timeout: Option<Duration>,
    /// How long the result is kept; zero keeps none. Default: 24 h.
    pub result_ttl: Option<Duration>,
    /// The number of retries and the delays between them. Default: that of [`Retry`].
    pub retry: Retry,
}

impl TaskOptions {
    /// These options, with those of `other` where they are not set.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            timeout: self.timeout.or(other.timeout),
            soft_timeout: self.soft_timeout.or(other.soft_timeout),
            result_ttl: self.result_ttl.or(other.result_ttl),
            retry: self.retry.or(other.retry),
        }
    }

    /// When a run is asked to end: before its timeout, so that it has time to.
    pub(crate) fn asks_to_end_after(&self) -> Option<Duration> {
        let soft = self.soft_timeout.filter(|soft| self.timeout.is_none_or(|hard| *soft < hard));
        soft.or_else(|| self.timeout.map(asks_to_end_within))
    }

    /// Checks the options of a call. The error is the field that is wrong, and the problem.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        for (field, time) in [("timeout", self.timeout), ("soft_timeout", self.soft_timeout)] {
            if time.is_some_and(|time| time < Duration::from_millis(1)) {
                return Err((field, "must be at least 1 ms".to_owned()));
            }
        }
        if self.soft_timeout.zip(self.timeout).is_some_and(|(soft, hard)| soft >= hard) {
            return Err(("soft_timeout", "must be shorter than the timeout".to_owned()));
        }
        if self.result_ttl.is_some_and(|ttl| ttl > Duration::from_millis(MAX_DURATION_MS)) {
            return Err(("result_ttl", "must be at most 365 days".to_owned()));
        }
        self.retry.check()
    }
}

/// When what may take this long is asked to end, unless another time is set: 90 % of it leave some to do so.
pub(crate) fn asks_to_end_within(limit: Duration) -> Duration {
    limit / 10 * 9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_decides_before_the_task_and_the_task_before_the_worker() {
        let time = Duration::from_secs;
        let options = |timeout: Option<u64>, ttl: Option<u64>, retry| TaskOptions {
            timeout: timeout.map(time),
            result_ttl: ttl.map(time),
            retry,
            ..TaskOptions::default()
        };
        let record = options(Some(1), None, Retry::new().max(7));
        let task = options(Some(2), Some(3), Retry::new().max(1).base(time(4)));
        let worker = options(None, Some(5), Retry::new().base(time(6)).cap(time(7)));
        let expected = options(Some(1), Some(3), Retry::new().max(7).base(time(4)).cap(time(7)));
        assert_eq!(record.or(task).or(worker), expected);
    }
}
