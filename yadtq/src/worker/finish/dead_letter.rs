//! Dead letters: the original bytes of a record that is no task, or of a task that has failed for good, and the reason.

use std::sync::Arc;

use bytes::Bytes;
use tracing::error;

use super::publisher::{Kind, Publication, Unpublished};
use crate::{
    broker::{Incoming, Outgoing},
    core::{
        names::{Namespace, WorkerId},
        retry::Retry,
        text::Escaped,
    },
    wire::{
        dead::{Cause, Reason, Source},
        envelope::Envelope,
        failure::Failure,
    },
    worker::{effect::DeadLetter, job::Position},
};

/// The dead letter of a record that is no task.
pub(super) fn of_unreadable(
    worker: &WorkerId, namespace: &Namespace, at: Position, topic: &Arc<str>, record: &Incoming, reason: String,
) -> Publication {
    let cause = Cause { reason: Reason::Unreadable, error: reason, attempts: 0, deliveries: 0 };
    let source = Source { topic, partition: at.partition, offset: at.offset };
    log(worker, None, &source, &cause, &cause.error);
    let key = record.key.clone().unwrap_or_default();
    let headers = cause.headers(&source, &record.headers);
    let topic = namespace.dead_topic().into();
    let letter = Outgoing { topic, key, value: record.value.clone(), partition: None, headers };
    Publication { record: letter, kind: Kind::Unreadable, at: vec![at] }
}

/// The dead letter of a task that has failed for good. `retry`: the worker's default.
pub(super) fn of_failed(worker: &WorkerId, namespace: &Namespace, dead: DeadLetter, retry: Retry) -> Publication {
    let DeadLetter { job, failure, deliveries, at } = dead;
    let has_attempts = failure.attempt <= job.options().retry.or(retry).retries();
    let cause = Cause {
        reason: Reason::of(&failure.kind, has_attempts),
        error: failure.message.clone(),
        attempts: failure.attempt,
        deliveries,
    };
    let source = Source { topic: &job.topic, partition: job.record.partition, offset: job.record.offset };
    log(worker, Some(&job.envelope), &source, &cause, failure.logged());
    let (key, headers) = (Bytes::from(job.envelope.id.to_string()), cause.headers(&source, &job.record.headers));
    let (topic, value) = (namespace.dead_topic().into(), job.record.value.clone());
    let letter = Outgoing { topic, key, value, partition: None, headers };
    Publication { record: letter, kind: Kind::DeadLetter(job.envelope.id.clone(), job.ask.seq), at }
}

/// The dead letter of a record that can't be published.
pub(super) fn of_unpublished(
    worker: &WorkerId, namespace: &Namespace, unpublished: &Unpublished, failure: &Failure, deliveries: u32,
) -> Outgoing {
    let Unpublished { envelope, topic, partition, offset, value, headers, .. } = unpublished;
    let reason = Reason::of(&failure.kind, true);
    let cause = Cause { reason, error: failure.message.clone(), attempts: failure.attempt, deliveries };
    let source = Source { topic, partition: *partition, offset: *offset };
    log(worker, Some(envelope), &source, &cause, failure.logged());
    Outgoing {
        topic: namespace.dead_topic().into(),
        key: envelope.id.to_string().into(),
        value: value.clone(),
        partition: None,
        headers: cause.headers(&source, headers),
    }
}

fn log(worker: &WorkerId, task: Option<&Envelope>, source: &Source<'_>, cause: &Cause, error: &str) {
    error!(
        event = "task_dead_lettered",
        %worker,
        task_id = task.map(|task| task.id.shown().to_string()),
        task = task.map(|task| Escaped(&task.task).to_string()),
        topic = source.topic,
        partition = source.partition,
        offset = source.offset,
        reason = cause.reason.as_str(),
        error,
        "record goes to the dead letters"
    );
}
