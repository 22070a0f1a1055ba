//! Revokes tasks: those that wait will not run, and workers are asked to stop those that run.

use std::sync::Arc;

use super::Client;
use crate::{
    broker::{Broker, BrokerError, OffsetRange, Outgoing},
    config::Config,
    core::{
        controls::ControlRecord,
        lifecycle::{self, Delayed, Status},
        names::TaskId,
        revocations::TTL_MS,
    },
    error::Error,
    store::{self, Store},
    wire::{
        control::{self, CONTROL_PARTITION},
        envelope::delayed_key,
    },
};

/// The outcome of a revocation.
///
/// ```no_run
/// # async fn f(handle: yadtq::TaskHandle<i64>) -> Result<(), yadtq::Error> {
/// use yadtq::Revocation;
///
/// match handle.revoke().await? {
///     Revocation::Revoked => println!("it will not run"),
///     Revocation::Asked { worker } => println!("{worker} is asked to end it"),
///     Revocation::Ended { status } => println!("too late: {status}"),
///     _ => {}
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revocation {
    /// The task waited, and will not run (again).
    Revoked,
    /// The task runs, and its worker is asked to stop it.
    Asked {
        /// The worker that runs it.
        worker: String,
    },
    /// The task had already ended, and nothing changed.
    Ended {
        /// The final state that the task had.
        status: Status,
    },
}

impl Client {
    /// Revokes a task, and whoever awaits it gets [`Error::Revoked`].
    ///
    /// A task that waits will not run, even if no worker has read it and Redis does not know it yet, and even if Redis loses all its
    /// data. A task that runs is asked to stop, see [`Context::cancelled`](crate::Context::cancelled); an `async` task that has
    /// not stopped after the worker's [grace time](crate::WorkerBuilder::revoke_grace) is dropped. A run that succeeds in spite
    /// of the request stays a success.
    ///
    /// The revocation of a waiting task is a record in Kafka, which takes about 30 bytes of each worker's memory until the
    /// task's record has been read. The [guide](crate::guide::delivery) says more.
    ///
    /// ```no_run
    /// # async fn f(client: yadtq::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// client.revoke(&"d5750c0e-ed82".parse()?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Redis does not answer: the task may or may not be revoked, and can be revoked again. Kafka does not answer: the task is
    /// revoked, but would run if Redis lost all its data; revoke it again.
    pub async fn revoke(&self, id: &TaskId) -> Result<Revocation, Error> {
        revoke(&*self.inner.store, &*self.inner.broker, &self.inner.config, id).await
    }
}

/// Does what [`Client::revoke`] says.
pub(crate) async fn revoke(
    store: &dyn Store, broker: &dyn Broker, config: &Config, id: &TaskId,
) -> Result<Revocation, Error> {
    let delayed = match store::only(store.revoke(std::slice::from_ref(id)).await)? {
        lifecycle::Revocation::Revoked { delayed } => delayed,
        lifecycle::Revocation::Asked(worker) => return Ok(Revocation::Asked { worker: worker.to_string() }),
        lifecycle::Revocation::Ended(status) => return Ok(Revocation::Ended { status }),
    };
    let mut records = vec![durable(config, id, delayed)];
    if let Some(Delayed { seq, .. }) = delayed {
        let key = delayed_key(id, seq);
        let topic: Arc<str> = config.namespace.delayed_topic().into();
        // Which of its partitions has the record is not known.
        let tombstone = |offsets: OffsetRange| Outgoing::tombstone(Arc::clone(&topic), key.clone(), offsets.partition);
        records.extend(broker.offset_ranges(&topic).await?.into_iter().map(tombstone));
    }
    broker.publish(records).await.into_iter().collect::<Result<(), BrokerError>>()?;
    Ok(Revocation::Revoked)
}

/// The record that keeps the task from running if the store loses its memory.
fn durable(config: &Config, id: &TaskId, delayed: Option<Delayed>) -> Outgoing {
    let at = config.clock.now_ms();
    let due = delayed.map_or(0, |delayed| delayed.eta);
    let control = ControlRecord::Revoke {
        task_id: id.to_string(),
        at,
        until: at.max(due).saturating_add(TTL_MS),
        known: delayed.is_none_or(|delayed| delayed.eta > 0),
    };
    let (key, value) = control::record(&control);
    let topic = config.namespace.control_topic().into();
    Outgoing { topic, key, value, partition: Some(CONTROL_PARTITION), headers: Vec::new() }
}
