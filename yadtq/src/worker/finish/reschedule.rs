//! When a task that has not ended goes on, and the record under which it does.

use std::{sync::Arc, time::Duration};

use super::{
    dead_letter,
    publisher::{Kind, Publication, Shrink, Unpublished},
};
use crate::{
    broker::Outgoing,
    core::{
        names::{Namespace, WorkerId},
        retry::Retry,
    },
    task::Steer,
    wire::envelope::{self, Envelope, FollowUp, Unreadable, delayed_key},
    worker::effect::{NextRecord, due_after},
};

/// When the attempt after this one is due, in ms since the Unix epoch: as the error says, else as the policy does.
pub(super) fn retry_due(retry: Retry, attempt: u32, steer: Steer, random: u64, now_ms: u64) -> u64 {
    let wait = match steer {
        Steer::RetryAfter(time) => time,
        _ => Duration::from_millis(retry.wait_ms(attempt, random)),
    };
    due_after(wait, now_ms)
}

/// The task's record under its next `seq`, for its queue or for the delayed tasks. It is recorded already that the task
/// goes on, and the record is perhaps published: publishing it twice does no harm.
pub(super) fn next_record(worker: &WorkerId, namespace: &Namespace, next: NextRecord, now_ms: u64) -> Publication {
    let NextRecord { job, attempt, due, limit_slot, unknown_since, error, at } = next;
    let (id, seq) = (&job.envelope.id, job.ask.seq + 1);
    let eta = Some(due).filter(|&due| due > now_ms);
    let priority = job.at.source.priority;
    let (queue, error) = (&*job.ask.queue, error.as_deref());
    let step = FollowUp { seq, attempt, eta, queue, priority, limit_slot, unknown_since, error };
    let written = envelope::follow_up(&job.record.value, step).map_err(Unreadable::from);
    let read = written.and_then(|value| Ok((Envelope::read(&value)?, value)));
    let (envelope, value) = match read {
        Ok(read) => read,
        Err(error) => {
            // A record that was read can be read again, so this should not be. If it is, nothing waits for it.
            let reason = error.to_string();
            return Publication {
                at,
                ..dead_letter::of_unreadable(worker, namespace, job.at, &job.topic, &job.record, reason)
            };
        }
    };
    let (queue, own_key) = (Arc::clone(&job.topic), job.record.key.clone().unwrap_or_default());
    let (topic, key) = match eta {
        Some(_) => (namespace.delayed_topic().into(), delayed_key(id, seq)),
        None => (Arc::clone(&queue), own_key.clone()),
    };
    // Only a retry may come early.
    let shrink = if attempt > job.ask.attempt { Shrink::Retry { queue, key: own_key } } else { Shrink::Task };
    let unpublished = Box::new(Unpublished {
        envelope,
        queue: Arc::clone(&job.ask.queue),
        topic: Arc::clone(&job.topic),
        partition: job.record.partition,
        offset: job.record.offset,
        value: value.clone(),
        headers: job.record.headers.clone(),
    });
    let record = Outgoing { topic, key, value, partition: None, headers: job.record.headers.clone() };
    Publication { record, kind: Kind::Next { shrink, unpublished }, at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        wire::envelope::{Envelope, MAX_NUMBER},
        worker::job::Job,
    };

    fn next(due: u64) -> Publication {
        let job = Job::for_test(r#"{"task-id":"t","task":"add","args":[1],"seq":4,"attempt":2,"extra":true}"#);
        let next = NextRecord {
            at: vec![job.at],
            job: Arc::new(job),
            attempt: 3,
            due,
            limit_slot: None,
            unknown_since: None,
            error: Some(r#"{"kind":"error","message":"m","attempt":2}"#.into()),
        };
        next_record(&"w".into(), &Namespace::default(), next, 1_000)
    }

    #[test]
    fn what_has_to_wait_goes_to_the_delayed_tasks_and_the_rest_to_its_queue() {
        let (waits, goes) = (next(1_001).record, next(1_000).record);
        assert_eq!((&*waits.topic, &*waits.key), ("yadtq.delayed", &b"t/5"[..]));
        assert_eq!(&*goes.topic, "yadtq.default");
        for (record, eta) in [(waits, Some(1_001)), (goes, None)] {
            let envelope = Envelope::read(&record.value).unwrap();
            assert_eq!((envelope.seq, envelope.attempt, envelope.eta), (5, 3, eta));
            assert_eq!(envelope.last_error.unwrap().message, "m");
            assert!(String::from_utf8_lossy(&record.value).contains(r#""extra":true"#));
        }
    }

    #[test]
    fn an_error_may_say_when_else_the_policy_does() {
        let retry = Retry::new().base(Duration::from_secs(1));
        let due = |steer| retry_due(retry, 1, steer, 0, 1_000);
        assert_eq!(due(Steer::Policy), 1_500, "equal jitter");
        assert_eq!(due(Steer::RetryAfter(Duration::from_secs(2))), 3_000);
        assert_eq!(due_after(Duration::MAX, 1_000), MAX_NUMBER);
    }
}
