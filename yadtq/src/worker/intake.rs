//! From polled records to jobs, and from finished jobs to offsets.
//!
//! Bounded in two ways. A partition whose window between oldest unfinished and newest record grows to
//! [`WINDOW`] is paused until half of it is done. A worker that holds [`READY_JOBS`] or [`READY_BYTES`] that wait for
//! a slot stops polling; if that lasts, it pauses everything and polls on, because a member that does not poll
//! is put out of its group. Pausing throws prefetched records away, hence the wait before and the hysteresis.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{
    control::Control,
    job::{Job, Position},
    step::{Due, Step},
};
use crate::{
    broker::{Broker, BrokerError, Event, Incoming, Subscription},
    core::{
        lifecycle::Ask,
        names::{Namespace, Queue},
        offsets::OffsetTracker,
    },
    wire::{
        dead::{Epitaph, Reason},
        envelope::{Envelope, Unreadable},
    },
};

const WINDOW: u64 = 10_000;
const READY_JOBS: usize = 4_096;
const READY_BYTES: usize = 64 * 1_024 * 1_024;
/// Timers take no more.
const MOST_GRACE: Duration = Duration::from_secs(24 * 3_600);
/// How long a full worker may leave its subscriptions alone.
const PATIENCE: Duration = Duration::from_millis(300);

/// One queue that this worker takes from.
pub(super) struct Source {
    pub(super) queue: Arc<str>,
    pub(super) topic: Arc<str>,
    pub(super) subscription: Arc<dyn Subscription>,
    partitions: HashMap<i32, Partition>,
    polling: bool,
}

struct Partition {
    tracker: OffsetTracker,
    /// Its window is full.
    paused: bool,
}

/// What waits for a slot, counted over all queues.
#[derive(Default)]
pub(super) struct Intake {
    epoch: u64,
    nonce: u64,
    full: Full,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Full {
    #[default]
    No,
    /// Not polling, since then.
    Waiting(Instant),
    /// Everything is paused.
    Paused,
}

impl Source {
    pub(super) fn subscribe(
        broker: &dyn Broker, namespace: &Namespace, queues: &[Queue],
    ) -> Result<Vec<Self>, BrokerError> {
        let source = |queue: &Queue| {
            let (subscription, topic) = (broker.subscribe(queue)?, namespace.topic(queue).into());
            Ok(Self { queue: queue.shared(), topic, subscription, partitions: HashMap::new(), polling: false })
        };
        queues.iter().map(source).collect()
    }
}

impl Control {
    pub(super) fn pump_polls(&mut self) {
        self.gauge();
        if matches!(self.intake.full, Full::Waiting(_)) {
            return;
        }
        for (queue, source) in self.sources.iter_mut().enumerate().filter(|(_, source)| !source.polling) {
            source.polling = true;
            let (subscription, stop) = (Arc::clone(&source.subscription), self.stop_polling.clone());
            self.calls.push(Box::pin(async move {
                let events = stop.run_until_cancelled(subscription.next()).await.unwrap_or_default();
                Step::Polled { queue, events }
            }));
        }
    }

    /// Takes nothing more from any queue, and lets go of the subscriptions, so that they can be closed.
    pub(super) async fn end_polling(&mut self) {
        self.draining = true;
        self.stop_polling.cancel();
        while self.sources.iter().any(|source| source.polling) {
            let Some(step) = self.calls.next().await else { return };
            self.take(step);
        }
    }

    pub(super) fn polled(&mut self, queue: usize, events: Vec<Event>) {
        self.sources[queue].polling = false;
        if self.draining {
            return;
        }
        for event in events {
            match event {
                Event::Assigned(partitions) => self.assigned(queue, &partitions),
                Event::Revoked(partitions) => self.revoked(queue, &partitions),
                Event::Records(records) => records.into_iter().for_each(|record| self.received(queue, record)),
            }
        }
        self.mind_windows(queue);
    }

    fn assigned(&mut self, queue: usize, partitions: &[i32]) {
        let source = &mut self.sources[queue];
        info!(event = "partitions_assigned", worker = %self.id, queue = %source.queue, ?partitions, "partitions assigned");
        for &partition in partitions {
            self.intake.epoch += 1;
            let tracker = OffsetTracker::new(self.intake.epoch);
            source.partitions.insert(partition, Partition { tracker, paused: false });
            if self.intake.full == Full::Paused {
                source.subscription.pause(partition);
            }
        }
    }

    /// What waits for a slot goes: the next owner has it. What runs goes on: its lease lives, and the next owner
    /// watches it.
    fn revoked(&mut self, queue: usize, partitions: &[i32]) {
        let source = &mut self.sources[queue];
        info!(event = "partitions_revoked", worker = %self.id, queue = %source.queue, ?partitions, "partitions revoked");
        for partition in partitions {
            source.partitions.remove(partition);
        }
        let sources = &self.sources;
        self.claims.retain(|job| is_ours(sources, job.at));
    }

    fn received(&mut self, queue: usize, record: Incoming) {
        let source = &mut self.sources[queue];
        let Some(partition) = source.partitions.get_mut(&record.partition) else { return };
        if !partition.tracker.start(record.offset) {
            return;
        }
        let at =
            Position { queue, partition: record.partition, epoch: partition.tracker.epoch(), offset: record.offset };
        let max = self.plan.options.max_record_bytes;
        let read = if record.value.len() > max {
            Err(Unreadable::TooLarge { len: record.value.len(), max })
        } else {
            Envelope::read(&record.value)
        };
        let envelope = match read {
            Ok(envelope) => envelope,
            Err(error) => {
                let error = error.to_string();
                warn!(event = "record_unreadable", worker = %self.id, topic = %source.topic, partition = at.partition,
                    offset = at.offset, %error, "not a task; it becomes a dead letter");
                let epitaph = Epitaph { reason: Reason::Unreadable, error, attempts: 0, deliveries: 0 };
                return self.bury(None, at, record, vec![at], &epitaph);
            }
        };
        debug!(event = "task_received", worker = %self.id, task_id = %envelope.id, task = %envelope.task,
            queue = %source.queue, attempt = envelope.attempt, partition = at.partition, offset = at.offset, "task received");
        self.intake.nonce += 1;
        let ask = Ask {
            seq: envelope.seq,
            attempt: envelope.attempt,
            nonce: self.intake.nonce,
            task: Arc::clone(&envelope.task),
            queue: Arc::clone(&source.queue),
        };
        let definition = self.plan.tasks.get(&*envelope.task).cloned();
        let unknown = definition.is_none();
        let job = Arc::new(Job { at, record, envelope, ask: Arc::new(ask), definition, received: Instant::now() });
        if unknown {
            let grace = self.plan.options.unknown_task_grace.min(MOST_GRACE);
            warn!(event = "task_unknown", worker = %self.id, task_id = %job.envelope.id, task = %job.envelope.task,
                "no task of that name is registered; it waits {grace:?} for a worker that knows it");
            self.later.insert(Due::Ask(job), grace);
        } else {
            self.claims.push(job);
        }
    }

    /// Whether the partition has not been given away since the record was read.
    pub(super) fn is_ours(&self, at: Position) -> bool {
        is_ours(&self.sources, at)
    }

    /// The record is terminal or handed on: its offset can be committed with those below it.
    pub(super) fn complete_offset(&mut self, at: Position) {
        let source = &mut self.sources[at.queue];
        let Some(partition) = source.partitions.get_mut(&at.partition) else { return };
        if let Some(next) = partition.tracker.finish(at.epoch, at.offset) {
            source.subscription.store(at.partition, next);
        }
        if partition.paused && partition.tracker.window() <= WINDOW / 2 {
            partition.paused = false;
            if self.intake.full != Full::Paused {
                source.subscription.resume(at.partition);
            }
        }
    }

    fn mind_windows(&mut self, queue: usize) {
        let source = &mut self.sources[queue];
        for (&id, partition) in source.partitions.iter_mut().filter(|(_, partition)| !partition.paused) {
            if partition.tracker.window() >= WINDOW {
                partition.paused = true;
                source.subscription.pause(id);
                debug!(event = "partition_paused", worker = %self.id, queue = %source.queue, partition = id,
                    "its oldest task has been running while {WINDOW} others came");
            }
        }
    }

    /// Notices that the worker has become full, or has room again.
    fn gauge(&mut self) {
        let (jobs, bytes) = self.claims.waiting();
        match self.intake.full {
            Full::No if jobs >= READY_JOBS || bytes >= READY_BYTES => {
                self.intake.full = Full::Waiting(Instant::now());
                self.calls.push(Box::pin(async {
                    sleep(PATIENCE).await;
                    Step::StillFull
                }));
            }
            Full::Waiting(_) if jobs < READY_JOBS && bytes < READY_BYTES => self.intake.full = Full::No,
            Full::Paused if jobs < READY_JOBS / 2 && bytes < READY_BYTES / 2 => {
                self.intake.full = Full::No;
                self.each_open_partition(|subscription, partition| subscription.resume(partition));
            }
            _ => {}
        }
    }

    pub(super) fn still_full(&mut self) {
        // Otherwise it had room meanwhile, and another call follows the new wait.
        if matches!(self.intake.full, Full::Waiting(since) if since.elapsed() >= PATIENCE) {
            self.intake.full = Full::Paused;
            self.each_open_partition(|subscription, partition| subscription.pause(partition));
        }
    }

    fn each_open_partition(&self, act: impl Fn(&dyn Subscription, i32)) {
        for source in &self.sources {
            for (&id, _) in source.partitions.iter().filter(|(_, partition)| !partition.paused) {
                act(&*source.subscription, id);
            }
        }
    }
}

fn is_ours(sources: &[Source], at: Position) -> bool {
    let partition = sources[at.queue].partitions.get(&at.partition);
    partition.is_some_and(|partition| partition.tracker.epoch() == at.epoch)
}
