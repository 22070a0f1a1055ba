//! One topic and its consumer group: partitions, members, who owns what. Pure, no waiting.
//!
//! ```text
//!  free ──(target)──► owned ──(another target)──► owned, leaving ──(owner polls, or leaves)──► free
//! ```

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::super::{Event, Extent, Incoming, Outgoing, QueueDepth};
use crate::core::priority::Priority;

const PARTITIONS: usize = 12;

/// A member of the group; grows with every join.
pub(super) type MemberId = u64;

#[derive(Debug)]
pub(super) struct Topic {
    partitions: Vec<Partition>,
    members: BTreeMap<MemberId, Arc<Notify>>,
    next_member: MemberId,
    /// Where the next poll starts to look, so that no partition starves behind a busy one.
    cursor: usize,
    is_compacted: bool,
    /// Changes with every record.
    grown: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Partition {
    log: BTreeMap<i64, Incoming>,
    /// Everything below is committed.
    start: i64,
    /// The offset of the next record.
    end: i64,
    /// Where the latest record of each key is, in a compacted topic.
    latest: HashMap<Bytes, i64>,
    /// Where deletions are that the owner may not have read.
    deletions: VecDeque<i64>,
    owner: Option<Ownership>,
    /// Who is to own it.
    target: Option<MemberId>,
}

#[derive(Debug)]
struct Ownership {
    member: MemberId,
    told: bool,
    /// Offset of the next record to hand out.
    position: i64,
    paused: bool,
    /// The end that was told last.
    ended: Option<i64>,
}

impl Topic {
    pub(super) fn new(is_compacted: bool) -> Self {
        let partitions = std::iter::repeat_with(Partition::default).take(PARTITIONS).collect();
        let grown = watch::Sender::new(());
        Self { partitions, members: BTreeMap::new(), next_member: 0, cursor: 0, is_compacted, grown }
    }

    pub(super) fn append(&mut self, record: Outgoing, now_ms: u64) {
        let mut hasher = DefaultHasher::new();
        record.key.hash(&mut hasher);
        let hashed = || usize::try_from(hasher.finish() % PARTITIONS as u64).unwrap_or(0);
        let index = record.partition.and_then(|partition| usize::try_from(partition).ok()).unwrap_or_else(hashed);
        let partition = &mut self.partitions[index % PARTITIONS];
        if self.is_compacted {
            partition.compact(&record.key);
            if record.value.is_empty() {
                partition.deletions.push_back(partition.end);
            }
        }
        let incoming = Incoming {
            partition: number(index % PARTITIONS),
            offset: partition.end,
            timestamp_ms: Some(now_ms),
            key: Some(record.key),
            value: record.value,
            headers: record.headers,
        };
        partition.log.insert(partition.end, incoming);
        partition.end += 1;
        self.grown.send_replace(());
        let owner = partition.owner.as_ref().map(|owner| owner.member);
        if let Some(wake) = owner.and_then(|owner| self.members.get(&owner)) {
            wake.notify_one();
        }
    }

    pub(super) fn join(&mut self, wake: Arc<Notify>) -> MemberId {
        let member = self.next_member;
        self.next_member += 1;
        self.members.insert(member, wake);
        self.rebalance();
        member
    }

    pub(super) fn leave(&mut self, member: MemberId) {
        if self.members.remove(&member).is_some() {
            let owned = self.partitions.iter_mut().filter(|partition| partition.is_owned_by(member));
            owned.for_each(|partition| partition.owner = None);
            self.rebalance();
        }
    }

    /// What is new for a member: first what it lost, then what it got, then records.
    pub(super) fn poll(&mut self, member: MemberId, max: usize) -> Vec<Event> {
        let mut events = Vec::new();
        let lost = self.release(member);
        if !lost.is_empty() {
            events.push(Event::Revoked(lost));
            self.hand_over();
        }
        let got = self.tell(member);
        if !got.is_empty() {
            events.push(Event::Assigned(got));
        }
        let records = self.take(member, max);
        if !records.is_empty() {
            events.push(Event::Records(records));
        }
        let ended = if self.is_compacted { self.ended(member) } else { Vec::new() };
        if !ended.is_empty() {
            events.push(Event::Ended(ended));
        }
        events
    }

    /// What a reader at this offset reads next, and where it goes on. `None`: it is at the end.
    pub(super) fn read(&self, partition: i32, from: i64, max: usize) -> Option<(Vec<Incoming>, i64)> {
        let partition = self.partitions.get(usize::try_from(partition).ok()?)?;
        let records: Vec<_> = partition.log.range(from..).take(max).map(|(_, record)| record.clone()).collect();
        let next = records.last().map(|record| record.offset + 1)?;
        Some((records, next))
    }

    pub(super) fn extents(&self) -> Vec<Extent> {
        let extent = |(index, partition): (usize, &Partition)| Extent {
            partition: number(index),
            start: partition.start,
            end: partition.end,
        };
        self.partitions.iter().enumerate().map(extent).collect()
    }

    /// Tells of every record that comes.
    pub(super) fn growth(&self) -> watch::Receiver<()> {
        self.grown.subscribe()
    }

    pub(super) fn commit(&mut self, member: MemberId, partition: i32, next: i64) {
        if let Some((partition, _)) = self.owned(member, partition) {
            partition.truncate(next);
        }
    }

    pub(super) fn truncate(&mut self, partition: i32, below: i64) {
        let index = usize::try_from(partition).ok();
        if let Some(partition) = index.and_then(|index| self.partitions.get_mut(index)) {
            partition.truncate(below);
        }
    }

    pub(super) fn set_paused(&mut self, member: MemberId, partition: i32, paused: bool) {
        if let Some((partition, wake)) = self.owned(member, partition) {
            if let Some(owner) = &mut partition.owner {
                owner.paused = paused;
            }
            if let Some(wake) = wake {
                wake.notify_one();
            }
        }
    }

    pub(super) fn depth(&self, queue: String, priority: Priority) -> QueueDepth {
        let records = self.partitions.iter().map(|partition| partition.log.len() as u64).sum();
        // What is committed is dropped at once, so all that is left is waiting or running.
        QueueDepth { queue, priority, partitions: self.partitions.len(), records, lag: records }
    }

    /// Spreads the partitions evenly, and leaves each where it is if its owner may keep it.
    fn rebalance(&mut self) {
        let count = self.members.len();
        let share = |index: usize| PARTITIONS / count + usize::from(index < PARTITIONS % count);
        let mut room: BTreeMap<_, _> =
            self.members.keys().enumerate().map(|(index, &member)| (member, share(index))).collect();
        let mut take = |member: MemberId| {
            let left = room.get_mut(&member).filter(|left| **left > 0)?;
            *left -= 1;
            Some(member)
        };
        for partition in &mut self.partitions {
            partition.target = partition.owner.as_ref().and_then(|owner| take(owner.member));
        }
        let mut homeless = self.partitions.iter_mut().filter(|partition| partition.target.is_none());
        for (&member, &left) in &room {
            homeless.by_ref().take(left).for_each(|partition| partition.target = Some(member));
        }
        self.hand_over();
        self.members.values().for_each(|wake| wake.notify_one());
    }

    /// Gives to their new owners the partitions that nobody knows as his.
    fn hand_over(&mut self) {
        for partition in &mut self.partitions {
            let known = partition.owner.as_ref().is_some_and(|owner| owner.told);
            if let Some(member) = partition.target.filter(|_| !known) {
                partition.owner =
                    Some(Ownership { member, told: false, position: partition.start, paused: false, ended: None });
                if let Some(wake) = self.members.get(&member) {
                    wake.notify_one();
                }
            }
        }
    }

    /// Takes from a member what is to go elsewhere.
    fn release(&mut self, member: MemberId) -> Vec<i32> {
        let lost = |(index, partition): (usize, &mut Partition)| {
            let leaves = partition.target != Some(member) && partition.is_owned_by(member);
            leaves.then(|| {
                partition.owner = None;
                number(index)
            })
        };
        self.partitions.iter_mut().enumerate().filter_map(lost).collect()
    }

    fn tell(&mut self, member: MemberId) -> Vec<i32> {
        let news = |(index, partition): (usize, &mut Partition)| {
            let owner = partition.owner.as_mut().filter(|owner| owner.member == member && !owner.told)?;
            owner.told = true;
            Some(number(index))
        };
        self.partitions.iter_mut().enumerate().filter_map(news).collect()
    }

    fn take(&mut self, member: MemberId, max: usize) -> Vec<Incoming> {
        let mut records = Vec::new();
        let start = self.cursor;
        for index in (0..PARTITIONS).map(|step| (start + step) % PARTITIONS) {
            let Partition { log, owner, .. } = &mut self.partitions[index];
            let Some(owner) = owner.as_mut().filter(|owner| owner.member == member && !owner.paused) else {
                continue;
            };
            let before = records.len();
            records.extend(log.range(owner.position..).take(max - before).map(|(_, record)| record.clone()));
            if let Some(last) = records[before..].last() {
                owner.position = last.offset + 1;
                self.cursor = index + 1;
            }
        }
        records
    }

    /// Partitions of which a member has read all there is, and has not been told so.
    fn ended(&mut self, member: MemberId) -> Vec<i32> {
        let ended = |(index, partition): (usize, &mut Partition)| {
            let (at, last) = (partition.end, partition.log.last_key_value().map_or(-1, |(&offset, _)| offset));
            let owner = partition.owner.as_mut().filter(|owner| owner.member == member && owner.told)?;
            let is_news = owner.position > last && owner.ended != Some(at);
            is_news.then(|| {
                owner.ended = Some(at);
                number(index)
            })
        };
        self.partitions.iter_mut().enumerate().filter_map(ended).collect()
    }

    fn owned(&mut self, member: MemberId, partition: i32) -> Option<(&mut Partition, Option<&Arc<Notify>>)> {
        let partition = self.partitions.get_mut(usize::try_from(partition).ok()?)?;
        partition.is_owned_by(member).then_some((partition, self.members.get(&member)))
    }
}

impl Partition {
    fn truncate(&mut self, below: i64) {
        while self.log.first_key_value().is_some_and(|(&offset, _)| offset < below) {
            self.log.pop_first();
        }
        self.start = self.start.max(below.min(self.end));
    }

    /// Makes room for a record of this key: what it had goes, and deletions that the owner has read.
    fn compact(&mut self, key: &Bytes) {
        if let Some(earlier) = self.latest.insert(key.clone(), self.end) {
            self.log.remove(&earlier);
        }
        let Some(position) = self.owner.as_ref().map(|owner| owner.position) else { return };
        while self.deletions.front().is_some_and(|&offset| offset < position)
            && let Some(offset) = self.deletions.pop_front()
        {
            // A later record of the key may have taken it away already.
            let Some(deletion) = self.log.remove(&offset) else { continue };
            if let Some(key) = deletion.key.filter(|key| self.latest.get(key) == Some(&offset)) {
                self.latest.remove(&key);
            }
        }
    }

    fn is_owned_by(&self, member: MemberId) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.member == member)
    }
}

fn number(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}
