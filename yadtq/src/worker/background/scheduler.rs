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
//!
//! The partitions share the memory and take turns with their scans. A queue that takes nothing has a few records kept for it; what
//! is beyond these is dropped from memory, and looked for again once the queue takes records. What is below the oldest record that
//! still waits is purged, so that a new owner reads little that has ended.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    task::{JoinError, JoinHandle},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{refused::Refused, suspend::SuspendDetector};
use crate::{
    broker::{Broker, BrokerError, Event, Incoming, Outgoing, Reader, Subscription},
    clock::Clock,
    core::{
        delayed::{Record, Window, WindowLimits},
        names::{Namespace, Queue, WorkerId},
    },
    restart,
    wire::{
        dead::{Cause, Reason, Source},
        envelope::{self, Envelope},
    },
    worker::finish::{
        publisher::{Shrink, Unpublished, publish, publish_fitting},
        too_large::TooLarge,
    },
};

/// How far ahead tasks are kept in memory, in ms.
const AHEAD_MS: u64 = 10 * 60 * 1_000;
/// What all partitions of a worker share: the most tasks in memory, their bytes, and the bytes of the notes about deletions.
const MAX_TASKS: usize = 120_000;
const MAX_TASK_BYTES: usize = 24 * 1_024 * 1_024;
const MAX_NOTE_BYTES: usize = 24 * 1_024 * 1_024;
/// What a task takes in memory besides the bytes of its record.
const TASK_OVERHEAD_BYTES: usize = 320;
/// The most tasks that are fired with one call, and the bytes from which on no more are added.
const FIRE_BATCH: usize = 500;
const FIRE_BATCH_BYTES: usize = 1_024 * 1_024;
/// The number of tasks after which it is the turn of another partition.
const FIRE_QUANTUM: usize = 25;
/// The most calls that fire tasks at the same time. Those of a queue that does not take them in time are not counted.
const MAX_FIRE_CALLS: usize = 8;
/// A queue of which a call takes longer is tried with one call at a time.
const SLOW_FIRE_CALL: Duration = Duration::from_secs(3);
/// The most queues that are tried at the same time of those that did not take tasks.
const MAX_TRIED_QUEUES: usize = 8;
/// The longest wait without an event. Clocks may be set, so no wait is relied on for longer.
const MAX_IDLE_WAIT: Duration = Duration::from_secs(60);
/// How long a stopping scheduler waits for the calls under way.
const FIRE_CALLS_TIMEOUT: Duration = Duration::from_secs(1);
/// After this time in ms, tasks that Kafka did not take are due again.
const REFUSED_DELAY_MS: u64 = 1_000;
/// How long a partition is scanned while others wait for their turn.
const SCAN_TURN: Duration = Duration::from_secs(2);
/// A scan without an answer for this long gives its turn to others, and is not tried before `SILENT_DELAY` while others wait.
const SILENT_TIMEOUT: Duration = Duration::from_secs(2);
const SILENT_DELAY: Duration = Duration::from_secs(10);
/// The time from one purge of what has ended to the next.
const PURGE_INTERVAL: Duration = Duration::from_secs(5);
/// The time between two log lines that say how far loading is.
const LOADING_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// What the scheduler gets from its worker.
pub(in crate::worker) struct SchedulerContext {
    pub(in crate::worker) worker: WorkerId,
    pub(in crate::worker) namespace: Namespace,
    pub(in crate::worker) broker: Arc<dyn Broker>,
    pub(in crate::worker) clock: Arc<dyn Clock>,
    pub(in crate::worker) too_large: Arc<TooLarge>,
    pub(in crate::worker) suspend: SuspendDetector,
}

struct Scheduler {
    context: SchedulerContext,
    /// The delayed topic.
    topic: Arc<str>,
    subscription: Arc<dyn Subscription>,
    /// What the subscription has returned, and what was not looked at yet.
    events: VecDeque<Event>,
    /// The partitions of this worker.
    partitions: BTreeMap<i32, Partition>,
    /// At most one partition is scanned at a time.
    scan: Option<Scan>,
    /// The partitions that were scanned and fired last.
    last_scanned: i32,
    last_fired: i32,
    fire_calls: FuturesUnordered<JoinHandle<Fired>>,
    /// By topic: when each of its calls under way was made.
    calls: HashMap<Arc<str>, VecDeque<Instant>>,
    /// The records that Kafka did not take.
    refused: Refused,
    /// The topics of which Kafka has taken nothing in the last call.
    bad: HashSet<Arc<str>>,
    /// The topics of tasks that were dropped from memory.
    lost: HashSet<Arc<str>>,
    /// When they may be looked for.
    next_search: Instant,
    /// The purge under way.
    purge: Option<JoinHandle<()>>,
    /// Whether Kafka refused the last purge, so that this is logged once.
    is_purge_refused: Arc<AtomicBool>,
    next_purge: Instant,
    last_loading_log: Instant,
}

struct Partition {
    window: Window<Bytes, Incoming>,
    /// Number of records read since the partition was assigned.
    read: u64,
    /// Whether it was read to its end, so that its tasks may be fired.
    is_loaded: bool,
    /// What is below was purged.
    purged: i64,
    /// Before this time it is not scanned if others wait.
    not_before: Option<Instant>,
}

/// A second reading of a partition, to find what is due next.
struct Scan {
    partition: i32,
    reader: Box<dyn Reader>,
    begun: Instant,
    /// When something was read last.
    answered: Instant,
}

/// What became of a call.
struct Fired {
    topic: Arc<str>,
    records: Vec<Incoming>,
    /// Those that could not be fired.
    refused: Vec<Incoming>,
}

/// Fires delayed tasks until `stop`, then waits for the calls under way.
pub(in crate::worker) async fn run(
    context: SchedulerContext, subscription: Arc<dyn Subscription>, stop: CancellationToken,
) {
    let topic: Arc<str> = context.namespace.delayed_topic().into();
    let mut scheduler = Scheduler {
        context,
        topic,
        subscription,
        events: VecDeque::new(),
        partitions: BTreeMap::new(),
        scan: None,
        last_scanned: -1,
        last_fired: -1,
        fire_calls: FuturesUnordered::new(),
        calls: HashMap::new(),
        refused: Refused::default(),
        bad: HashSet::new(),
        lost: HashSet::new(),
        next_search: Instant::now(),
        purge: None,
        is_purge_refused: Arc::default(),
        next_purge: Instant::now() + PURGE_INTERVAL,
        last_loading_log: Instant::now(),
    };
    let work = async {
        while !restart::runs("scheduler", scheduler.serve()).await {
            sleep(restart::RESTART_DELAY).await;
            scheduler.recover();
        }
    };
    stop.run_until_cancelled(work).await;
    let mut fire_calls = scheduler.fire_calls;
    // What is not done by then is fired by the next owner.
    let _ = timeout(FIRE_CALLS_TIMEOUT, async { while fire_calls.next().await.is_some() {} }).await;
    fire_calls.iter().for_each(JoinHandle::abort);
}

impl Scheduler {
    /// Never returns, but does nothing more once the machine was suspended.
    async fn serve(&mut self) {
        loop {
            if self.context.suspend.was_suspended() {
                // What it knows may have been fired, finished and forgotten by now. The worker's loop comes to the same result,
                // and begins anew with another scheduler.
                return std::future::pending().await;
            }
            while let Some(event) = self.events.pop_front() {
                self.received(event);
            }
            self.find_lost();
            self.fire();
            self.take_turns();
            self.purge();
            let (wait, may_scan) = (self.idle_wait(), self.may_scan());
            tokio::select! {
                events = self.subscription.next() => self.events.extend(events),
                events = next(&mut self.scan), if may_scan => self.scanned(events),
                Some(fired) = self.fire_calls.next() => self.fired(fired),
                () = sleep(wait) => {}
            }
        }
    }

    /// Goes on after a panic. Events may have been lost, so what is in memory is forgotten, and looked for in the log.
    fn recover(&mut self) {
        (self.scan, self.refused, self.lost) = (None, Refused::default(), HashSet::new());
        let limits = self.limits();
        for partition in self.partitions.values_mut() {
            (partition.window, partition.is_loaded) = (Window::unread(limits), true);
        }
    }

    fn now_ms(&self) -> u64 {
        self.context.clock.now_ms()
    }

    /// The share of each partition.
    fn limits(&self) -> WindowLimits {
        let partitions = self.partitions.len().max(1);
        WindowLimits {
            ahead_ms: AHEAD_MS,
            records: (MAX_TASKS / partitions).max(1),
            bytes: MAX_TASK_BYTES / partitions,
            note_bytes: MAX_NOTE_BYTES / partitions,
        }
    }

    fn share_memory(&mut self) {
        let limits = self.limits();
        self.partitions.values_mut().for_each(|partition| partition.window.limit(limits));
    }

    /// How long there is nothing to do without an event.
    fn idle_wait(&self) -> Duration {
        let now = Instant::now();
        let slow =
            self.calls.values().filter_map(|calls| Some(*calls.front()? + SLOW_FIRE_CALL)).filter(|&at| at > now);
        let turn = self.scan.as_ref().filter(|scan| self.others_want(scan.partition)).map(|scan| scan.turn_ends());
        let search = (!self.lost.is_empty()).then_some(self.next_search).filter(|&at| at > now);
        let timers = slow.chain(turn).chain(search).chain([self.next_purge]).min();
        let timer = timers.map_or(MAX_IDLE_WAIT, |at| at.saturating_duration_since(now).max(Duration::from_millis(1)));
        let (now_ms, may_fire) = (self.now_ms(), self.may_fire());
        let windows = self.partitions.values().filter(|partition| partition.is_loaded && may_fire);
        let next = windows.filter_map(|partition| partition.window.next_ms());
        let next = next.chain(self.refused.next(|topic| self.may_try(topic)).map(|next| next.1)).min();
        // A scan waits for its turn, or is not tried for a while.
        let is_waiting =
            self.scan.is_some() || self.partitions.values().any(|partition| partition.not_before.is_some());
        let next = next.map_or(MAX_IDLE_WAIT, |next| {
            Duration::from_millis(next.saturating_sub(now_ms).max(if is_waiting { 5 } else { 0 }))
        });
        next.min(timer).min(MAX_IDLE_WAIT)
    }

    fn received(&mut self, event: Event) {
        match event {
            Event::Assigned(assigned) => {
                let partitions: Vec<_> = assigned.iter().map(|assigned| assigned.partition).collect();
                info!(event = "scheduler_assigned", worker = %self.context.worker, ?partitions, "loads delayed tasks");
                let (limits, now_ms) = (self.limits(), self.now_ms());
                for partition in partitions {
                    let window = Window::new(limits, now_ms);
                    let new = Partition { window, read: 0, is_loaded: false, purged: 0, not_before: None };
                    self.partitions.insert(partition, new);
                }
                self.share_memory();
            }
            Event::Revoked(partitions) => {
                info!(event = "scheduler_revoked", worker = %self.context.worker, ?partitions, "leaves delayed tasks");
                for partition in partitions {
                    self.partitions.remove(&partition);
                    self.refused.revoked(partition);
                    if self.scan.as_ref().is_some_and(|scan| scan.partition == partition) {
                        self.scan = None;
                    }
                }
                self.share_memory();
            }
            Event::Records(records) => {
                for record in records {
                    if let Some(partition) = self.partitions.get_mut(&record.partition) {
                        partition.read += 1;
                        let record = read(record);
                        if record.value.is_none() && self.refused.remove(&record.key) {
                            partition.window.fired(&record.key);
                        }
                        partition.window.tail(record);
                    }
                }
                self.log_loading();
            }
            Event::EndReached(partitions) => partitions.into_iter().for_each(|partition| self.ended(partition)),
        }
    }

    fn ended(&mut self, id: i32) {
        let Some(partition) = self.partitions.get_mut(&id).filter(|partition| !partition.is_loaded) else { return };
        partition.is_loaded = true;
        partition.window.loaded();
        debug!(event = "scheduler_loaded", worker = %self.context.worker, partition = id, records = partition.read,
            due_soon = partition.window.len(), "delayed tasks of a partition are ready");
        if self.partitions.values().all(|partition| partition.is_loaded) {
            info!(event = "scheduler_ready", worker = %self.context.worker, partitions = self.partitions.len(),
                records = self.records(), "all delayed tasks are loaded");
        }
    }

    /// Logs how far loading is, for operators who watch a start with a large backlog.
    fn log_loading(&mut self) {
        let loading = self.partitions.values().filter(|partition| !partition.is_loaded).count();
        if loading > 0 && self.last_loading_log.elapsed() >= LOADING_LOG_INTERVAL {
            self.last_loading_log = Instant::now();
            info!(event = "scheduler_loading", worker = %self.context.worker, loading,
                partitions = self.partitions.len(), records = self.records(), "reads delayed tasks");
        }
    }

    /// The number of records read of all partitions.
    fn records(&self) -> u64 {
        self.partitions.values().map(|partition| partition.read).sum()
    }

    /// Whether another partition waits for its turn.
    fn others_want(&self, scanned: i32) -> bool {
        let (now, now_ms) = (Instant::now(), self.now_ms());
        self.partitions.iter().any(|(&id, partition)| id != scanned && partition.wants_scan(now, now_ms))
    }

    /// Whether the partition whose turn it is has room for what its scan finds.
    fn may_scan(&self) -> bool {
        let partition = self.scan.as_ref().and_then(|scan| self.partitions.get(&scan.partition));
        partition.is_some_and(|partition| partition.window.wants_scan(self.now_ms()))
    }

    /// Ends a turn if others wait, and begins the next one. A scan goes on later from where it was.
    fn take_turns(&mut self) {
        let now = Instant::now();
        if let Some(scan) = &self.scan {
            if now < scan.turn_ends() || !self.others_want(scan.partition) {
                return;
            }
            let is_silent = self.may_scan() && now >= scan.answered + SILENT_TIMEOUT;
            let (id, worker) = (scan.partition, &self.context.worker);
            if let Some(partition) = self.partitions.get_mut(&id).filter(|_| is_silent) {
                warn!(event = "scan_stalled", %worker, partition = id, "kafka returns nothing of it; others are scanned first");
                partition.not_before = Some(now + SILENT_DELAY);
            }
            self.scan = None;
        }
        let (now_ms, last) = (self.now_ms(), self.last_scanned);
        let wanting = self.partitions.iter().filter(|(_, partition)| partition.wants_scan(now, now_ms));
        let Some(id) = wanting.map(|(&id, _)| id).min_by_key(|&id| (id <= last, id)) else { return };
        self.last_scanned = id;
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        partition.not_before = None;
        let Some(position) = partition.window.scan(now_ms) else { return };
        debug!(event = "scheduler_scans", worker = %self.context.worker, partition = id, position, "looks for what is due next");
        match self.context.broker.read(&self.topic, &[(id, position)]) {
            Ok(reader) => self.scan = Some(Scan { partition: id, reader, begun: now, answered: now }),
            Err(error) => {
                error!(event = "scheduler_failed", worker = %self.context.worker, %error, "delayed tasks wait; trying again");
                partition.not_before = Some(now + Duration::from_millis(REFUSED_DELAY_MS));
            }
        }
    }

    fn scanned(&mut self, events: Vec<Event>) {
        let Some(scan) = &mut self.scan else { return };
        scan.answered = Instant::now();
        let Some(partition) = self.partitions.get_mut(&scan.partition) else { return };
        for event in events {
            let has_more = match event {
                Event::Records(records) => records.into_iter().all(|record| partition.window.scanned(read(record))),
                Event::EndReached(_) => false,
                Event::Assigned(_) | Event::Revoked(_) => true,
            };
            if !has_more {
                partition.window.end_scan();
                self.scan = None;
                return;
            }
        }
    }

    /// Looks again for tasks that were dropped from memory, once one of their topics may take them.
    fn find_lost(&mut self) {
        let now = Instant::now();
        if now >= self.next_search && self.lost.iter().any(|topic| !self.is_bad(topic)) {
            self.next_search = now + Duration::from_millis(REFUSED_DELAY_MS);
            self.lost.clear();
            for (id, partition) in self.partitions.iter_mut().filter(|(_, partition)| partition.window.has_lost()) {
                partition.window.reset(true);
                if self.scan.as_ref().is_some_and(|scan| scan.partition == *id) {
                    self.scan = None;
                }
            }
        }
    }

    /// Whether a topic takes no tasks, or takes long.
    fn is_bad(&self, topic: &Arc<str>) -> bool {
        let oldest = self.calls.get(topic).and_then(VecDeque::front);
        self.bad.contains(topic) || oldest.is_some_and(|at| at.elapsed() >= SLOW_FIRE_CALL)
    }

    /// Whether more may be fired.
    fn may_fire(&self) -> bool {
        let good = self.calls.iter().filter(|(topic, _)| !self.is_bad(topic));
        good.map(|(_, calls)| calls.len()).sum::<usize>() < MAX_FIRE_CALLS
    }

    /// Whether what a topic has refused may be tried again.
    fn may_try(&self, topic: &Arc<str>) -> bool {
        let tried = self.calls.keys().filter(|topic| self.is_bad(topic)).count();
        !self.calls.contains_key(topic) && tried < MAX_TRIED_QUEUES
    }

    /// Fires what is due, in a few calls at a time. Each topic has calls of its own, so that one which Kafka does not take
    /// delays no other.
    fn fire(&mut self) {
        let now_ms = self.now_ms();
        let next = |this: &Self| {
            Some(Arc::clone(this.refused.next(|topic| this.may_try(topic)).filter(|next| next.1 <= now_ms)?.0))
        };
        while let Some(topic) = next(self) {
            let records = self.refused.take(&topic, FIRE_BATCH, FIRE_BATCH_BYTES);
            let tasks = records.into_iter().map(|record| self.due_task(record)).collect();
            self.call(topic, tasks);
        }
        while self.may_fire() {
            let tasks = self.take_due(now_ms);
            if tasks.is_empty() {
                return;
            }
            debug!(event = "tasks_due", worker = %self.context.worker, tasks = tasks.len(), "their time has come");
            let mut topics: HashMap<Arc<str>, Vec<DueTask>> = HashMap::new();
            for record in tasks {
                let task = self.due_task(record);
                topics.entry(Arc::clone(&task.outgoing.topic)).or_default().push(task);
            }
            for (topic, tasks) in topics {
                if self.is_bad(&topic) {
                    tasks.into_iter().for_each(|task| self.put_back(&topic, task.record));
                } else {
                    self.call(topic, tasks);
                }
            }
        }
    }

    /// Takes due tasks of all partitions in turn.
    fn take_due(&mut self, now_ms: u64) -> Vec<Incoming> {
        let (mut tasks, mut bytes, last) = (Vec::new(), 0, self.last_fired);
        let mut order: Vec<i32> = self.partitions.keys().copied().collect();
        order.sort_by_key(|&id| (id <= last, id));
        let mut has_more = true;
        while std::mem::take(&mut has_more) {
            for &id in &order {
                let Some(partition) = self.partitions.get_mut(&id).filter(|partition| partition.is_loaded) else {
                    continue;
                };
                for _ in 0..FIRE_QUANTUM {
                    if tasks.len() >= FIRE_BATCH || bytes >= FIRE_BATCH_BYTES {
                        return tasks;
                    }
                    let Some(record) = partition.window.pop(now_ms) else { break };
                    (has_more, self.last_fired) = (true, id);
                    bytes += record.size();
                    tasks.push(record);
                }
            }
        }
        tasks
    }

    fn due_task(&self, record: Incoming) -> DueTask {
        due_now(&self.context.namespace, &self.topic, record)
    }

    fn call(&mut self, topic: Arc<str>, tasks: Vec<DueTask>) {
        self.calls.entry(Arc::clone(&topic)).or_default().push_back(Instant::now());
        let (to, records): (_, Vec<_>) =
            (Arc::clone(&self.context.too_large), tasks.iter().map(|task| task.record.clone()).collect());
        self.fire_calls.push(tokio::spawn(async move {
            let mut refused = None;
            let work = async { refused = Some(fire(to, tasks).await) };
            // What a panic has left open is tried again.
            restart::runs("firing", work).await;
            let refused = refused.unwrap_or_else(|| records.clone());
            Fired { topic, records, refused }
        }));
    }

    fn fired(&mut self, fired: Result<Fired, JoinError>) {
        // The call was aborted with the runtime.
        let Ok(Fired { topic, records, refused }) = fired else { return };
        if let Some(calls) = self.calls.get_mut(&topic) {
            calls.pop_front();
            if calls.is_empty() {
                self.calls.remove(&topic);
            }
        }
        if refused.len() < records.len() {
            self.bad.remove(&topic);
        } else {
            self.bad.insert(Arc::clone(&topic));
        }
        let kept: HashSet<_> = refused.iter().map(|record| (record.partition, record.offset)).collect();
        for record in records.iter().filter(|record| !kept.contains(&(record.partition, record.offset))) {
            if let Some(partition) = self.partitions.get_mut(&record.partition) {
                partition.window.fired(&key(record));
            }
        }
        refused.into_iter().for_each(|record| self.put_back(&topic, record));
    }

    /// Keeps a record that Kafka did not take, unless its partition belongs to another worker now. If there is no room it is dropped
    /// from memory.
    fn put_back(&mut self, topic: &Arc<str>, record: Incoming) {
        let due_ms = self.now_ms() + REFUSED_DELAY_MS;
        let Some(partition) = self.partitions.get_mut(&record.partition) else { return };
        let key = key(&record);
        if !self.refused.put(topic, key.clone(), record, due_ms) {
            if self.lost.insert(Arc::clone(topic)) {
                warn!(event = "tasks_not_fired", %topic, "too many to keep in memory; they are read again once the topic takes tasks");
            }
            partition.window.lose(&key);
        }
    }

    /// Deletes the records below the oldest one that still waits.
    fn purge(&mut self) {
        let now = Instant::now();
        if now < self.next_purge {
            return;
        }
        self.next_purge = now + PURGE_INTERVAL;
        if self.purge.as_ref().is_some_and(|purge| !purge.is_finished()) {
            return;
        }
        let mut below = Vec::new();
        for (&id, partition) in self.partitions.iter_mut().filter(|(_, partition)| partition.is_loaded) {
            partition.window.prune();
            if let Some(floor) = partition.window.floor().filter(|&floor| floor > partition.purged) {
                partition.purged = floor;
                below.push((id, floor));
            }
        }
        if !below.is_empty() {
            let (broker, topic) = (Arc::clone(&self.context.broker), Arc::clone(&self.topic));
            let was_refused = Arc::clone(&self.is_purge_refused);
            self.purge = Some(tokio::spawn(async move {
                let answer = broker.truncate(&topic, &below).await;
                let is_refused = matches!(answer, Err(BrokerError::Refused(_)));
                let is_new = !was_refused.swap(is_refused, Ordering::Relaxed);
                // What could not be deleted is deleted with what comes next.
                match answer {
                    Ok(()) => {}
                    Err(error) if is_refused && is_new => {
                        error!(event = "purge_refused", %topic, %error, "kafka refuses to delete what has ended; the topic is only compacted");
                    }
                    Err(error) => debug!(event = "purge_failed", %topic, %error, "the purge will be retried"),
                }
            }));
        }
    }
}

impl Partition {
    fn wants_scan(&self, now: Instant, now_ms: u64) -> bool {
        self.is_loaded && self.not_before.is_none_or(|at| at <= now) && self.window.wants_scan(now_ms)
    }
}

impl Scan {
    /// When others may have their turn.
    fn turn_ends(&self) -> Instant {
        (self.begun + SCAN_TURN).min(self.answered + SILENT_TIMEOUT)
    }
}

/// A delayed record, what it becomes, and the deletion that follows.
struct DueTask {
    record: Incoming,
    /// The queue of the task; `None`: the record is no task, and becomes a dead letter.
    queue: Option<Queue>,
    outgoing: Outgoing,
    deletion: Outgoing,
}

/// Publishes records of one topic and then their deletions; returns those that Kafka did not take.
async fn fire(to: Arc<TooLarge>, tasks: Vec<DueTask>) -> Vec<Incoming> {
    let broker = &*to.broker;
    let answers = broker.publish(tasks.iter().map(|task| task.outgoing.clone()).collect()).await;
    let (mut refused, mut done, mut why) = (Vec::new(), Vec::with_capacity(tasks.len()), None);
    for (mut task, answer) in tasks.into_iter().zip(answers) {
        let answer = match answer {
            Err(BrokerError::TooLarge { .. }) => fire_too_large(&to, &mut task).await,
            answer => answer,
        };
        match answer {
            Ok(()) => done.push(task.deletion),
            Err(error) => {
                refused.push(task.record);
                why.get_or_insert((task.outgoing.topic, error));
            }
        }
    }
    if let Some((topic, error)) = why {
        warn!(event = "tasks_not_fired", %topic, %error, tasks = refused.len(), "they are due again in a moment");
    }
    // Until these are acknowledged, the next owner would fire the tasks again, which does no harm.
    let answers = broker.publish(done.clone()).await;
    for (deletion, _) in done.into_iter().zip(answers).filter(|(_, answer)| answer.is_err()) {
        publish(broker, deletion, &Shrink::Never).await;
    }
    refused
}

/// Publishes a record that is larger than its topic takes: what is a task without what can go, else as a dead letter.
async fn fire_too_large(to: &TooLarge, task: &mut DueTask) -> Result<(), BrokerError> {
    let DueTask { record, queue, outgoing, .. } = task;
    let Some(queue) = queue else { return publish_fitting(&*to.broker, outgoing, &Shrink::DeadLetter).await };
    let too_large = match publish_fitting(&*to.broker, outgoing, &Shrink::Task).await {
        Err(error @ BrokerError::TooLarge { .. }) => error,
        answer => return answer,
    };
    let Ok(envelope) = Envelope::read(&record.value) else { return Err(too_large) };
    let unpublished = Unpublished {
        envelope,
        queue: queue.shared(),
        topic: to.namespace.delayed_topic().into(),
        partition: record.partition,
        offset: record.offset,
        value: record.value.clone(),
        headers: record.headers.clone(),
    };
    to.dead_letter(&unpublished, &too_large).await.map_err(|waits| {
        to.log(&unpublished, &waits);
        too_large
    })
}

/// The next events of the scan. Never returns if there is no scan.
async fn next(scan: &mut Option<Scan>) -> Vec<Event> {
    match scan {
        Some(scan) => scan.reader.next().await,
        None => std::future::pending().await,
    }
}

fn read(record: Incoming) -> Record<Bytes, Incoming> {
    let (key, offset, size) = (key(&record), record.offset, record.size() + TASK_OVERHEAD_BYTES);
    let value = (!record.value.is_empty()).then(|| (envelope::eta(&record.value), record));
    Record { key, offset, size, value }
}

/// The key of a record. One without a key cannot be deleted: its position stands in for it, and each owner fires it once.
fn key(record: &Incoming) -> Bytes {
    record.key.clone().unwrap_or_else(|| format!("{}@{}", record.partition, record.offset).into())
}

/// What a delayed record becomes, and the deletion that follows. What is no task becomes a dead letter.
fn due_now(namespace: &Namespace, topic: &Arc<str>, record: Incoming) -> DueTask {
    let key = record.key.clone().unwrap_or_default();
    let deletion = Outgoing::tombstone(Arc::clone(topic), key.clone(), record.partition);
    let (queue, outgoing) = match envelope::due(&record.value) {
        Ok(due) => {
            let (topic, headers) = (namespace.topic_of(&due.queue, due.priority).into(), record.headers.clone());
            (Some(due.queue), Outgoing { topic, key: due.key, value: due.record, partition: None, headers })
        }
        Err(error) => {
            let (partition, offset) = (record.partition, record.offset);
            error!(event = "record_unreadable", %topic, partition, offset, %error, "not a task; it becomes a dead letter");
            let cause = Cause { reason: Reason::Unreadable, error: error.to_string(), attempts: 0, deliveries: 0 };
            let headers = cause.headers(&Source { topic, partition, offset }, &record.headers);
            let (topic, value) = (namespace.dead_topic().into(), record.value.clone());
            (None, Outgoing { topic, key, value, partition: None, headers })
        }
    };
    DueTask { record, queue, outgoing, deletion }
}
