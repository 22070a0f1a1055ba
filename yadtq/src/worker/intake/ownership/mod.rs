//! Which partitions this worker owns, by leases in the store, and how it takes and gives them.
//!
//! ```text
//!  free ── own ──► owned: assigned and read ── too many ──► released: read no more, committed
//!    ▲                  │                                        │ acknowledged
//!    │                  └── not in an answer any more: revoked   ▼
//!    └────────────────────────────── given, named with its epoch, in the next call
//! ```
//! One call asks for all topics: it renews what is kept, gives what is released, and returns all that is owned. A call goes every
//! second, and at once when a message says that something is free or that too much is owned. The rules are in `core/ownership`:
//!
//! - The lease counts from the *sending* of a call.
//! - What was named in a give is never read again under its epoch, even if the answer was lost.
//! - A worker that Kafka does not answer renews its leases only as far as they would last from Kafka's last answer, and after half
//!   a lease makes no calls at all: so others take over what it cannot read, and if Kafka is away for all, everything stays in place.
//! - A worker that has lost Redis reads on until it may have been declared dead, and then takes no records until it is back.
//! - In a Redis Cluster, of a topic whose master alone is away, a worker reads on what it owns.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::{
    broker::TopicState,
    clock::millis,
    core::{
        names::WorkerId,
        ownership::{OwnRequest, Owned, Owner, Partitions},
    },
    store::{Answers, StoreError},
    worker::{
        effect::{Effect, Effects},
        job::TopicId,
        options::CONNECTION_INTERVAL,
    },
};

/// The longest time between two heartbeats. With a short lease it is a quarter of that.
const BEAT_INTERVAL: Duration = Duration::from_millis(500);
/// The longest time between two calls. With a short lease it is a sixth of that.
const CALL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a worker that has lost the store reads on after its last answered heartbeat: after that it may have been declared dead.
const UNSURE_AFTER: Duration = Duration::from_millis(750);

/// The topics of a worker, and what it owns of each.
pub(in crate::worker) struct Ownership {
    worker: WorkerId,
    slots: u32,
    lease: Duration,
    /// By the index of their ids.
    topics: Vec<Topic>,
    /// Workers that were declared dead, for the next call.
    dead: BTreeSet<WorkerId>,
    /// The call under way.
    calling: Option<Calling>,
    due: Instant,
    /// When the lease ends, going by what was sent.
    until: Instant,
    /// When the last heartbeat that was answered was sent.
    beaten: Instant,
    /// When the last request that Kafka answered was sent.
    kafka_answered: Instant,
}

struct Topic {
    id: TopicId,
    name: Arc<str>,
    /// `None`: it does not exist, as far as is known.
    state: Option<TopicState>,
    /// Whether the store has answered for it before.
    was_answered: bool,
    /// What the store says that this worker owns: the epoch of each partition.
    owned: BTreeMap<i32, u64>,
    /// The owned partitions that are read.
    read: BTreeSet<i32>,
    /// The owned partitions that are released, and whether their commit is acknowledged.
    released: BTreeMap<i32, bool>,
}

/// One call: who asks, and for which topics.
pub(in crate::worker) struct OwnCall {
    pub(in crate::worker) by: Owner,
    pub(in crate::worker) requests: Vec<OwnRequest>,
}

/// What has to be known of a call when it is answered.
struct Calling {
    topics: Vec<TopicId>,
    dead: Vec<WorkerId>,
    /// When the lease ends if the call is answered.
    until: Instant,
}

impl Ownership {
    /// `topics`: in the order of their ids.
    pub(in crate::worker) fn new(
        worker: &WorkerId, slots: usize, lease: Duration, topics: impl Iterator<Item = (TopicId, Arc<str>)>,
        now: Instant,
    ) -> Self {
        let topic = |(id, name)| Topic {
            id,
            name,
            state: None,
            was_answered: false,
            owned: BTreeMap::new(),
            read: BTreeSet::new(),
            released: BTreeMap::new(),
        };
        Self {
            worker: Arc::clone(worker),
            slots: u32::try_from(slots).unwrap_or(u32::MAX),
            lease,
            topics: topics.map(topic).collect(),
            dead: BTreeSet::new(),
            calling: None,
            due: now,
            until: now,
            beaten: now,
            kafka_answered: now,
        }
    }

    /// The time between two heartbeats.
    pub(in crate::worker) fn beat_interval(lease: Duration) -> Duration {
        BEAT_INTERVAL.min(lease / 4)
    }

    /// The names of all topics, in the order of their ids.
    pub(in crate::worker) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.iter().map(|topic| &topic.name)
    }

    /// Kafka has said this of the topics, by the index of their ids, in answer to a request that was sent then.
    pub(in crate::worker) fn looked_up(
        &mut self, states: Vec<Option<TopicState>>, sent: Instant, now: Instant, out: &mut Effects,
    ) {
        self.kafka_answered = self.kafka_answered.max(sent);
        for (topic, state) in self.topics.iter_mut().zip(states) {
            if topic.state != state {
                self.due = now;
            }
            if state.is_none() && !topic.owned.is_empty() {
                // It was deleted. What is made again under its name is read from its start.
                topic.revoke(topic.read.iter().copied().collect(), out);
                topic.owned.clear();
                topic.released.clear();
                out.push_back(Effect::Forget(topic.id));
            }
            topic.state = state;
        }
    }

    /// Whether records may be read: the worker is the owner by its own clock, and cannot have been declared dead.
    pub(in crate::worker) fn may_read(&self, is_connected: bool, now: Instant) -> bool {
        now < self.until && (is_connected || now < self.beaten + UNSURE_AFTER)
    }

    /// A heartbeat that was sent then was answered; these workers were declared dead, by this worker (`is_mine`: some of them) or by
    /// others, who call at once.
    pub(in crate::worker) fn beaten(&mut self, sent: Instant, dead: Vec<WorkerId>, is_mine: bool, now: Instant) {
        self.beaten = sent;
        self.dead.extend(dead);
        if is_mine {
            self.due = now;
        }
    }

    /// A message says that something is free, or that this worker owns too much.
    pub(in crate::worker) fn woken(&mut self, now: Instant) {
        // What is being released ends in a call anyway.
        if self.topics.iter().all(|topic| topic.released.is_empty()) {
            self.due = now;
        }
    }

    /// The commit of partitions that were released under these epochs is acknowledged.
    pub(in crate::worker) fn released(&mut self, id: TopicId, partitions: &Partitions, now: Instant) {
        let topic = &mut self.topics[id.index()];
        for (partition, epoch) in partitions {
            if topic.owned.get(partition) == Some(epoch)
                && let Some(is_acknowledged) = topic.released.get_mut(partition)
            {
                *is_acknowledged = true;
                self.due = now;
            }
        }
    }

    /// When [`call`](Self::call) has something to send.
    pub(in crate::worker) fn next_due(&self) -> Option<Instant> {
        self.calling.is_none().then_some(self.due)
    }

    /// The call that is due, if there is one. `is_connected`: to the store.
    pub(in crate::worker) fn call(&mut self, is_connected: bool, now: Instant) -> Option<OwnCall> {
        if self.calling.is_some() || now < self.due {
            return None;
        }
        if !is_connected {
            // What is asked now would be sent late, and all at once.
            self.due = now + CONNECTION_INTERVAL;
            return None;
        }
        self.due = now + CALL_INTERVAL.min(self.lease / 6);
        let silent_for = now.saturating_duration_since(self.kafka_answered);
        if silent_for > self.lease / 2 {
            return None;
        }
        let known: Vec<&Topic> = self.topics.iter().filter(|topic| topic.state.is_some()).collect();
        if known.is_empty() {
            return None;
        }
        let left = self.lease - silent_for;
        let dead: Vec<_> = std::mem::take(&mut self.dead).into_iter().collect();
        let topics = known.iter().map(|topic| topic.id).collect();
        self.calling = Some(Calling { topics, dead: dead.clone(), until: now + left });
        Some(OwnCall {
            by: Owner {
                worker: Arc::clone(&self.worker),
                slots: self.slots,
                lease_ms: millis(self.lease),
                left_ms: millis(left),
                is_leaving: false,
                dead,
            },
            requests: known.iter().map(|topic| topic.request()).collect(),
        })
    }

    /// The last call: the worker leaves, and gives all that it owns.
    pub(in crate::worker) fn leave(&self) -> (Owner, Vec<OwnRequest>) {
        let by = Owner {
            worker: Arc::clone(&self.worker),
            slots: self.slots,
            lease_ms: millis(self.lease),
            left_ms: millis(self.lease),
            is_leaving: true,
            dead: self.dead.iter().cloned().collect(),
        };
        let known = self.topics.iter().filter(|topic| topic.state.is_some());
        (by, known.map(Topic::request).collect())
    }

    /// All partitions that are read, for a worker that stops.
    pub(in crate::worker) fn read(&self) -> impl Iterator<Item = (TopicId, Vec<i32>)> {
        let read = self.topics.iter().filter(|topic| !topic.read.is_empty());
        read.map(|topic| (topic.id, topic.read.iter().copied().collect()))
    }

    /// Takes the answers to a call. `false`: this worker was declared dead.
    #[must_use]
    pub(in crate::worker) fn answered(&mut self, answers: Answers<Owned>, now: Instant, out: &mut Effects) -> bool {
        let Some(call) = self.calling.take() else { return true };
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                match error {
                    StoreError::Refused(_) => {
                        warn!(event = "ownership_unknown", worker = %self.worker, %error, "trying again")
                    }
                    _ => debug!(event = "ownership_unknown", worker = %self.worker, %error, "trying again"),
                }
                self.dead.extend(call.dead);
                return true;
            }
        };
        self.until = call.until;
        if answers.iter().any(|answer| answer.as_ref().is_err_and(StoreError::is_outage)) {
            // Not every topic knows of them.
            self.dead.extend(call.dead);
        }
        let mut is_alive = true;
        for (id, answer) in call.topics.into_iter().zip(answers) {
            let topic = &mut self.topics[id.index()];
            match answer {
                Ok(Owned::Gone) => is_alive = false,
                Ok(Owned::Owns { partitions, give, again_ms }) => {
                    topic.was_answered = true;
                    // The topic may have been deleted meanwhile.
                    if topic.state.is_some() {
                        topic.owns(partitions, out);
                        topic.release(give, out);
                    }
                    if again_ms > 0 {
                        self.due = self.due.min(now + Duration::from_millis(again_ms));
                    }
                }
                // Of a cluster, the master that has this topic's table is away: nobody can take the partitions, and they are read on.
                // If it is only this worker that does not reach it, others take them, and the two of them do no harm.
                Err(error) if error.is_outage() => {
                    debug!(event = "ownership_unknown", worker = %self.worker, topic = %topic.name, %error, "trying again");
                }
                Err(error) => {
                    warn!(event = "ownership_unknown", worker = %self.worker, topic = %topic.name, %error, "trying again");
                }
            }
        }
        is_alive
    }
}

impl Topic {
    fn request(&self) -> OwnRequest {
        let state = self.state.unwrap_or_default();
        let is_given = |partition: &i32| self.released.get(partition) == Some(&true);
        let (give, keep) = self.owned.iter().partition(|(partition, _)| is_given(partition));
        OwnRequest {
            topic: Arc::clone(&self.name),
            partitions: state.partitions,
            is_used: state.has_commits || self.was_answered,
            keep,
            give,
        }
    }

    /// The store says that this is all that the worker owns.
    fn owns(&mut self, partitions: BTreeMap<i32, u64>, out: &mut Effects) {
        if partitions == self.owned && self.read.len() + self.released.len() == self.owned.len() {
            return;
        }
        let lost = self.read.iter().copied().filter(|partition| !partitions.contains_key(partition)).collect();
        self.revoke(lost, out);
        self.released.retain(|partition, _| partitions.get(partition) == self.owned.get(partition));
        self.owned = partitions;
        let (read, released) = (&self.read, &self.released);
        let is_new = |partition: &i32| !read.contains(partition) && !released.contains_key(partition);
        let new: Vec<i32> = self.owned.keys().copied().filter(is_new).collect();
        if !new.is_empty() {
            self.read.extend(&new);
            out.push_back(Effect::Assign(self.id, new));
        }
    }

    /// Releases partitions until this many are.
    fn release(&mut self, count: usize, out: &mut Effects) {
        let more = count.saturating_sub(self.released.len());
        let released: Vec<i32> = self.read.iter().rev().copied().take(more).collect();
        if !released.is_empty() {
            for partition in &released {
                self.read.remove(partition);
                self.released.insert(*partition, false);
            }
            let epoch = |partition: &i32| self.owned.get(partition).map(|&epoch| (*partition, epoch));
            out.push_back(Effect::Release(self.id, released.iter().filter_map(epoch).collect()));
        }
    }

    fn revoke(&mut self, partitions: Vec<i32>, out: &mut Effects) {
        if !partitions.is_empty() {
            self.read.retain(|partition| !partitions.contains(partition));
            out.push_back(Effect::Revoke(self.id, partitions));
        }
    }
}
