//! Delayed tasks, as operators see and change them: what waits for its time, and what runs now instead.
//!
//! The truth is the delayed topic, which is read beside the schedulers. Whoever fires or forgets a record says so with
//! a record of the same key without a value, in the same partition; where that is not known, in all of them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use serde::Serialize;

use crate::{
    admin::Admin,
    broker::{BrokerError, Event, Extent, Incoming, Outgoing},
    core::names::TaskId,
    error::Error,
    wire::envelope::{self, Envelope, delayed_key},
};

/// A task that waits for its time.
///
/// ```no_run
/// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
/// for task in client.admin().scheduled(100).await?.tasks {
///     println!("{} runs at {} ms", task.id, task.eta);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ScheduledTask {
    /// The task's id.
    pub id: String,
    /// Its name.
    pub task: String,
    /// The queue it goes to.
    pub queue: String,
    /// When it may run, in ms since the Unix epoch.
    pub eta: u64,
    /// The attempt that waits, from 1: from 2 on it is a retry.
    pub attempt: u32,
}

/// Tasks that wait for their time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Scheduled {
    /// The first of them by time, as many as were asked for.
    pub tasks: Vec<ScheduledTask>,
    /// How many there are in all.
    pub total: u64,
}

impl Admin {
    /// The first tasks that wait for their time, delayed ones and retries, and how many there are. Reads all of them
    /// twice, and remembers a key each meanwhile.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn scheduled(&self, limit: usize) -> Result<Scheduled, Error> {
        let mut found = Scheduled::default();
        for Extent { partition, start, .. } in self.delayed_extents().await? {
            // By partition: a key is always in one.
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

    /// Runs a task now that waits for its time or for a retry, through the scheduler. `false`: it does not wait (any
    /// more).
    ///
    /// ```no_run
    /// # async fn f(client: yadtq::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// client.admin().run_now(&"d5750c0e-ed82".parse()?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Kafka does not answer: it may or may not run now, and can be asked for again.
    pub async fn run_now(&self, id: &TaskId) -> Result<bool, Error> {
        let prefix = format!("{id}/");
        let mut found: HashMap<Bytes, Incoming> = HashMap::new();
        for Extent { partition, start, .. } in self.delayed_extents().await? {
            self.read_delayed(partition, start, |record| {
                let Some(key) = record.key.clone().filter(|key| key.starts_with(prefix.as_bytes())) else { return };
                match record.value.is_empty() {
                    true => drop(found.remove(&key)),
                    false => drop(found.insert(key, record)),
                }
            })
            .await?;
        }
        let mut runs = false;
        for (key, record) in found {
            // What cannot be read is the scheduler's to bury.
            let moved = envelope::at(&record.value, Some(self.now_ms())).ok();
            let Some(value) = moved.filter(|value| Envelope::read(value).is_ok()) else { continue };
            // In the place of the one that waits: there is never none, and never two.
            let (topic, partition) = (self.delayed_topic(), Some(record.partition));
            self.publish_all(vec![Outgoing { topic, key, value, partition, headers: record.headers }]).await?;
            runs = true;
        }
        Ok(runs)
    }

    /// Takes a task's record out of the delayed ones, wherever it is.
    pub(crate) async fn forget_delayed(&self, id: &TaskId, seq: u64) -> Result<(), Error> {
        let key = delayed_key(id, seq);
        let topic = self.delayed_topic();
        let extents = self.delayed_extents().await?;
        let forget = |extent: Extent| deletion(Arc::clone(&topic), key.clone(), extent.partition);
        self.publish_all(extents.into_iter().map(forget).collect()).await
    }

    fn delayed_topic(&self) -> Arc<str> {
        self.namespace().delayed_topic().into()
    }

    async fn delayed_extents(&self) -> Result<Vec<Extent>, Error> {
        Ok(self.broker().extents(&self.delayed_topic()).await?)
    }

    /// Reads a partition to its end.
    async fn read_delayed(&self, partition: i32, start: i64, mut each: impl FnMut(Incoming)) -> Result<(), Error> {
        let mut reader = self.broker().read(&self.delayed_topic(), &[(partition, start)])?;
        loop {
            for event in reader.next_in_time("delayed tasks").await? {
                match event {
                    Event::Records(records) => records.into_iter().for_each(&mut each),
                    Event::Ended(_) => return Ok(()),
                    Event::Assigned(_) | Event::Revoked(_) => {}
                }
            }
        }
    }

    async fn publish_all(&self, records: Vec<Outgoing>) -> Result<(), Error> {
        Ok(self.broker().publish(records).await.into_iter().collect::<Result<(), BrokerError>>()?)
    }
}

/// Says that what a key had in this partition is done.
pub(crate) fn deletion(topic: Arc<str>, key: Bytes, partition: i32) -> Outgoing {
    Outgoing { topic, key, value: Bytes::new(), partition: Some(partition), headers: Vec::new() }
}

impl ScheduledTask {
    fn read(record: &Bytes) -> Option<Self> {
        let task = Envelope::read(record).ok()?;
        let queue = envelope::due(record).ok()?.queue.to_string();
        let eta = task.eta.unwrap_or(0);
        Some(Self { id: task.id.to_string(), task: task.task.to_string(), queue, eta, attempt: task.attempt })
    }
}
