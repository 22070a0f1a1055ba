//! Publishes the records that offsets wait for: an offset is completed only when Kafka has acknowledged its record. Until then
//! the record is published again and again. A worker that dies meanwhile leaves the offset open, and the record comes back.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::sleep;
use tracing::{error, warn};

use crate::{
    broker::{Broker, BrokerError, Outgoing},
    core::{names::TaskId, text::cut},
    wire::{
        Headers,
        dead::header,
        envelope::{self, Envelope},
    },
    worker::{job::Position, timers::Backoff},
};

/// Length in bytes to which the error of a dead letter is cut if the letter is too large.
const SHORT_ERROR_BYTES: usize = 256;

/// A record to publish, and the offsets that are completed once Kafka has it.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) record: Outgoing,
    pub(crate) kind: Kind,
    pub(crate) at: Vec<Position>,
}

/// What a record is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// The next record of a task. If it is too large, its task fails, and it becomes a dead letter itself.
    Next { shrink: Shrink, unpublished: Box<Unpublished> },
    /// The dead letter of a record that is no task.
    Unreadable,
    /// The dead letter of a task that has failed under the record of this `seq`.
    DeadLetter(TaskId, u64),
}

/// A record of a task that was to be published.
#[derive(Debug)]
pub(crate) struct Unpublished {
    pub(crate) envelope: Envelope,
    pub(crate) queue: Arc<str>,
    /// The record that led to it.
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// The whole record, before it was made smaller.
    pub(crate) value: Bytes,
    pub(crate) headers: Headers,
}

/// How a record is made smaller if it is larger than its topic takes.
#[derive(Clone, Debug)]
pub(crate) enum Shrink {
    /// Not at all, because it is small.
    Never,
    /// First without foreign headers, then with a short error, then without a long key, then with half of its value, then
    /// without key and error.
    DeadLetter,
    /// Without the reason why the attempt before failed.
    Task,
    /// The same; then it goes to its queue at once, although it should have waited.
    Retry {
        /// The topic of its queue.
        queue: Arc<str>,
        /// The key of its record there.
        key: Bytes,
    },
}

/// Returns when Kafka has acknowledged the record. Tries until then, with a backoff from 100 ms to 1 s.
pub(crate) async fn publish(broker: &dyn Broker, mut record: Outgoing, shrink: &Shrink) {
    let mut backoff = Backoff::default();
    while let Err(error) = publish_fitting(broker, &mut record, shrink).await {
        wait(&record, &error, &mut backoff).await;
    }
}

/// Publishes a record once, and if it is too large, smaller and smaller.
///
/// # Errors
/// [`BrokerError::TooLarge`]: it is as small as it may be. Others: Kafka has not acknowledged it.
pub(crate) async fn publish_fitting(
    broker: &dyn Broker, record: &mut Outgoing, shrink: &Shrink,
) -> Result<(), BrokerError> {
    loop {
        match broker.publish(vec![record.clone()]).await.pop().expect("one answer a record") {
            Err(BrokerError::TooLarge { len, .. }) if shrink.apply(record) => {
                warn!(event = "record_cut", topic = %record.topic, len, "larger than the topic takes; it is cut short");
            }
            answer => return answer,
        }
    }
}

/// Waits before the record is published again.
pub(super) async fn wait(record: &Outgoing, error: &BrokerError, backoff: &mut Backoff) {
    warn!(event = "publish_retried", topic = %record.topic, %error, "kafka has not acknowledged yet");
    sleep(backoff.failed()).await;
}

impl Shrink {
    /// Makes a record smaller. `false`: it is as small as it may be.
    fn apply(&self, record: &mut Outgoing) -> bool {
        match self {
            Self::Never => false,
            Self::DeadLetter => shorten(record),
            Self::Task => without_error(record),
            Self::Retry { queue, key } => without_error(record) || at_once(record, queue, key),
        }
    }
}

/// Leaves out why the attempt before failed. `false` if that is not there.
fn without_error(record: &mut Outgoing) -> bool {
    match envelope::without_error(&record.value) {
        Some(value) => {
            record.value = value;
            true
        }
        None => false,
    }
}

/// Makes a record that should have waited go to its queue at once. `false` if it goes there already.
fn at_once(record: &mut Outgoing, queue: &Arc<str>, key: &Bytes) -> bool {
    if record.topic == *queue {
        return false;
    }
    let Ok(value) = envelope::without_wait(&record.value) else { return false };
    error!(event = "delay_skipped", topic = %record.topic, len = record.value.len(),
        "larger than the topic takes (its `max.message.bytes`): the task goes on without its wait");
    *record = Outgoing {
        topic: Arc::clone(queue),
        key: key.clone(),
        value,
        partition: None,
        headers: std::mem::take(&mut record.headers),
    };
    true
}

/// Takes the next part of a dead letter away. The value is kept as long as something else can go. `false` if nothing is left.
fn shorten(letter: &mut Outgoing) -> bool {
    let (headers, len) = (letter.headers.len(), letter.value.len());
    letter.headers.retain(|(name, _)| header::ALL.contains(&name.as_str()));
    if letter.headers.len() < headers || cut_error(letter, SHORT_ERROR_BYTES) {
        return true;
    }
    if letter.key.len() > TaskId::MAX_BYTES {
        letter.key.clear();
        return true;
    }
    if letter.value.is_empty() {
        let had_key = !std::mem::take(&mut letter.key).is_empty();
        return had_key || cut_error(letter, 0);
    }
    if !letter.headers.iter().any(|(name, _)| name == header::CUT) {
        letter.headers.push((header::CUT.to_owned(), Bytes::from(len.to_string())));
    }
    letter.value = letter.value.slice(..len / 2);
    true
}

/// Cuts the error of a dead letter. `false` if it is no longer than that.
fn cut_error(letter: &mut Outgoing, max: usize) -> bool {
    let mut errors = letter.headers.iter_mut().filter(|(name, _)| name == header::ERROR);
    let Some((_, error)) = errors.next().filter(|(_, error)| error.len() > max) else { return false };
    *error = match max {
        0 => Bytes::new(),
        _ => cut(String::from_utf8_lossy(error).into_owned(), max).into(),
    };
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &str) -> Outgoing {
        let headers = vec![("foreign".to_owned(), Bytes::from("x")), ("yadtq-reason".to_owned(), Bytes::from("fatal"))];
        let value = Bytes::from(value.to_owned());
        Outgoing { topic: "yadtq.delayed".into(), key: "k".into(), value, partition: None, headers }
    }

    #[test]
    fn a_dead_letter_loses_everything_else_before_its_value() {
        let mut letter = record("0123456789");
        letter.key = "k".repeat(1_000).into();
        let long = |name: &str| (name.to_owned(), Bytes::from("é".repeat(2_000)));
        letter.headers.extend([long("yadtq-signature"), long(header::ERROR)]);
        let value = letter.value.clone();
        for (headers, error, key) in [(2, 4_000, 1_000), (2, 255, 1_000), (2, 255, 0)] {
            assert!(Shrink::DeadLetter.apply(&mut letter));
            let sizes = (letter.headers.len(), letter.headers[1].1.len(), letter.key.len());
            assert_eq!((sizes, &letter.value), ((headers, error, key), &value));
        }
        letter.key = "k".into();
        let mut steps = 0;
        while Shrink::DeadLetter.apply(&mut letter) {
            steps += 1;
        }
        assert_eq!((steps, letter.value.len(), letter.key.len(), letter.headers[1].1.len()), (6, 0, 0, 0));
        assert_eq!(letter.headers[2], (header::CUT.to_owned(), Bytes::from("10")));
    }

    #[test]
    fn a_retry_loses_its_error_then_its_wait_and_nothing_else() {
        let shrink = Shrink::Retry { queue: "yadtq.default".into(), key: "own".into() };
        let whole = record(r#"{"task-id":"t","eta":5,"queue":"default","last-error":{"kind":"e"}}"#);
        let mut retry = whole.clone();
        assert!(shrink.apply(&mut retry));
        let waits = &br#"{"eta":5,"queue":"default","task-id":"t"}"#[..];
        assert_eq!((&*retry.value, &*retry.topic), (waits, "yadtq.delayed"));
        assert!(shrink.apply(&mut retry));
        assert_eq!(
            (&*retry.value, &*retry.topic, &*retry.key),
            (&br#"{"task-id":"t"}"#[..], "yadtq.default", &b"own"[..])
        );
        assert!(!shrink.apply(&mut retry) && !Shrink::Never.apply(&mut retry));
        let mut task = whole;
        assert!(Shrink::Task.apply(&mut task) && !Shrink::Task.apply(&mut task));
        assert_eq!((&*task.value, &*task.topic), (waits, "yadtq.delayed"), "it never runs before its time");
    }
}
