//! From polled records to jobs, and from finished jobs to offsets.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{
    control::Control,
    job::{Job, Position},
    source::PATIENCE,
    step::Step,
};
use crate::{
    broker::{Event, Incoming},
    core::lifecycle::Ask,
    wire::envelope::{Envelope, Unreadable},
};

/// Numbers that no two assignments, and no two claims, of this worker share.
#[derive(Default)]
pub(super) struct Intake {
    epoch: u64,
    nonce: u64,
}

impl Control {
    pub(super) fn pump_polls(&mut self) {
        for (queue, source) in self.sources.iter_mut().enumerate() {
            if source.gauge() {
                self.calls.push(Box::pin(async move {
                    sleep(PATIENCE).await;
                    Step::StillFull { queue }
                }));
            }
            if let Some(subscription) = source.poll() {
                let stop = self.stop_polling.clone();
                self.calls.push(Box::pin(async move {
                    let events = stop.run_until_cancelled(subscription.next()).await.unwrap_or_default();
                    Step::Polled { queue, events }
                }));
            }
        }
    }

    /// Takes nothing more from any queue, and lets go of the subscriptions, so that they can be closed.
    pub(super) async fn end_polling(&mut self) {
        self.draining = true;
        self.stop_polling.cancel();
        while self.sources.iter().any(super::source::Source::is_polling) {
            let Some(step) = self.calls.next().await else { return };
            self.take(step);
        }
    }

    pub(super) fn polled(&mut self, queue: usize, events: Vec<Event>) {
        self.sources[queue].polled();
        if self.draining {
            return;
        }
        for event in events {
            match event {
                Event::Assigned(partitions) => self.assigned(queue, &partitions),
                Event::Revoked(partitions) => self.revoked(queue, &partitions),
                Event::Records(records) => records.into_iter().for_each(|record| self.received(queue, record)),
                Event::Ended(_) => {}
            }
        }
        self.sources[queue].mind_windows();
    }

    pub(super) fn still_full(&mut self, queue: usize) {
        self.sources[queue].still_full();
    }

    fn assigned(&mut self, queue: usize, partitions: &[i32]) {
        let source = &mut self.sources[queue];
        info!(event = "partitions_assigned", worker = %self.id, queue = %source.queue, priority = %source.priority,
            ?partitions, "partitions assigned");
        for &partition in partitions {
            source.assigned(partition, self.intake.next_epoch());
        }
    }

    /// What runs goes on: its lease lives, and the next owner watches it.
    fn revoked(&mut self, queue: usize, partitions: &[i32]) {
        let source = &mut self.sources[queue];
        info!(event = "partitions_revoked", worker = %self.id, queue = %source.queue, priority = %source.priority,
            ?partitions, "partitions revoked");
        source.revoked(partitions);
        self.give_back_waiting(|run| run.job.at.queue == queue && partitions.contains(&run.job.at.partition));
        // A slot may have been kept for what is gone.
        self.start_granted();
    }

    fn received(&mut self, queue: usize, record: Incoming) {
        let source = &mut self.sources[queue];
        let Some(epoch) = source.started(&record, || self.intake.next_epoch()) else { return };
        let (partition, offset, bytes) = (record.partition, record.offset, record.size());
        let at = Position { queue, partition, epoch, offset, bytes };
        let max = self.plan.options.max_record_bytes;
        let read = match record.value.len() {
            len if len > max => Err(Unreadable::TooLarge { len, max }),
            _ => Envelope::read(&record.value),
        };
        let envelope = match read {
            Ok(envelope) => envelope,
            Err(error) => {
                let error = error.to_string();
                warn!(event = "record_unreadable", worker = %self.id, topic = %source.topic, partition, offset, %error,
                    "not a task; it becomes a dead letter");
                return self.bury_unreadable(at, record, error);
            }
        };
        debug!(event = "task_received", worker = %self.id, task_id = %envelope.id, task = %envelope.task,
            queue = %source.queue, topic = %source.topic, priority = %envelope.priority, attempt = envelope.attempt, partition, offset, "task received");
        let ask = Ask {
            seq: envelope.seq,
            attempt: envelope.attempt,
            nonce: self.intake.next_nonce(),
            task: Arc::clone(&envelope.task),
            queue: Arc::clone(&source.queue),
        };
        let definition = self.plan.tasks.get(&*envelope.task).cloned();
        if definition.is_none() {
            warn!(event = "task_unknown", worker = %self.id, task_id = %envelope.id, task = %envelope.task,
                attempt = envelope.attempt, "no task of that name is registered here");
        }
        source.line_up(Arc::new(Job {
            at,
            record,
            envelope,
            ask: Arc::new(ask),
            definition,
            received: Instant::now(),
        }));
    }

    /// The record is terminal or handed on.
    pub(super) fn complete_offset(&mut self, at: Position) {
        self.sources[at.queue].finished(at);
    }
}

impl Intake {
    fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    pub(super) fn next_nonce(&mut self) -> u64 {
        self.nonce += 1;
        self.nonce
    }
}
