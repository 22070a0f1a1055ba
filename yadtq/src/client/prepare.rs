//! From a call to what is sent: checks everything, and writes the record.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Client, LONGEST_TTL, ordering};
use crate::{
    broker::Outgoing,
    call::Call,
    core::{
        names::{Queue, TaskId},
        unique::UniqueKey,
    },
    error::Error,
    store::Submission,
    wire::envelope::{MAX_NAME, NewRecord, delayed_key},
};

/// The first instant that is no time for a task, in ms since the Unix epoch: whoever writes that means never.
const YEAR_9999_MS: u64 = 253_370_764_800_000;

/// A call, ready for both servers.
pub(super) struct Prepared {
    pub(super) record: Outgoing,
    pub(super) submission: Submission,
    pub(super) may_have_ended: bool,
    /// Its key, and for how many ms it is kept.
    pub(super) unique: Option<(UniqueKey, u64)>,
    /// No earlier call has the key.
    pub(super) is_new: bool,
}

impl Client {
    pub(super) fn prepare<T>(&self, call: Call<T>) -> Result<Prepared, Error> {
        if let Some(key) = &call.ordering_key {
            ordering::check(key, &call)?;
        }
        let queue: Queue = match call.queue {
            Some(name) => name.parse()?,
            None => Queue::default(),
        };
        check_name(&call.task)?;
        if call.timeout.is_some_and(|timeout| timeout < Duration::from_millis(1)) {
            return Err(Error::config("timeout", "must be at least 1 ms"));
        }
        if call.expires.is_some_and(|time| time < Duration::from_millis(1)) {
            return Err(Error::config("expires_in", "must be at least 1 ms"));
        }
        if call.result_ttl.is_some_and(|ttl| ttl > LONGEST_TTL) {
            return Err(Error::config("result_ttl", "must be at most 365 days"));
        }
        call.retry.check().map_err(|(field, problem)| Error::config(field, problem))?;
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now_ms = self.inner.config.clock.now_ms();
        let expires = call.expires.map(|time| now_ms.saturating_add(ms(time)));
        let eta = eta_ms(call.countdown, call.eta, now_ms)?;
        if eta.zip(expires).is_some_and(|(eta, expires)| expires <= eta) {
            return Err(Error::config("expires_in", "is over before the task may run (`countdown` or `eta`)"));
        }
        // Only an id that was chosen can be that of a task which has ended already.
        let may_have_ended = call.id.is_some();
        let (id, args) = (call.id.unwrap_or_else(TaskId::new), call.args?);
        let unique = call.unique.map(|unique| unique.key(&call.task, &args)).transpose()?;
        let record = NewRecord {
            task_id: id.as_str(),
            task: &call.task,
            args: &args,
            reply_to: Some(&self.inner.id),
            timeout_ms: call.timeout.map(ms),
            result_ttl_ms: call.result_ttl.map(ms),
            priority: call.priority,
            ordering_key: call.ordering_key.as_deref(),
            expires,
            retry: call.retry,
            eta,
            queue: eta.map(|_| queue.as_str()),
            unique: unique.as_ref().map(|(key, _)| &*key.key),
        };
        let value = record.to_bytes();
        if value.len() > self.inner.config.max_record_bytes {
            let max = self.inner.config.max_record_bytes;
            return Err(Error::TooLarge { task: call.task.into_owned(), len: value.len(), max });
        }
        let namespace = &self.inner.config.namespace;
        let (topic, key) = match eta {
            Some(_) => (namespace.delayed_topic().into(), delayed_key(&id, 1)),
            None => {
                // Kafka keeps the order of one key, in one partition.
                let key = call.ordering_key.unwrap_or_else(|| id.as_str().to_owned());
                (namespace.topic_of(&queue, call.priority).into(), key.into())
            }
        };
        let reply_to = Some(Arc::clone(&self.inner.id));
        let submission = Submission { id, task: call.task.into(), queue: queue.shared(), reply_to, eta };
        Ok(Prepared {
            record: Outgoing { topic, key, value, partition: None, headers: Vec::new() },
            submission,
            may_have_ended,
            unique,
            is_new: true,
        })
    }
}

/// Whether a task can have this name.
pub(crate) fn check_name(task: &str) -> Result<(), Error> {
    match task.len() {
        1..=MAX_NAME => Ok(()),
        len => Err(Error::config("task", format!("a name has 1 to {MAX_NAME} bytes, this one has {len}"))),
    }
}

/// When a task may run, in ms since the Unix epoch, if that is not now.
fn eta_ms(countdown: Option<Duration>, eta: Option<SystemTime>, now_ms: u64) -> Result<Option<u64>, Error> {
    let (field, at_ms) = match (countdown, eta) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Error::config("eta", "is given beside `countdown`; give one of the two")),
        (Some(Duration::ZERO), _) => {
            return Err(Error::config("countdown", "must be more than zero; leave it out to run at once"));
        }
        // Never early: a part of a millisecond counts as one.
        (Some(time), _) => ("countdown", time.as_micros().div_ceil(1_000).saturating_add(now_ms.into())),
        (_, Some(time)) => {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            ("eta", since.as_micros().div_ceil(1_000))
        }
    };
    match u64::try_from(at_ms) {
        Ok(at_ms) if at_ms < YEAR_9999_MS => Ok(Some(at_ms).filter(|&at_ms| at_ms > now_ms)),
        _ => Err(Error::config(field, "must be before the year 9999")),
    }
}
