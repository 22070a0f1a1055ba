//! Publishes a record again at the end of its topic, because others wait for its offset. The copy has the same `seq`: if the task
//! still runs when the copy is read, the copy waits for the same run, and if the task has ended, the copy has too.
//!
//! The store first: nobody knows when the copy is read, so the end of the task is remembered for longer from now on. If that, or
//! the publishing, fails, the offset just stays open, and the record is carried another time; two copies do no harm.

use std::sync::Arc;

use tracing::debug;

use crate::{
    broker::{Broker, Outgoing},
    store::Store,
    worker::job::Job,
};

/// Whether Kafka has acknowledged a copy of the record.
pub(crate) async fn carry(store: &dyn Store, broker: &dyn Broker, job: &Job) -> bool {
    let (id, seq) = (&job.envelope.id, job.ask.seq);
    let is_noted = match store.carry(&[(id.clone(), seq)]).await.map(|mut answers| answers.pop()) {
        Ok(Some(Ok(is_noted))) => is_noted,
        Ok(Some(Err(error))) | Err(error) => {
            debug!(event = "carry_waits", task_id = %id.shown(), %error, "its record stays where it is for now");
            false
        }
        Ok(None) => false,
    };
    // One that has ended, or that the store has lost, is about to be claimed, or its lease is about to be extended.
    if !is_noted {
        return false;
    }
    match broker.publish(vec![copy(job)]).await.pop() {
        Some(Ok(())) => true,
        Some(Err(error)) => {
            debug!(event = "carry_waits", task_id = %id.shown(), %error, "its record stays where it is for now");
            false
        }
        None => false,
    }
}

pub(super) fn copy(job: &Job) -> Outgoing {
    let (topic, record) = (Arc::clone(&job.topic), job.record.clone());
    let key = record.key.unwrap_or_default();
    Outgoing { topic, key, value: record.value, partition: None, headers: record.headers }
}
