//! Delayed tasks and retries: lists those that wait for their due time, and runs one now.
//!
//! The delayed topic is authoritative. It is read here independently of the schedulers. Whoever sends a delayed task to its
//! queue or revokes it writes a tombstone: a record with the same key and no value, in the same partition, or in all
//! partitions if the partition is not known.
//!
//! A revoked task is deleted from all partitions: which one has its record depends on the number of partitions when it was
//! written, and a deletion costs little.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use serde::Serialize;

use super::{Admin, times};
use crate::{
    broker::{BrokerError, Incoming, OffsetRange, Outgoing, read_to_end},
    client::{Revocation, revoke},
    core::names::TaskId,
    error::Error,
    wire::envelope::{self, Envelope, of_delayed_key},
};

/// A task that waits for its due time. In its JSON, that is in ms since the Unix epoch.
///
/// ```no_run
/// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
/// for task in client.admin().scheduled(100).await?.tasks {
///     println!("{} runs at {:?}", task.id, task.eta);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ScheduledTask {
    /// The task's id.
    pub id: TaskId,
    /// The task's name.
    pub task: String,
    /// The queue to which the task goes at its due time.
    pub queue: String,
    /// The due time.
    #[serde(serialize_with = "times::write")]
    pub eta: SystemTime,
    /// The attempt that waits, from 1. From 2 on, it is a retry.
    pub attempt: u32,
}

/// Tasks that wait for their due time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Scheduled {
    /// The tasks with the earliest due times, at most as many as were requested.
    pub tasks: Vec<ScheduledTask>,
    /// The number of all tasks that wait for their due time.
    pub total: u64,
}

impl Admin {
    /// The tasks that wait for their due time, delayed tasks and retries: at most `limit` of them, the earliest first, and the
    /// number of all. It reads the whole delayed topic twice, and keeps the key of every waiting task in memory.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn scheduled(&self, limit: usize) -> Result<Scheduled, Error> {
        let mut found = Scheduled::default();
        for OffsetRange { partition, start, .. } in self.delayed_offset_ranges().await? {
            // A key is always in the same partition, so one partition after the other can be counted.
            let mut places: HashMap<Bytes, (u64, i64)> = HashMap::new();
            self.read_delayed(partition, start, |record| {
                let Some(key) = record.key else { return };
                match record.value.is_empty() {
                    true => drop(places.remove(&key)),
                    false => drop(places.insert(key, (envelope::eta(&record.value), record.offset))),
                }
            })
            .await?;
            found.total += places.len() as u64;
            let mut first: Vec<_> = places.into_values().collect();
            first.sort_unstable();
            let first: HashSet<i64> = first.into_iter().take(limit).map(|(_, offset)| offset).collect();
            let Some(&start) = first.iter().min() else { continue };
            self.read_delayed(partition, start, |record| {
                if first.contains(&record.offset) {
                    found.tasks.extend(ScheduledTask::read(&record.value));
                }
            })
            .await?;
            found.tasks.sort_by(|a, b| (a.eta, &a.id).cmp(&(b.eta, &b.id)));
            found.tasks.truncate(limit);
        }
        Ok(found)
    }

    /// Makes a delayed task or a retry due now, so that the scheduler sends it to its queue. Returns `false` if the task does
    /// not wait for a due time, or no longer.
    ///
    /// ```no_run
    /// # async fn f(client: yadtq::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// client.admin().run_now(&"d5750c0e-ed82".parse()?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Kafka does not answer: the task may or may not run now, and the call can be repeated.
    pub async fn run_now(&self, id: &TaskId) -> Result<bool, Error> {
        let is_of_task = |key: &Bytes| of_delayed_key(key).is_some_and(|(other, _)| other == id.as_str());
        let mut found: HashMap<Bytes, Incoming> = HashMap::new();
        for OffsetRange { partition, start, .. } in self.delayed_offset_ranges().await? {
            self.read_delayed(partition, start, |record| {
                let Some(key) = record.key.clone().filter(is_of_task) else { return };
                match record.value.is_empty() {
                    true => drop(found.remove(&key)),
                    false => drop(found.insert(key, record)),
                }
            })
            .await?;
        }
        let mut runs = false;
        for (key, record) in found {
            // The scheduler makes a dead letter of a record that cannot be read.
            let moved = envelope::at(&record.value, Some(self.now_ms())).ok();
            let Some(value) = moved.filter(|value| Envelope::read(value).is_ok()) else { continue };
            // The new record has the key of the one that waits, and so replaces it: there is always exactly one.
            let (topic, partition) = (self.delayed_topic(), Some(record.partition));
            self.publish_all(vec![Outgoing { topic, key, value, partition, headers: record.headers }]).await?;
            runs = true;
        }
        Ok(runs)
    }

    /// Revokes a task that waits for its due time or a retry, as [`Client::revoke`](crate::Client::revoke) does, and deletes its
    /// record. It finds the record even if Redis has lost the task, because it reads the whole delayed topic.
    ///
    /// ```no_run
    /// # async fn f(client: yadtq::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// client.admin().cancel_scheduled(&"d5750c0e-ed82".parse()?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The same as those of [`Client::revoke`](crate::Client::revoke).
    pub async fn cancel_scheduled(&self, id: &TaskId) -> Result<Revocation, Error> {
        let revocation = revoke(&*self.store, &*self.broker, &self.config, id).await?;
        if revocation != Revocation::Revoked {
            return Ok(revocation);
        }
        let mut found: HashSet<(i32, Bytes)> = HashSet::new();
        for OffsetRange { partition, start, .. } in self.delayed_offset_ranges().await? {
            self.read_delayed(partition, start, |record| {
                let Some(key) = record.key.filter(|key| is_of(key, id)) else { return };
                match record.value.is_empty() {
                    true => drop(found.remove(&(partition, key))),
                    false => drop(found.insert((partition, key))),
                }
            })
            .await?;
        }
        let tombstone = |(partition, key)| Outgoing::tombstone(self.delayed_topic(), key, partition);
        self.publish_all(found.into_iter().map(tombstone).collect()).await?;
        Ok(revocation)
    }

    fn delayed_topic(&self) -> Arc<str> {
        self.namespace().delayed_topic().into()
    }

    async fn delayed_offset_ranges(&self) -> Result<Vec<OffsetRange>, Error> {
        Ok(self.broker.offset_ranges(&self.delayed_topic()).await?)
    }

    /// Reads a partition to its end.
    async fn read_delayed(&self, partition: i32, start: i64, each: impl FnMut(Incoming)) -> Result<(), Error> {
        Ok(read_to_end(&*self.broker, &self.delayed_topic(), &[(partition, start)], each).await?)
    }

    async fn publish_all(&self, records: Vec<Outgoing>) -> Result<(), Error> {
        Ok(self.broker.publish(records).await.into_iter().collect::<Result<(), BrokerError>>()?)
    }
}

/// Whether a record of the delayed topic with this key is one of the task. An id may have a `/` itself.
fn is_of(key: &[u8], id: &TaskId) -> bool {
    let rest = key.strip_prefix(id.as_str().as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
    rest.is_some_and(|seq| !seq.is_empty() && seq.iter().all(u8::is_ascii_digit))
}

impl ScheduledTask {
    fn read(record: &Bytes) -> Option<Self> {
        let task = Envelope::read(record).ok()?;
        let queue = envelope::due(record).ok()?.queue.to_string();
        let eta = times::at(task.eta.unwrap_or(0));
        Some(Self { id: task.id, task: task.task.to_string(), queue, eta, attempt: task.attempt })
    }
}
