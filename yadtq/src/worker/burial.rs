//! Publishes what a record becomes before its offset may be completed: a dead letter, or its next step.
//!
//! Kafka has to acknowledge first. While it does not, the publication is tried again; a worker that dies
//! meanwhile leaves the offset open, and the record comes back.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::sleep;
use tracing::{error, warn};

use super::{
    control::Control,
    job::{Job, Position},
    step::{self as worker, PAUSE},
};
use crate::{
    broker::{Broker, BrokerError, Incoming, Outgoing},
    wire::{
        dead::{Epitaph, Reason, Source, header},
        envelope::{self, Envelope, Step, delayed_key},
        failure::Failure,
    },
};

impl Control {
    /// Publishes a record that is no task as a dead letter, then completes its offset.
    pub(super) fn bury_unreadable(&mut self, at: Position, record: Incoming, error: String) {
        let epitaph = Epitaph { reason: Reason::Unreadable, error, attempts: 0, deliveries: 0 };
        let logged = epitaph.error.clone();
        self.bury(None, at, record, vec![at], &epitaph, &logged);
    }

    /// Publishes the record of a task that failed for good as a dead letter, then completes these offsets.
    pub(super) fn bury_failed(&mut self, job: &Job, at: Vec<Position>, failure: &Failure, deliveries: u32) {
        let has_attempts = failure.attempt <= job.retry(self.plan.options.retry).retries();
        let epitaph = Epitaph {
            reason: Reason::of(&failure.kind, has_attempts),
            error: failure.message.clone(),
            attempts: failure.attempt,
            deliveries,
        };
        self.bury(Some(&job.envelope), job.at, job.record.clone(), at, &epitaph, failure.logged());
    }

    fn bury(
        &mut self, task: Option<&Envelope>, from: Position, record: Incoming, at: Vec<Position>, epitaph: &Epitaph,
        logged: &str,
    ) {
        let topic = &self.sources[from.queue].topic;
        error!(
            event = "task_dead_lettered",
            worker = %self.id,
            task_id = task.map(|task| task.id.as_str()),
            task = task.map(|task| &*task.task),
            topic = %topic,
            partition = from.partition,
            offset = from.offset,
            reason = epitaph.reason.as_str(),
            error = logged,
            "record goes to the dead letters"
        );
        let source = Source { topic, partition: from.partition, offset: from.offset };
        let key = match (task, record.key) {
            (Some(task), _) => Bytes::from(task.id.to_string()),
            (None, key) => key.unwrap_or_default(),
        };
        let letter = Outgoing {
            topic: self.client.config().namespace.dead_topic().into(),
            key,
            value: record.value,
            partition: None,
            headers: epitaph.headers(&source, &record.headers),
        };
        self.publish_for(letter, cut, at);
    }

    /// Publishes a record under its next `seq`, to run at once or when it is due, then completes these offsets. It is
    /// recorded as handed on, and perhaps published already: twice does no harm.
    pub(super) fn publish_next(
        &mut self, job: &Job, attempt: u32, due: u64, limit_slot: Option<u64>, error: Option<&str>, at: Vec<Position>,
    ) {
        let (id, seq) = (&job.envelope.id, job.ask.seq + 1);
        let eta = Some(due).filter(|&due| due > self.now_ms());
        let source = &self.sources[job.at.queue];
        let step = Step { seq, attempt, eta, queue: &job.ask.queue, priority: source.priority, limit_slot, error };
        let value = match envelope::hand_on(&job.record.value, step) {
            Ok(value) => value,
            Err(error) => {
                // It was read once, so this cannot be; if it is, the offset stays open and the log says so.
                error!(event = "hand_on_failed", worker = %self.id, task_id = %id, %error, "record cannot be rewritten");
                return;
            }
        };
        let (queue, own_key) = (Arc::clone(&source.topic), job.record.key.clone().unwrap_or_default());
        let (topic, key) = match eta {
            Some(_) => (self.client.config().namespace.delayed_topic().into(), delayed_key(id, seq)),
            None => (Arc::clone(&queue), own_key.clone()),
        };
        // One that is too large to wait there goes on at once.
        let shrink = move |record: &mut Outgoing| without_error(record) || at_once(record, &queue, &own_key);
        let record = Outgoing { topic, key, value, partition: None, headers: job.record.headers.clone() };
        self.publish_for(record, shrink, at);
    }

    /// Publishes what these offsets wait for.
    fn publish_for(
        &mut self, record: Outgoing, shrink: impl FnMut(&mut Outgoing) -> bool + Send + 'static, at: Vec<Position>,
    ) {
        let broker = Arc::clone(&self.broker);
        self.publishing += 1;
        self.calls.push(Box::pin(async move {
            publish(&*broker, record, shrink).await;
            worker::Step::Published { at }
        }));
    }

    pub(super) fn published(&mut self, at: &[Position]) {
        self.publishing -= 1;
        at.iter().for_each(|&at| self.complete_offset(at));
    }
}

/// Returns when the record is acknowledged. One that is too large for its topic is made smaller, where that may be.
pub(super) async fn publish(broker: &dyn Broker, mut record: Outgoing, mut shrink: impl FnMut(&mut Outgoing) -> bool) {
    loop {
        let answer = broker.publish(vec![record.clone()]).await.pop().expect("one answer a record");
        match answer {
            Ok(()) => return,
            Err(BrokerError::TooLarge { len, .. }) if shrink(&mut record) => {
                warn!(event = "record_cut", topic = %record.topic, len, "larger than the topic takes; it is cut short");
            }
            Err(error) => {
                warn!(event = "publish_retried", topic = %record.topic, %error, "kafka has not acknowledged yet");
                sleep(PAUSE).await;
            }
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

/// Sends a record that should have waited to its queue. `false` if it is on its way there.
fn at_once(record: &mut Outgoing, queue: &Arc<str>, key: &Bytes) -> bool {
    if record.topic == *queue {
        return false;
    }
    let Ok(value) = envelope::at(&record.value, None) else { return false };
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

/// Makes a dead letter smaller: first without foreign headers, then with half of its value, then without its key.
/// `false` if nothing is left.
pub(super) fn cut(record: &mut Outgoing) -> bool {
    let (headers, len) = (record.headers.len(), record.value.len());
    record.headers.retain(|(name, _)| name.starts_with("yadtq-"));
    if record.headers.len() < headers {
        return true;
    }
    if record.value.is_empty() {
        return !std::mem::take(&mut record.key).is_empty();
    }
    if !record.headers.iter().any(|(name, _)| name == header::CUT) {
        record.headers.push((header::CUT.to_owned(), Bytes::from(len.to_string())));
    }
    record.value = record.value.slice(..len / 2);
    true
}
