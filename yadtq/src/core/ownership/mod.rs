//! Who reads which partitions of a topic: leases, kept by the store and worked out anew whenever a worker calls.
//!
//! ```text
//!            the holder gives it, leaves, is declared dead, or its lease ends
//!  unknown ──────────────► free ◄───────────── owned
//!     │   after a lease     │                    ▲
//!     │                     └── handed out ──────┤       under a new epoch, to a worker that has less than its share
//!     └─────── its holder names it ──────────────┘
//! ```
//! - Every call renews the caller's lease, frees what it gives, hands it free partitions up to its share, and answers with *all* that
//!   it owns, and with the number of partitions it has too many. A call that is sent twice changes nothing the second time.
//! - Shares go by slots. They are worked out only when a worker joins, leaves or changes, or the topic grows. The odd partitions stay with
//!   the workers that have them. At rest a call looks at the caller alone, whatever the number of workers.
//! - A change that concerns other workers wakes them, so that it takes milliseconds and not a heartbeat.
//! - **The store was emptied**: nobody's partitions are known. For one lease they wait for their holders; a holder that names a
//!   partition gets it back under a higher epoch, and has to give none before the shares are worked out.
//! - **The store was away**: after half a lease without any call, no lease ends for a lease.
//! - **A worker died, or left**: its id is used up, so that a late call of it changes nothing.
//!
//! [`own`] is the authority: the memory store runs it, and `own.lua` is compared with it over random histories.

#[cfg(test)]
mod fleet;
mod shares;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(crate) use self::shares::MEMBERS_PER_MS;
use super::names::WorkerId;

/// How long the id of a worker that died or left stays used up, in ms: 15 min.
pub(crate) const USED_UP_MS: u64 = 15 * 60_000;

/// Partitions with the epoch under which each is owned. An epoch is at least the store's time in ms, and grows with every change of a
/// partition's owner.
pub(crate) type Partitions = BTreeMap<i32, u64>;

/// The worker that calls.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// Who calls.
    pub worker: WorkerId,
    /// Tasks it can run at once: its weight.
    pub slots: u32,
    /// How long its lease lasts, in ms, from this call on. It has to call several times in half of it.
    pub lease_ms: u64,
    /// How long this call renews it for: less if the worker cannot be sure that it can read what it owns.
    pub left_ms: u64,
    /// Whether this is its last call: it has stopped reading.
    pub is_leaving: bool,
    /// Workers declared dead that it has learned of since its last answered call.
    pub dead: Vec<WorkerId>,
}

/// What a worker asks for one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnRequest {
    /// The topic.
    pub topic: Arc<str>,
    /// Number of partitions that Kafka has.
    pub partitions: u32,
    /// Whether the topic has commits, so that somebody has owned its partitions before.
    pub is_used: bool,
    /// What the worker owns and keeps.
    pub keep: Partitions,
    /// What it gives: it has stopped reading these, and will not read them again under these epochs.
    pub give: Partitions,
}

/// The answer for one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owned {
    /// The worker's id is used up: it left or was declared dead, and has to go on as a new worker.
    Gone,
    /// What the worker owns now.
    Owns {
        /// All of its partitions.
        partitions: Partitions,
        /// Number of partitions that it should give.
        give: usize,
        /// When to call again, in ms from now; 0: with the next heartbeat.
        again_ms: u64,
    },
}

/// What the store keeps of one topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topic {
    /// Number of partitions known.
    partitions: u32,
    last_call_ms: Option<u64>,
    /// No lease ends before.
    calm_until_ms: u64,
    /// Until then unknown partitions wait for their holders.
    hold_until_ms: u64,
    /// Whether shares have to be worked out again, and not before when.
    is_changed: bool,
    evaluate_from_ms: u64,
    members: BTreeMap<WorkerId, Member>,
    /// The last epoch of each partition.
    epochs: BTreeMap<i32, u64>,
    free: BTreeSet<i32>,
    /// Never handed out since the store remembers.
    unknown: BTreeSet<i32>,
    /// Used up ids, with the time.
    gone: BTreeMap<WorkerId, u64>,
    /// Members that have less than their share.
    short: BTreeSet<WorkerId>,
    /// The member that was woken last because something was free. The next time others are first.
    last_woken: Option<WorkerId>,
    /// Nobody's lease ends before.
    first_end_ms: u64,
    /// How often shares were worked out.
    #[cfg(test)]
    evaluations: usize,
}

#[derive(Clone, Debug, Default)]
struct Member {
    slots: u32,
    /// Number of partitions it should own.
    share: usize,
    lease_until_ms: u64,
    owns: Partitions,
}

/// A worker says what it keeps and gives of one topic, and learns what it owns. Returns also the other workers that should call now.
pub(crate) fn own(topic: &mut Topic, by: &Owner, request: &OwnRequest, now_ms: u64) -> (Owned, Vec<WorkerId>) {
    let mut wake = BTreeSet::new();
    topic.called(by, request, now_ms);
    topic.grow(request.partitions);
    for worker in by.dead.iter().chain(by.is_leaving.then_some(&by.worker)) {
        topic.retire(worker);
        topic.use_up(worker, now_ms);
    }
    topic.end_leases(&by.worker, now_ms);
    let is_gone = topic.gone.contains_key(&by.worker);
    let mut has_given = false;
    if !is_gone {
        topic.renew(by, now_ms);
        has_given = topic.take_given(&by.worker, &request.give);
        topic.settle_unknown(&by.worker, request, now_ms);
    }
    if topic.is_changed && now_ms >= topic.evaluate_from_ms {
        topic.evaluate(now_ms, &mut wake);
    }
    let answer = if is_gone {
        Owned::Gone
    } else {
        topic.hand_out(&by.worker, request, now_ms);
        if has_given {
            topic.pass_on(&by.worker, now_ms, &mut wake);
        }
        topic.answer(&by.worker, now_ms)
    };
    wake.remove(&by.worker);
    (answer, wake.into_iter().collect())
}

impl OwnRequest {
    /// What the worker names as its own and does not give, in order.
    fn named(&self) -> impl Iterator<Item = i32> {
        self.keep.keys().copied().filter(|partition| !self.give.contains_key(partition))
    }
}

impl Topic {
    /// When the last call came, in ms.
    pub(crate) fn last_call_ms(&self) -> u64 {
        self.last_call_ms.unwrap_or(0)
    }

    fn called(&mut self, by: &Owner, request: &OwnRequest, now_ms: u64) {
        match self.last_call_ms {
            None if !request.keep.is_empty() || request.is_used => self.hold_until_ms = now_ms + by.lease_ms,
            None => {}
            Some(last) if now_ms.saturating_sub(last) > by.lease_ms / 2 => {
                self.calm_until_ms = self.calm_until_ms.max(now_ms + by.lease_ms);
            }
            Some(_) => {}
        }
        self.last_call_ms = Some(now_ms);
    }

    fn grow(&mut self, partitions: u32) {
        if partitions > self.partitions {
            self.unknown.extend((self.partitions..partitions).map(number));
            self.partitions = partitions;
            self.is_changed = true;
        }
    }

    /// Frees what a member owns, and forgets it.
    fn retire(&mut self, worker: &WorkerId) {
        if let Some(member) = self.members.remove(worker) {
            self.free.extend(member.owns.into_keys());
            self.short.remove(worker);
            self.is_changed = true;
        }
    }

    fn use_up(&mut self, worker: &WorkerId, now_ms: u64) {
        self.gone.retain(|_, since| *since + USED_UP_MS > now_ms);
        self.gone.insert(Arc::clone(worker), now_ms);
    }

    /// Retires those whose lease is over, but for the caller, who is about to renew.
    fn end_leases(&mut self, caller: &WorkerId, now_ms: u64) {
        if now_ms < self.first_end_ms || now_ms < self.calm_until_ms {
            return;
        }
        let is_over = |(worker, member): &(&WorkerId, &Member)| member.lease_until_ms <= now_ms && *worker != caller;
        let over: Vec<WorkerId> = self.members.iter().filter(is_over).map(|(worker, _)| Arc::clone(worker)).collect();
        for worker in over {
            self.retire(&worker);
        }
        self.first_end_ms = self.members.values().map(|member| member.lease_until_ms).min().unwrap_or(now_ms);
    }

    fn renew(&mut self, by: &Owner, now_ms: u64) {
        let is_new = !self.members.contains_key(&by.worker);
        let member = self.members.entry(Arc::clone(&by.worker)).or_default();
        self.is_changed |= is_new || member.slots != by.slots;
        member.slots = by.slots;
        member.lease_until_ms = now_ms + by.left_ms;
        self.first_end_ms = self.first_end_ms.min(member.lease_until_ms);
    }

    /// Frees what the worker gives. A late copy of the call names an epoch that is over, and frees nothing.
    fn take_given(&mut self, worker: &WorkerId, give: &Partitions) -> bool {
        let Some(member) = self.members.get_mut(worker) else { return false };
        let mut has_given = false;
        for (&partition, epoch) in give {
            if member.owns.get(&partition) == Some(epoch) {
                member.owns.remove(&partition);
                self.free.insert(partition);
                has_given = true;
            }
        }
        has_given
    }

    /// Lets the worker have back what it names of the unknown partitions, or frees all of them if their time is over.
    fn settle_unknown(&mut self, worker: &WorkerId, request: &OwnRequest, now_ms: u64) {
        if self.unknown.is_empty() {
            return;
        }
        if now_ms >= self.hold_until_ms {
            self.free.append(&mut self.unknown);
            return;
        }
        // Before the shares, which go by who owns what.
        let mut has_back = false;
        for partition in request.named() {
            if self.unknown.remove(&partition) {
                self.grant(worker, partition, &request.keep, now_ms);
                has_back = true;
            }
        }
        if let Some(member) = self.members.get_mut(worker).filter(|_| has_back) {
            // Until the shares are worked out it has nothing to give.
            member.share = member.share.max(member.owns.len());
        }
    }

    /// Free partitions for a member, up to its share: those that it names, then the lowest.
    fn hand_out(&mut self, worker: &WorkerId, request: &OwnRequest, now_ms: u64) {
        // If the memory is lost, only the worker knows the epochs under which it may not read what it gives.
        let epochs: Partitions = request.keep.iter().chain(&request.give).map(|(&at, &epoch)| (at, epoch)).collect();
        let mut room = self.room(worker);
        for partition in request.named() {
            if room > 0 && self.free.remove(&partition) {
                self.grant(worker, partition, &epochs, now_ms);
                room -= 1;
            }
        }
        self.hand_out_lowest(worker, &epochs, now_ms);
    }

    fn hand_out_lowest(&mut self, worker: &WorkerId, named: &Partitions, now_ms: u64) {
        for _ in 0..self.room(worker) {
            let Some(partition) = self.free.pop_first() else { break };
            self.grant(worker, partition, named, now_ms);
        }
        self.note_short(worker);
    }

    /// Number of partitions that the worker has less than its share.
    fn room(&self, worker: &WorkerId) -> usize {
        self.members.get(worker).map_or(0, |member| member.share.saturating_sub(member.owns.len()))
    }

    /// What was given goes straight to those who have less than their share. Whoever renewed last is most likely alive.
    fn pass_on(&mut self, giver: &WorkerId, now_ms: u64, wake: &mut BTreeSet<WorkerId>) {
        let latest = |worker: &WorkerId| self.members.get(worker).map_or(0, |member| member.lease_until_ms);
        let mut short: Vec<(u64, WorkerId)> = Vec::new();
        if !self.free.is_empty() {
            short.extend(self.short.iter().map(|worker| (latest(worker), Arc::clone(worker))));
        }
        short.sort_unstable_by(|a, b| b.cmp(a));
        for (_, worker) in short.into_iter().filter(|(_, worker)| worker != giver) {
            if self.free.is_empty() {
                break;
            }
            self.hand_out_lowest(&worker, &Partitions::new(), now_ms);
            wake.insert(worker);
        }
    }

    fn grant(&mut self, worker: &WorkerId, partition: i32, named: &Partitions, now_ms: u64) {
        let last = self.epochs.entry(partition).or_default();
        *last = (*last + 1).max(named.get(&partition).map_or(0, |epoch| epoch + 1)).max(now_ms);
        if let Some(member) = self.members.get_mut(worker) {
            member.owns.insert(partition, *last);
        }
    }

    fn note_short(&mut self, worker: &WorkerId) {
        if self.room(worker) > 0 {
            self.short.insert(Arc::clone(worker));
        } else {
            self.short.remove(worker);
        }
    }

    fn answer(&self, worker: &WorkerId, now_ms: u64) -> Owned {
        let Some(member) = self.members.get(worker) else { return Owned::Gone };
        Owned::Owns {
            partitions: member.owns.clone(),
            give: member.owns.len().saturating_sub(member.share),
            again_ms: if self.is_changed { self.evaluate_from_ms.saturating_sub(now_ms) } else { 0 },
        }
    }
}

/// Kafka numbers partitions with an `i32`.
fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}
