//! Checks a call, and makes the record that is sent for it.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{CallSpec, Client, inherited, ordering};
use crate::{
    broker::Outgoing,
    clock::millis,
    core::{
        names::{Queue, TaskId},
        text::is_plain,
        unique::UniqueKey,
    },
    error::Error,
    store::Submission,
    wire::{
        envelope::{MAX_NAME_BYTES, delayed_key},
        record::Record,
    },
};

/// The first time, in ms since the Unix epoch, that is refused as a due time. A time that late usually stands for never.
const YEAR_9999_MS: u64 = 253_370_764_800_000;

/// A checked call: what goes to Kafka and what goes to Redis.
pub(super) struct Prepared {
    pub(super) record: Outgoing,
    pub(super) submission: Submission,
    /// Whether a task with this id may already have ended, so that its result has to be looked up.
    pub(super) may_have_ended: bool,
    /// The unique key, and how long it is kept, in ms.
    pub(super) unique: Option<(UniqueKey, u64)>,
    /// Whether this call makes the task, instead of an earlier call with the same unique key.
    pub(super) is_new: bool,
}

impl Client {
    pub(super) fn prepare(&self, call: CallSpec) -> Result<Prepared, Error> {
        if let Some(key) = &call.ordering_key {
            ordering::check(key, &call)?;
        }
        let queue: Queue = match call.queue {
            Some(name) => name.parse()?,
            None => Queue::default(),
        };
        check_name(&call.task)?;
        call.options.check().map_err(|(field, problem)| Error::config(field, problem))?;
        if call.expires.is_some_and(|time| time < Duration::from_millis(1)) {
            return Err(Error::config("expires_in", "must be at least 1 ms"));
        }
        let now_ms = self.inner.config.clock.now_ms();
        let expires = call.expires.map(|time| now_ms.saturating_add(millis(time)));
        let eta = eta_ms(call.countdown, call.eta, now_ms)?;
        if eta.zip(expires).is_some_and(|(eta, expires)| expires <= eta) {
            return Err(Error::config(
                "expires_in",
                "must be later than the time at which the task may run (`countdown` or `eta`)",
            ));
        }
        // A task that has already ended can only have an id that the caller chose.
        let may_have_ended = call.id.is_some();
        let (id, args) = (call.id.unwrap_or_else(TaskId::new), call.args?);
        if !is_plain(id.as_str()) {
            return Err(Error::config("id", "must not have control characters, such as line breaks"));
        }
        let unique = call.unique.map(|unique| unique.key(&call.task, &args)).transpose()?;
        let headers = inherited::headers(call.headers)?;
        let params = call.params.map(|names| serde_json::from_str(names).expect("the macro writes JSON"));
        let record = Record {
            params,
            reply_to: Some(Cow::Borrowed(&self.inner.id)),
            expires,
            unique: unique.as_ref().map(|(key, _)| Cow::Borrowed(&*key.key)),
            ordering_key: call.ordering_key.as_deref().map(Cow::Borrowed),
            priority: call.priority,
            eta,
            queue: eta.map(|_| Cow::Borrowed(queue.as_str())),
            ..Record::new(id.as_str(), &call.task, &args, &call.options)
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
                // Kafka keeps the order of records with one key, which are all in one partition.
                let key = call.ordering_key.unwrap_or_else(|| id.as_str().to_owned());
                (namespace.topic_of(&queue, call.priority).into(), key.into())
            }
        };
        let reply_to = Some(Arc::clone(&self.inner.id));
        let submission = Submission { id, task: call.task.into(), queue: queue.shared(), reply_to, eta };
        Ok(Prepared {
            record: Outgoing { topic, key, value, partition: None, headers },
            submission,
            may_have_ended,
            unique,
            is_new: true,
        })
    }
}

/// Fails if no task can have this name.
pub(crate) fn check_name(task: &str) -> Result<(), Error> {
    match task.len() {
        1..=MAX_NAME_BYTES if is_plain(task) => Ok(()),
        1..=MAX_NAME_BYTES => {
            Err(Error::config("task", "a name must not have control characters, such as line breaks"))
        }
        len => Err(Error::config("task", format!("a name has 1 to {MAX_NAME_BYTES} bytes, this one has {len}"))),
    }
}

/// When a task may run, in ms since the Unix epoch; `None`: at once.
fn eta_ms(countdown: Option<Duration>, eta: Option<SystemTime>, now_ms: u64) -> Result<Option<u64>, Error> {
    let (field, at_ms) = match (countdown, eta) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(Error::config("eta", "cannot be combined with `countdown`; use one of the two"));
        }
        (Some(Duration::ZERO), _) => {
            return Err(Error::config("countdown", "must be more than zero; leave it out to run at once"));
        }
        // Rounded up, so that a task never runs early.
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
