//! Passes the progress of running tasks on to the store: one batch at a time, with the latest report of each task.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::debug;

use crate::{
    core::names::WorkerId,
    store::{Store, StoreError},
    task::ProgressBuffer,
};

/// The shortest time between two batches. A first report waits for nothing.
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// The wait after a batch that the store did not take.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// The most reports per batch, of at most 4 KB each.
const PROGRESS_BATCH: usize = 1_024;

/// Waits until tasks have reported something, and passes one batch on. Returns when the next one may follow.
pub(in crate::worker) async fn pass_on(worker: WorkerId, reports: Arc<ProgressBuffer>, store: Arc<dyn Store>) {
    reports.filled().await;
    let batch = reports.take(PROGRESS_BATCH);
    let not_passed_on = |tasks: usize, error: &StoreError| {
        debug!(event = "progress_not_told", %worker, tasks, %error, "a later report may be");
    };
    match store.progress(&batch).await {
        Ok(answers) => {
            answers.iter().filter_map(|answer| answer.as_ref().err()).for_each(|error| not_passed_on(1, error));
            sleep(BATCH_INTERVAL).await;
        }
        Err(error) => {
            not_passed_on(batch.len(), &error);
            reports.put_back(batch);
            sleep(RETRY_DELAY).await;
        }
    }
}
