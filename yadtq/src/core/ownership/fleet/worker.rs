//! The workers of a simulated fleet.

use std::collections::BTreeSet;

use super::{
    Arc, BEAT, BTreeMap, CALL, Event, Fleet, LEASE, MS, OwnRequest, Owned, Owner, Partitions, Pulse, UNSURE, Us,
    WorkerId,
};

/// How a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Runs,
    /// Its process is stopped, as by `SIGSTOP`: its sockets are open.
    StandsStill {
        until: Us,
    },
    /// It reads no more, and commits.
    Leaves,
    Dead,
}

/// A process: what it keeps in memory.
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) slots: u32,
    pub(super) condition: Condition,
    started: Us,
    /// The time from its start to its first partition.
    pub(super) first_read_after: Option<Us>,
    pub(super) owned: Partitions,
    read: BTreeSet<i32>,
    /// Owned, read no more; whether the commit is acknowledged.
    released: BTreeMap<i32, bool>,
    /// When its lease ends, going by what it sent.
    until: Us,
    dead: BTreeSet<WorkerId>,
    /// Those of them that the present call names.
    named_dead: BTreeSet<WorkerId>,
    is_calling: bool,
    call_due: Us,
    beat_due: Us,
    /// When the last heartbeat that was answered was sent.
    pub(super) beaten: Us,
    learned_ms: u64,
    since_ms: Option<u64>,
    /// Grows with every connection; and the run of the store that it is to.
    pub(super) link: u32,
    pub(super) server: Option<u32>,
}

impl Worker {
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.condition, Condition::Runs | Condition::StandsStill { .. })
    }

    pub(super) fn is_subscribed(&self, server: u32) -> bool {
        self.condition != Condition::Dead && self.server == Some(server)
    }

    fn by(&self, is_leaving: bool, dead: BTreeSet<WorkerId>) -> Owner {
        let (worker, lease_ms) = (Arc::clone(&self.id), LEASE / MS);
        Owner { worker, slots: self.slots, lease_ms, left_ms: lease_ms, is_leaving, dead: dead.into_iter().collect() }
    }

    fn request(&self, partitions: u32, is_used: bool) -> OwnRequest {
        let is_given = |partition: &i32| self.released.get(partition) == Some(&true);
        let (give, keep) = self.owned.iter().partition(|(partition, _)| is_given(partition));
        OwnRequest { topic: "t".into(), partitions, is_used, keep, give }
    }
}

impl Fleet {
    pub(super) fn start(&mut self) -> usize {
        let id: WorkerId = format!("{:016x}", self.rng.u64(..)).into();
        let (at, now) = (self.workers.len(), self.now);
        self.by_id.insert(Arc::clone(&id), at);
        self.workers.push(Worker {
            id,
            slots: 1 << self.rng.u32(..4),
            condition: Condition::Runs,
            started: now,
            first_read_after: None,
            owned: BTreeMap::new(),
            read: BTreeSet::new(),
            released: BTreeMap::new(),
            until: now,
            dead: BTreeSet::new(),
            named_dead: BTreeSet::new(),
            is_calling: false,
            call_due: now,
            beat_due: now,
            beaten: now,
            learned_ms: 0,
            since_ms: None,
            link: 0,
            server: None,
        });
        self.connect(at);
        at
    }

    // Connections.

    pub(super) fn connect(&mut self, at: usize) {
        if !self.is_up {
            let wait = self.rng.u64(100 * MS..400 * MS);
            return self.after(wait, Event::Connects(at));
        }
        let (now, server) = (self.now, self.server);
        let worker = &mut self.workers[at];
        worker.server = Some(server);
        worker.beat_due = now;
        worker.call_due = now;
        self.send_beat(at);
        self.call_if_due(at);
    }

    /// A new one is there that much later, and a bit.
    pub(super) fn lose_connection(&mut self, at: usize, away: Us) {
        let worker = &mut self.workers[at];
        worker.link += 1;
        worker.server = None;
        worker.since_ms = None;
        worker.is_calling = false;
        worker.dead.append(&mut worker.named_dead);
        let (beaten, ends) = (worker.beaten, worker.until.min(worker.beaten + UNSURE));
        self.after(ends.saturating_sub(self.now), Event::Lapses { worker: at, beaten });
        let wait = away + self.rng.u64(100 * MS..400 * MS);
        self.after(wait, Event::Connects(at));
    }

    // Heartbeats.

    pub(super) fn send_beat(&mut self, at: usize) {
        let now = self.now;
        let worker = &mut self.workers[at];
        if worker.server.is_none() || now < worker.beat_due || worker.condition != Condition::Runs {
            return;
        }
        worker.beat_due = now + BEAT;
        let (link, since_ms, answered_ms) = (worker.link, worker.since_ms, worker.learned_ms);
        self.figures.calls += 1;
        let wait = self.wire();
        self.after(wait, Event::BeatArrives { worker: at, link, sent: now, since_ms, answered_ms });
        self.after(BEAT, Event::BeatIsDue(at));
    }

    pub(super) fn beat_answered(&mut self, at: usize, link: u32, sent: Us, learned_ms: u64, pulse: &Pulse) {
        let now = self.now;
        let worker = &mut self.workers[at];
        if worker.link != link {
            return;
        }
        if pulse.is_gone {
            return self.begin_anew(at);
        }
        worker.beaten = worker.beaten.max(sent);
        worker.learned_ms = learned_ms;
        worker.since_ms.get_or_insert(learned_ms);
        worker.dead.extend(pulse.dead.iter().cloned());
        if !pulse.lost.is_empty() {
            worker.call_due = now;
        }
        if let Some(ms) = pulse.look_again_ms.filter(|ms| now + ms * MS < worker.beat_due) {
            worker.beat_due = now + ms * MS;
            self.after(ms * MS, Event::BeatIsDue(at));
        }
        self.call_if_due(at);
    }

    /// It was declared dead, or its id is used up.
    fn begin_anew(&mut self, at: usize) {
        self.kill(at);
        self.start();
    }

    // Calls.

    pub(super) fn call_if_due(&mut self, at: usize) {
        let now = self.now;
        let is_used = self.last_readers.iter().any(Option::is_some);
        let partitions = self.partitions;
        let worker = &mut self.workers[at];
        if worker.is_calling || worker.server.is_none() || worker.condition != Condition::Runs {
            return;
        }
        if now < worker.call_due {
            return;
        }
        worker.is_calling = true;
        worker.call_due = now + CALL;
        let link = worker.link;
        worker.named_dead = std::mem::take(&mut worker.dead);
        let (by, request) = (worker.by(false, worker.named_dead.clone()), worker.request(partitions, is_used));
        self.figures.calls += 1;
        let wait = self.wire();
        self.after(wait, Event::CallArrives { worker: at, link, sent: now, by, request });
    }

    pub(super) fn call_answered(&mut self, at: usize, link: u32, sent: Us, answer: Owned) {
        let now = self.now;
        let worker = &mut self.workers[at];
        if worker.link != link {
            return;
        }
        worker.is_calling = false;
        worker.named_dead.clear();
        let Owned::Owns { partitions, give, again_ms } = answer else { return self.begin_anew(at) };
        worker.until = sent + LEASE;
        if again_ms > 0 {
            worker.call_due = worker.call_due.min(now + again_ms * MS);
        }
        let due = worker.call_due;
        if worker.until > now {
            self.owns(at, partitions);
            self.release(at, give);
        }
        self.after(due.saturating_sub(now), Event::CallIsDue(at));
    }

    fn owns(&mut self, at: usize, partitions: Partitions) {
        let worker = &mut self.workers[at];
        if partitions == worker.owned && worker.read.len() + worker.released.len() == worker.owned.len() {
            return;
        }
        let is_lost = |partition: &&i32| !partitions.contains_key(partition);
        let lost: Vec<i32> = worker.read.iter().filter(is_lost).copied().collect();
        worker.released.retain(|partition, _| partitions.get(partition) == worker.owned.get(partition));
        worker.owned = partitions;
        let is_new = |partition: &&i32| !worker.read.contains(partition) && !worker.released.contains_key(partition);
        let new: Vec<i32> = worker.owned.keys().filter(is_new).copied().collect();
        for partition in lost {
            self.stop(at, partition);
        }
        for partition in new {
            self.read(at, partition);
        }
    }

    fn release(&mut self, at: usize, count: usize) {
        let worker = &mut self.workers[at];
        let more = count.saturating_sub(worker.released.len());
        let partitions: Vec<i32> = worker.read.iter().rev().copied().take(more).collect();
        if partitions.is_empty() {
            return;
        }
        worker.released.extend(partitions.iter().map(|&partition| (partition, false)));
        let released = partitions.iter().map(|partition| (*partition, worker.owned[partition])).collect();
        for partition in partitions {
            self.stop(at, partition);
        }
        let wait = self.rng.u64(4 * MS..64 * MS);
        self.after(wait, Event::Committed { worker: at, released });
    }

    pub(super) fn committed(&mut self, at: usize, released: &Partitions) {
        let worker = &mut self.workers[at];
        for (partition, epoch) in released {
            if worker.owned.get(partition) == Some(epoch)
                && let Some(is_acknowledged) = worker.released.get_mut(partition)
            {
                *is_acknowledged = true;
                worker.call_due = self.now;
            }
        }
        self.call_if_due(at);
    }

    pub(super) fn woken(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if worker.released.is_empty() {
            worker.call_due = self.now;
            self.call_if_due(at);
        }
    }

    // Reading.

    fn read(&mut self, at: usize, partition: i32) {
        let place = partition as usize;
        assert_eq!(self.readers[place], None, "partition {partition} gets a second reader, {at}");
        self.readers[place] = Some(at);
        self.figures.moves += usize::from(self.last_readers[place] != Some(at));
        self.last_readers[place] = Some(at);
        if let Some((since, victim)) = self.lost.remove(&partition) {
            self.figures.takeovers.push(self.now - since);
            if let Some(declared) = self.declared.get(&victim) {
                self.figures.after_notice.push(self.now - declared);
            }
        }
        let worker = &mut self.workers[at];
        worker.read.insert(partition);
        worker.first_read_after.get_or_insert(self.now - worker.started);
    }

    fn stop(&mut self, at: usize, partition: i32) {
        self.workers[at].read.remove(&partition);
        self.readers[partition as usize] = None;
    }

    pub(super) fn stop_all(&mut self, at: usize) {
        for partition in std::mem::take(&mut self.workers[at].read) {
            self.readers[partition as usize] = None;
        }
    }

    // What happens to it.

    pub(super) fn kill(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        worker.condition = Condition::Dead;
        let owned = self.topic.members.get(&worker.id).map(|member| member.owns.clone()).unwrap_or_default();
        self.stop_all(at);
        for partition in owned.into_keys() {
            self.lost.entry(partition).or_insert((self.now, at));
        }
    }

    /// Its process is stopped for a while.
    pub(super) fn stand_still(&mut self, at: usize, time: Us) {
        self.stop_all(at);
        self.workers[at].condition = Condition::StandsStill { until: self.now + time };
        self.after(time, Event::GoesOn(at));
    }

    pub(super) fn leave(&mut self, at: usize) {
        self.stop_all(at);
        self.workers[at].condition = Condition::Leaves;
        let wait = self.rng.u64(4 * MS..64 * MS) + self.wire();
        self.after(wait, Event::Leaves(at));
    }

    pub(super) fn left(&mut self, at: usize) {
        let by = self.workers[at].by(true, BTreeSet::new());
        let request = self.workers[at].request(self.partitions, true);
        let id = Arc::clone(&self.workers[at].id);
        self.ring.remove(&id, self.now_ms());
        self.own(at, &by, &request);
        self.workers[at].condition = Condition::Dead;
    }
}
