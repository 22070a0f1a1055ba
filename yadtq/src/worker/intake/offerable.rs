//! What others may run of the records that are ready here, and the records of others.

use std::sync::Arc;

use tokio::time::Instant;

use super::Intake;
use crate::{
    broker::Incoming,
    store::WantedSlots,
    wire::{envelope::Envelope, offer::OfferedRecord},
    worker::job::{Job, Lane, Position},
};

impl Intake {
    /// Whether any source has a job that may be claimed.
    pub(in crate::worker) fn has_ready(&self, lane: Lane) -> bool {
        self.sources.iter().any(|source| source.is_ready(lane))
    }

    /// Ready records that others may run.
    pub(in crate::worker) fn offerable(&self, lane: Lane) -> impl Iterator<Item = &Arc<Job>> {
        self.sources.iter().flat_map(move |source| source.offerable(lane))
    }

    /// Takes out ready records of this task that others may run and for which `which` holds, at most this many.
    pub(in crate::worker) fn take_offerable(
        &mut self, wanted: &WantedSlots, most: usize, which: impl Fn(&Job) -> bool,
    ) -> Vec<Arc<Job>> {
        let mut taken = Vec::new();
        for source in self.sources.iter_mut().filter(|source| source.queue == wanted.queue) {
            source.take_offerable(&wanted.task, most, &which, &mut taken);
        }
        taken
    }

    /// The job of a record that another worker offers. `None`: it is nothing that this worker runs.
    pub(in crate::worker) fn take_in(&mut self, offered: OfferedRecord, now: Instant) -> Option<Arc<Job>> {
        let OfferedRecord { place, topic, timestamp_ms, key, value, headers } = offered;
        let id = self.source_ids().find(|&id| *self.topic(id) == topic).filter(|_| !self.is_stopped)?;
        let record = Incoming { partition: place.partition, offset: place.offset, timestamp_ms, key, value, headers };
        let envelope = Envelope::read(&record.value).ok()?;
        let bytes = record.size();
        let Incoming { partition, offset, .. } = record;
        let at = Position { source: id, partition, epoch: Position::FOREIGN, offset, bytes };
        let job = self.job(at, record, envelope, now);
        (job.definition.is_some() && job.envelope.ordering_key.is_none()).then_some(job)
    }
}
