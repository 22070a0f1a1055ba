//! A task whose next record can't be published, because its topic does not take a record of that size: the task fails, and the
//! record becomes a dead letter.
//!
//! ```text
//!  claim (as any worker that runs it) ─► finish as failed: who waits is notified ─► dead letter, acknowledged ─► noted
//! ```
//! So all rules of the claim protocol hold: a task that has ended or goes on meanwhile is left alone, and each step can be repeated.

use std::sync::Arc;

use tokio::time::sleep;
use tracing::warn;

use super::{
    dead_letter, outcome,
    publisher::{self, Shrink, Unpublished},
};
use crate::{
    broker::{Broker, BrokerError, Outgoing},
    clock::millis,
    core::{
        lifecycle::{Claim, ClaimRequest, Claimer, End, Finished, LeaseProof},
        names::{Namespace, WorkerId},
    },
    store::{self, Finish, Lease, Store, StoreError},
    wire::{
        envelope::Envelope,
        failure::{ErrorKind, Failure},
    },
    worker::{options::Options, timers::Backoff},
};

/// Number of attempts to note that a dead letter is acknowledged.
const NOTE_ATTEMPTS: usize = 5;

/// Ends tasks whose records can't be published.
#[derive(Clone)]
pub(in crate::worker) struct TooLarge {
    pub(in crate::worker) worker: WorkerId,
    pub(in crate::worker) namespace: Namespace,
    pub(in crate::worker) broker: Arc<dyn Broker>,
    pub(in crate::worker) store: Arc<dyn Store>,
    pub(in crate::worker) options: Options,
}

/// Why a task can't be ended yet.
pub(in crate::worker) enum Waits {
    /// Somebody else runs it.
    Held,
    Store(StoreError),
    Broker(BrokerError),
}

impl TooLarge {
    /// Returns when Kafka has acknowledged the record, or its task has ended because it is too large. Tries until then.
    pub(in crate::worker) async fn publish(&self, mut record: Outgoing, shrink: &Shrink, unpublished: &Unpublished) {
        let mut backoff = Backoff::default();
        loop {
            match publisher::publish_fitting(&*self.broker, &mut record, shrink).await {
                Ok(()) => return,
                Err(error @ BrokerError::TooLarge { .. }) => match self.dead_letter(unpublished, &error).await {
                    Ok(()) => return,
                    Err(waits) => {
                        self.log(unpublished, &waits);
                        sleep(backoff.failed()).await;
                    }
                },
                Err(error) => publisher::wait(&record, &error, &mut backoff).await,
            }
        }
    }

    /// Ends the task, unless it has ended or goes on under another record. `Ok`: nothing has to be published for it any more.
    pub(in crate::worker) async fn dead_letter(
        &self, unpublished: &Unpublished, error: &BrokerError,
    ) -> Result<(), Waits> {
        let Envelope { id, task, seq, attempt, reply_to, options, .. } = &unpublished.envelope;
        let (task, queue) = (Arc::clone(task), Arc::clone(&unpublished.queue));
        let ask = Arc::new(ClaimRequest { seq: *seq, attempt: *attempt, nonce: fastrand::u64(1..), task, queue });
        let by = Claimer {
            worker: Arc::clone(&self.worker),
            lease_ms: millis(self.options.lease),
            take_over: self.store.connected_for().is_some_and(|up| up >= self.options.lease),
            // Nothing runs.
            quarantine: u32::MAX,
            max_deliveries: self.options.max_deliveries,
        };
        let (failure, deliveries) =
            match store::only(self.store.claim(&by, &[(id.clone(), Arc::clone(&ask))]).await).map_err(Waits::Store)? {
                Claim::Granted { token, deliveries, attempt } => {
                    let failure = Failure::new(ErrorKind::Unpublishable, error.to_string(), attempt);
                    let run = Finish {
                        lease: Lease { id: id.clone(), ask, held: LeaseProof { token, recent: true } },
                        end: Arc::new(End::failed(failure.to_json().into())),
                        reply_to: reply_to.clone(),
                        ttl_ms: outcome::ttl_ms(options, &self.options, None),
                    };
                    match store::only(self.store.finish(&[run]).await).map_err(Waits::Store)? {
                        Finished::Recorded => (failure, deliveries),
                        Finished::Revoking | Finished::Stale => return Err(Waits::Held),
                    }
                }
                Claim::Dead { error, deliveries } => (Failure::read(&error, *attempt), deliveries),
                Claim::Held { .. } => return Err(Waits::Held),
                Claim::Done | Claim::Revoked | Claim::Moved { .. } => return Ok(()),
            };
        let letter = &mut dead_letter::of_unpublished(&self.worker, &self.namespace, unpublished, &failure, deliveries);
        publisher::publish_fitting(&*self.broker, letter, &Shrink::DeadLetter).await.map_err(Waits::Broker)?;
        // Unless the record comes back all the same, nobody asks for its letter again.
        let mut backoff = Backoff::default();
        for _ in 0..NOTE_ATTEMPTS {
            if store::only(self.store.dead_lettered(&[(id.clone(), *seq)]).await).is_ok() {
                break;
            }
            sleep(backoff.failed()).await;
        }
        Ok(())
    }

    pub(in crate::worker) fn log(&self, unpublished: &Unpublished, waits: &Waits) {
        let id = &unpublished.envelope.id;
        let why = match waits {
            Waits::Held => "somebody else runs it".to_owned(),
            Waits::Store(error) => error.to_string(),
            Waits::Broker(error) => error.to_string(),
        };
        warn!(event = "dead_letter_waits", worker = %self.worker, task_id = %id.shown(), error = why,
            "its record is too large for its topic, and it can't be failed yet; trying again");
    }
}
