//! Fires delayed tasks: reads the partitions of the delayed topic that are this worker's, and publishes each task to
//! its queue when it is due.
//!
//! ```text
//!  delayed topic ─► window (core/delayed.rs) ─► due ─► queue topic, acknowledged ─► deletion, acknowledged
//!                     ▲ scans, when it runs low
//! ```
//! The topic is the truth, and nothing is ever committed: a new owner reads its partitions from the start, and fires
//! nothing before it has come to the end. A worker that dies between the two publications has the task fired again by
//! the next owner: the claim makes it one run.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    burial::{cut, publish},
    heartbeat::Stillness,
};
use crate::{
    broker::{Broker, BrokerError, Event, Incoming, Outgoing, Reader, Subscription},
    clock::Clock,
    core::{
        delayed::{Limits, Record, Window},
        names::{Namespace, WorkerId},
    },
    scheduled::deletion,
    wire::{
        dead::{Epitaph, Reason, Source},
        envelope,
    },
};

/// For each partition: some minutes of tasks, and little memory.
const LIMITS: Limits = Limits { ahead_ms: 10 * 60 * 1_000, records: 10_000, bytes: 2 * 1_024 * 1_024 };
/// Tasks that are fired with one call.
const BATCH: usize = 500;
/// Calls under way.
const FIRING: usize = 8;
/// Clocks may be set; nothing is relied on for longer.
const NAP: Duration = Duration::from_secs(60);
/// How long a stopping scheduler waits for what it fires.
const GOODBYE: Duration = Duration::from_secs(1);
/// When what Kafka did not take is due again, in ms.
const AGAIN_MS: u64 = 1_000;
/// So many of them are kept. When there are more, nothing else is fired: Kafka is away, or most of it.
const MOST_AGAIN: usize = 50_000;
/// How often loading tells how far it is.
const TELL: Duration = Duration::from_secs(1);
/// How long a topic that cannot be subscribed to is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// What the scheduler needs of its worker.
pub(super) struct Needs {
    pub(super) worker: WorkerId,
    pub(super) namespace: Namespace,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) clock: Arc<dyn Clock>,
}

struct Scheduler {
    needs: Needs,
    topic: Arc<str>,
    subscription: Arc<dyn Subscription>,
    partitions: HashMap<i32, Partition>,
    scan: Option<Scan>,
    /// Each returns what could not be fired.
    firing: FuturesUnordered<JoinHandle<Vec<Incoming>>>,
    /// What Kafka did not take, and when it is tried again.
    again: VecDeque<(u64, Incoming)>,
    stillness: Stillness,
    told: Instant,
}

struct Partition {
    window: Window<Bytes, Incoming>,
    /// Records since it was assigned.
    read: u64,
    is_loaded: bool,
}

/// A second look at a partition, for what is due next.
struct Scan {
    partition: i32,
    reader: Box<dyn Reader>,
}

/// Fires delayed tasks until told to stop.
pub(super) async fn run(needs: Needs, stop: CancellationToken) {
    let topic: Arc<str> = needs.namespace.delayed_topic().into();
    let subscription = loop {
        match needs.broker.subscribe(&topic) {
            Ok(subscription) => break subscription,
            Err(error) => {
                error!(event = "scheduler_failed", worker = %needs.worker, %error, "delayed tasks wait; trying again");
                if stop.run_until_cancelled(sleep(PAUSE)).await.is_none() {
                    return;
                }
            }
        }
    };
    let (partitions, firing, again) = (HashMap::new(), FuturesUnordered::new(), VecDeque::new());
    let stillness = Stillness::new(Arc::clone(&needs.clock));
    let told = Instant::now();
    let mut scheduler =
        Scheduler { needs, topic, subscription, partitions, scan: None, firing, again, stillness, told };
    stop.run_until_cancelled(scheduler.serve()).await;
    let Scheduler { mut firing, subscription, .. } = scheduler;
    // What is not done by then is fired by the next owner.
    let _ = timeout(GOODBYE, async { while firing.next().await.is_some() {} }).await;
    firing.iter().for_each(JoinHandle::abort);
    subscription.close().await;
}

impl Scheduler {
    /// Never returns, but does nothing more once it has stood still.
    async fn serve(&mut self) {
        loop {
            if self.stillness.stood_still() {
                // What it knows may have been fired, finished and forgotten by now. The worker's loop stood still too,
                // and begins anew with another scheduler.
                return std::future::pending().await;
            }
            self.fire();
            self.begin_scan();
            let nap = self.nap();
            tokio::select! {
                events = self.subscription.next() => events.into_iter().for_each(|event| self.heard(event)),
                events = next(&mut self.scan) => self.scanned(events),
                Some(refused) = self.firing.next() => self.put_back(refused.unwrap_or_default()),
                () = sleep(nap) => {}
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.needs.clock.now_ms()
    }

    /// Until there is something to do.
    fn nap(&self) -> Duration {
        if self.firing.len() >= FIRING {
            return NAP;
        }
        if self.again.len() >= MOST_AGAIN {
            return Duration::from_millis(AGAIN_MS);
        }
        let again = self.again.front().map(|&(due, _)| due);
        let windows = self.partitions.values().filter(|partition| partition.is_loaded);
        let next = windows.filter_map(|partition| partition.window.next_ms()).chain(again).min();
        let Some(next) = next else { return NAP };
        // A scan waits for its turn, and is begun when the one under way has ended.
        let wait = next.saturating_sub(self.now_ms()).max(u64::from(self.scan.is_some()));
        Duration::from_millis(wait).min(NAP)
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::Assigned(partitions) => {
                info!(event = "scheduler_assigned", worker = %self.needs.worker, ?partitions, "loads delayed tasks");
                let now_ms = self.now_ms();
                for partition in partitions {
                    let window = Window::new(LIMITS, now_ms);
                    self.partitions.insert(partition, Partition { window, read: 0, is_loaded: false });
                }
            }
            Event::Revoked(partitions) => {
                info!(event = "scheduler_revoked", worker = %self.needs.worker, ?partitions, "leaves delayed tasks");
                for partition in partitions {
                    self.partitions.remove(&partition);
                    self.again.retain(|(_, record)| record.partition != partition);
                    if self.scan.as_ref().is_some_and(|scan| scan.partition == partition) {
                        self.scan = None;
                    }
                }
            }
            Event::Records(records) => {
                for record in records {
                    if let Some(partition) = self.partitions.get_mut(&record.partition) {
                        partition.read += 1;
                        let record = read(record);
                        if record.value.is_none() && !self.again.is_empty() {
                            self.again.retain(|(_, again)| again.key.as_ref() != Some(&record.key));
                        }
                        partition.window.tail(record);
                    }
                }
                self.tell();
            }
            Event::Ended(partitions) => partitions.into_iter().for_each(|partition| self.ended(partition)),
        }
    }

    fn ended(&mut self, id: i32) {
        let Some(partition) = self.partitions.get_mut(&id).filter(|partition| !partition.is_loaded) else { return };
        partition.is_loaded = true;
        partition.window.loaded();
        debug!(event = "scheduler_loaded", worker = %self.needs.worker, partition = id, records = partition.read,
            due_soon = partition.window.len(), "delayed tasks of a partition are ready");
        if self.partitions.values().all(|partition| partition.is_loaded) {
            info!(event = "scheduler_ready", worker = %self.needs.worker, partitions = self.partitions.len(),
                records = self.records(), "all delayed tasks are loaded");
        }
    }

    /// How far loading is, for who watches a start with a large backlog.
    fn tell(&mut self) {
        let loading = self.partitions.values().filter(|partition| !partition.is_loaded).count();
        if loading > 0 && self.told.elapsed() >= TELL {
            self.told = Instant::now();
            info!(event = "scheduler_loading", worker = %self.needs.worker, loading,
                partitions = self.partitions.len(), records = self.records(), "reads delayed tasks");
        }
    }

    /// What was read of its partitions.
    fn records(&self) -> u64 {
        self.partitions.values().map(|partition| partition.read).sum()
    }

    fn begin_scan(&mut self) {
        if self.scan.is_some() {
            return;
        }
        let now_ms = self.now_ms();
        let mut loaded = self.partitions.iter_mut().filter(|(_, partition)| partition.is_loaded);
        let begun = loaded.find_map(|(&id, partition)| partition.window.begin_scan(now_ms).then_some((id, partition)));
        let Some((id, partition)) = begun else { return };
        debug!(event = "scheduler_scans", worker = %self.needs.worker, partition = id, "looks for what is due next");
        match self.needs.broker.read(&self.topic, &[(id, 0)]) {
            Ok(reader) => self.scan = Some(Scan { partition: id, reader }),
            Err(error) => {
                error!(event = "scheduler_failed", worker = %self.needs.worker, %error, "delayed tasks wait; trying again");
                partition.window.drop_scan();
            }
        }
    }

    fn scanned(&mut self, events: Vec<Event>) {
        let Some(scan) = &self.scan else { return };
        let Some(partition) = self.partitions.get_mut(&scan.partition) else { return };
        for event in events {
            match event {
                Event::Records(records) => {
                    records.into_iter().for_each(|record| partition.window.scanned(read(record)));
                }
                Event::Ended(_) => {
                    partition.window.end_scan();
                    self.scan = None;
                    return;
                }
                Event::Assigned(_) | Event::Revoked(_) => {}
            }
        }
    }

    /// Fires what is due, in a few calls at a time, one for each topic: one that Kafka does not take holds up no other.
    fn fire(&mut self) {
        let now_ms = self.now_ms();
        while self.firing.len() < FIRING {
            let due_again = self.again.iter().take(BATCH).take_while(|&&(due, _)| due <= now_ms).count();
            let mut batch: Vec<Incoming> = self.again.drain(..due_again).map(|(_, record)| record).collect();
            let loaded = self.partitions.values_mut().filter(|partition| partition.is_loaded);
            let due = loaded.flat_map(|Partition { window, .. }| std::iter::from_fn(|| window.pop(now_ms)));
            let room = if self.again.len() < MOST_AGAIN { BATCH - batch.len() } else { 0 };
            batch.extend(due.take(room));
            if batch.is_empty() {
                return;
            }
            debug!(event = "tasks_due", worker = %self.needs.worker, tasks = batch.len(), "their time has come");
            let mut topics: HashMap<Arc<str>, Vec<Shot>> = HashMap::new();
            for record in batch {
                let (outgoing, deletion) = due_now(&self.needs.namespace, &self.topic, &record);
                topics.entry(Arc::clone(&outgoing.topic)).or_default().push(Shot { record, outgoing, deletion });
            }
            for shots in topics.into_values() {
                self.firing.push(tokio::spawn(fire(Arc::clone(&self.needs.broker), shots)));
            }
        }
    }

    fn put_back(&mut self, refused: Vec<Incoming>) {
        let due = self.now_ms() + AGAIN_MS;
        let ours = refused.into_iter().filter(|record| self.partitions.contains_key(&record.partition));
        self.again.extend(ours.map(|record| (due, record)));
    }
}

/// A delayed record, what it becomes, and the deletion that follows.
struct Shot {
    record: Incoming,
    outgoing: Outgoing,
    deletion: Outgoing,
}

/// Publishes records of one topic and then their deletions; returns those that Kafka did not take.
async fn fire(broker: Arc<dyn Broker>, shots: Vec<Shot>) -> Vec<Incoming> {
    let answers = broker.publish(shots.iter().map(|shot| shot.outgoing.clone()).collect()).await;
    let (mut refused, mut done, mut why) = (Vec::new(), Vec::with_capacity(shots.len()), None);
    for (Shot { record, outgoing, deletion }, answer) in shots.into_iter().zip(answers) {
        match answer {
            Ok(()) => done.push(deletion),
            // A dead letter may be made smaller, a task may not.
            Err(BrokerError::TooLarge { .. }) if outgoing.topic.ends_with(".dead") => {
                publish(&*broker, outgoing, cut).await;
                done.push(deletion);
            }
            Err(error) => {
                refused.push(record);
                why.get_or_insert((outgoing.topic, error));
            }
        }
    }
    if let Some((topic, error)) = why {
        warn!(event = "tasks_not_fired", %topic, %error, tasks = refused.len(), "they are due again in a moment");
    }
    // Until these are acknowledged, the next owner would fire the tasks again, which does no harm.
    let answers = broker.publish(done.clone()).await;
    for (deletion, _) in done.into_iter().zip(answers).filter(|(_, answer)| answer.is_err()) {
        publish(&*broker, deletion, |_| false).await;
    }
    refused
}

/// Waits for ever without a scan.
async fn next(scan: &mut Option<Scan>) -> Vec<Event> {
    match scan {
        Some(scan) => scan.reader.next().await,
        None => std::future::pending().await,
    }
}

fn read(record: Incoming) -> Record<Bytes, Incoming> {
    // A record without a key cannot be deleted, so its place has to do: it is fired once by each owner.
    let key = record.key.clone().unwrap_or_else(|| format!("{}@{}", record.partition, record.offset).into());
    let (offset, size) = (record.offset, record.size());
    let value = (!record.value.is_empty()).then(|| (envelope::eta(&record.value), record));
    Record { key, offset, size, value }
}

/// What a delayed record becomes, and the deletion that follows. What is no task becomes a dead letter.
fn due_now(namespace: &Namespace, topic: &Arc<str>, record: &Incoming) -> (Outgoing, Outgoing) {
    let key = record.key.clone().unwrap_or_default();
    let deletion = deletion(Arc::clone(topic), key.clone(), record.partition);
    let due = match envelope::due(&record.value) {
        Ok(due) => Outgoing {
            topic: namespace.topic_of(&due.queue, due.priority).into(),
            key: due.key,
            value: due.record,
            partition: None,
            headers: record.headers.clone(),
        },
        Err(error) => {
            let (partition, offset) = (record.partition, record.offset);
            error!(event = "record_unreadable", %topic, partition, offset, %error, "not a task; it becomes a dead letter");
            let epitaph = Epitaph { reason: Reason::Unreadable, error: error.to_string(), attempts: 0, deliveries: 0 };
            let headers = epitaph.headers(&Source { topic, partition, offset }, &record.headers);
            Outgoing {
                topic: namespace.dead_topic().into(),
                key,
                value: record.value.clone(),
                partition: None,
                headers,
            }
        }
    };
    (due, deletion)
}
