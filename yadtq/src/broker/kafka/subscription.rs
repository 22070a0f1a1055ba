//! What a consumer reads of one topic: partitions that come and go, and the records that wait to be taken.
//!
//! ```text
//!  assign ─► assigner thread ─► Assigned ─► reading task of the partition ─► its few records ─► next
//!                                              ▲ librdkafka's queue of the partition, about 1 MB
//! ```
//! Every partition has a queue of its own in librdkafka, and a task that takes records from it while there is room. So a
//! partition that nobody takes from blocks no other, and nothing that was fetched is thrown away.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
};

use super::{
    super::{Assigned, BrokerError, Committed, Event, MAX_POLL_RECORDS, Subscription},
    command::{Command, Commands},
    purger::Purger,
    slot::{PartitionQueue, Slot},
};

pub(super) struct KafkaSubscription {
    pub(super) topic: Arc<str>,
    /// Whether the end of a partition is an event.
    reports_end: bool,
    commands: Arc<Commands>,
    pub(super) purger: Arc<Purger>,
    state: Mutex<State>,
    /// Notified of every event and record.
    filled: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// Assignments and revocations that were not returned yet.
    events: Vec<Event>,
    slots: BTreeMap<i32, Arc<Slot>>,
    /// The partition after which records are taken first, so that a busy one cannot starve others.
    last: i32,
}

impl KafkaSubscription {
    pub(super) fn new(topic: Arc<str>, reports_end: bool, commands: Arc<Commands>, purger: Arc<Purger>) -> Self {
        Self { topic, reports_end, commands, purger, state: Mutex::default(), filled: Arc::default() }
    }

    /// Whether this is still the assignment of its partition.
    pub(super) fn has(&self, slot: &Arc<Slot>) -> bool {
        self.state().slots.get(&slot.partition).is_some_and(|current| Arc::ptr_eq(current, slot))
    }

    /// Reads the partition from now on, unless it was revoked meanwhile.
    pub(super) fn begin(
        &self, slot: &Arc<Slot>, committed: Option<Committed>, queue: Arc<PartitionQueue>, runtime: &Handle,
    ) {
        let mut state = self.state();
        if state.slots.get(&slot.partition).is_some_and(|current| Arc::ptr_eq(current, slot)) {
            // What was noted of an earlier log of this name must not delete records of this one.
            self.purger.keep_from(slot.partition, committed.as_ref().map_or(0, |committed| committed.next));
            if let Some(committed) = &committed {
                self.commands.commits.found(&self.topic, slot.partition, committed);
            }
            let assigned = Assigned { partition: slot.partition, committed };
            match state.events.last_mut() {
                Some(Event::Assigned(others)) => others.push(assigned),
                _ => state.events.push(Event::Assigned(vec![assigned])),
            }
            slot.begin(&self.topic, queue, runtime);
            self.filled.notify_one();
        }
    }

    /// Replaces all assignments by new ones, since the client is replaced. Returns the new ones.
    pub(super) fn begin_again(&self) -> Vec<Arc<Slot>> {
        let mut state = self.state();
        let partitions: Vec<i32> = state.slots.keys().copied().collect();
        self.remove(&mut state, &partitions);
        self.add(&mut state, &partitions)
    }

    fn add(&self, state: &mut State, partitions: &[i32]) -> Vec<Arc<Slot>> {
        let mut added = Vec::new();
        for &partition in partitions {
            state.slots.entry(partition).or_insert_with(|| {
                let slot = Arc::new(Slot::new(partition, self.reports_end, Arc::clone(&self.filled)));
                added.push(Arc::clone(&slot));
                slot
            });
        }
        added
    }

    /// Ends assignments. Those that were reported are reported as revoked.
    fn remove(&self, state: &mut State, partitions: &[i32]) {
        let mut revoked = Vec::new();
        for &partition in partitions {
            let Some(slot) = state.slots.remove(&partition) else { continue };
            if slot.end() {
                revoked.push(partition);
            }
            self.commands.commits.revoked(&self.topic, partition);
        }
        if !revoked.is_empty() {
            state.events.push(Event::Revoked(revoked));
            self.filled.notify_one();
        }
    }

    fn take(&self) -> Vec<Event> {
        let mut state = self.state();
        let mut events = std::mem::take(&mut state.events);
        let (mut records, mut ended, last) = (Vec::new(), Vec::new(), state.last);
        let (behind, ahead): (Vec<_>, Vec<_>) = state.slots.values().partition(|slot| slot.partition <= last);
        let mut latest = None;
        for slot in ahead.into_iter().chain(behind) {
            let (taken, has_ended) = slot.take(MAX_POLL_RECORDS - records.len());
            if !taken.is_empty() {
                latest = Some(slot.partition);
            }
            records.extend(taken);
            ended.extend(has_ended.then_some(slot.partition));
        }
        state.last = latest.unwrap_or(last);
        if records.len() >= MAX_POLL_RECORDS {
            // There may be more.
            self.filled.notify_one();
        }
        let read = [Event::Records(records), Event::EndReached(ended)];
        events.extend(read.into_iter().filter(|event| !event.is_empty()));
        events
    }

    fn set_paused(&self, partition: i32, is_paused: bool) {
        if let Some(slot) = self.state().slots.get(&partition) {
            slot.set_paused(is_paused);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Subscription for KafkaSubscription {
    async fn next(&self) -> Vec<Event> {
        loop {
            let events = self.take();
            if !events.is_empty() {
                return events;
            }
            // A notification between `take` and this line is kept.
            self.filled.notified().await;
        }
    }

    fn assign(&self, partitions: &[i32]) {
        let added = self.add(&mut self.state(), partitions);
        if !added.is_empty() {
            self.commands.send(Command::Assign(Arc::clone(&self.topic), added));
        }
    }

    fn revoke(&self, partitions: &[i32]) {
        self.remove(&mut self.state(), partitions);
        self.commands.send(Command::Unassign(Arc::clone(&self.topic), partitions.to_vec()));
    }

    fn lose(&self, partitions: &[i32]) {
        self.revoke(partitions);
        self.commands.commits.forget(&self.topic, partitions);
    }

    fn forget(&self) {
        let read: Vec<i32> = self.state().slots.keys().copied().collect();
        self.revoke(&read);
        self.commands.commits.forget_all(&self.topic);
        self.purger.forget();
    }

    fn store(&self, partition: i32, next: i64, metadata: &str) {
        if self.state().slots.contains_key(&partition) {
            self.purger.keep_from(partition, next);
            self.commands.commits.store(&self.topic, partition, next, metadata);
        }
    }

    async fn commit(&self, partitions: &[i32]) -> Result<(), BrokerError> {
        let commits = self.commands.commits.of(&self.topic, partitions);
        if commits.is_empty() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Commit(commits, Some(reply)));
        answer.await.unwrap_or_else(|_| Err(BrokerError::Refused("the consumer was closed".to_owned())))
    }

    fn pause(&self, partition: i32) {
        self.set_paused(partition, true);
    }

    fn resume(&self, partition: i32) {
        self.set_paused(partition, false);
        self.filled.notify_one();
    }
}

impl fmt::Debug for KafkaSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSubscription").field("topic", &self.topic).finish_non_exhaustive()
    }
}
