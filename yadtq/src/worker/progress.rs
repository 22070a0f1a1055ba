//! Passes on how far running tasks are: one batch at a time, with the latest report of each.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::debug;

use super::{
    control::Control,
    step::{PAUSE, Step},
};
use crate::store::StoreError;

/// Least time between two batches. A first report waits for nothing.
const PACE: Duration = Duration::from_millis(100);
/// Reports per batch, of at most 4 KB each.
const BATCH: usize = 1_024;

impl Control {
    pub(super) fn pass_progress_on(&self) {
        let (board, store, worker) = (Arc::clone(&self.board), Arc::clone(&self.store), Arc::clone(&self.id));
        self.calls.push(Box::pin(async move {
            board.filled().await;
            let reports = board.take(BATCH);
            let not_told = |tasks: usize, error: &StoreError| {
                debug!(event = "progress_not_told", %worker, tasks, %error, "a later report may be");
            };
            match store.progress(&reports).await {
                Ok(answers) => {
                    answers.iter().filter_map(|answer| answer.as_ref().err()).for_each(|error| not_told(1, error));
                    sleep(PACE).await;
                }
                Err(error) => {
                    not_told(reports.len(), &error);
                    board.put_back(reports);
                    sleep(PAUSE).await;
                }
            }
            Step::ProgressPassedOn
        }));
    }
}
