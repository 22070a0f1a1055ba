//! Confirms unique keys: whoever reads a record knows that Kafka has it, also when its sender could not say so.
//!
//! Without this, a key whose sender died too early would stay pending for longer than the end of its task is remembered,
//! and a late caller would run the task once more.

use std::sync::Arc;

use tokio::time::sleep;
use tracing::warn;

use super::{
    control::Control,
    job::Job,
    step::{PAUSE, Step},
};
use crate::core::{names::TaskId, unique::UniqueKey};

/// How often it is tried.
const TRIES: usize = 5;

/// The unique key of a job, if it has one.
pub(super) fn key(job: &Job) -> Option<(UniqueKey, TaskId)> {
    let key = Arc::clone(job.envelope.unique.as_ref()?);
    Some((UniqueKey { task: Arc::clone(&job.envelope.task), key }, job.envelope.id.clone()))
}

impl Control {
    /// Confirms the keys of jobs that are about to run.
    pub(super) fn confirm_keys(&self, keys: Vec<(UniqueKey, TaskId)>) {
        if keys.is_empty() {
            return;
        }
        let (store, worker) = (Arc::clone(&self.store), Arc::clone(&self.id));
        self.calls.push(Box::pin(async move {
            for left in (0..TRIES).rev() {
                match store.confirm(&keys).await {
                    Ok(_) => break,
                    Err(_) if left > 0 => sleep(PAUSE).await,
                    Err(error) => warn!(event = "key_not_confirmed", %worker, tasks = keys.len(), %error, "given up"),
                }
            }
            Step::Confirmed
        }));
    }
}
