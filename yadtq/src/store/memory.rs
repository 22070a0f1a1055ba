//! The store in this process's memory: the pure transitions under a lock.
//!
//! It never goes away and forgets nothing before its TTL, so what the contract says of a broken connection
//! cannot be seen here. Clients and workers of one process share it through an `Arc`.

mod limits;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    Answers, Completion, Entry as LimitEntry, Handover, Lease, MAX_WAITERS, Notice, Occupation, Place, Replies, Reply,
    Report, Reservation, Revival, Store, StoreError, StoreInfo, Submission, WorkerInfo, mailbox::Mailbox, ttl,
};
use crate::{
    clock::Clock,
    core::{
        lifecycle::{self, Ask, Claim, Claimer, Extended, HandedOn, Replay, Revocation, TaskState, Verdict},
        limits::Admission,
        names::{ClientId, TaskId, WorkerId},
        ticks::{self, Declaration, Declared, Known},
        unique::{self, Reserved, Taken, UniqueKey},
    },
};

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

impl MemoryStore {
    /// An empty store that tells the time by this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, inner: Mutex::default() })
    }

    /// The state and the time at which it is looked at.
    fn lock(&self) -> (MutexGuard<'_, Inner>, u64) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner, self.clock.now_us())
    }

    fn look(&self, ids: &[TaskId], note: impl Fn(&mut Entry)) -> Vec<Result<Option<TaskState>, StoreError>> {
        let (mut inner, now_us) = self.lock();
        let read = |id: &TaskId| {
            Ok(inner.note(id, now_us, |entry| {
                note(entry);
                entry.state.clone()
            }))
        };
        ids.iter().map(read).collect()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn submit(&self, tasks: &[Submission]) -> Result<(), StoreError> {
        let (mut inner, now_us) = self.lock();
        for Submission { id, task, queue, reply_to, eta } in tasks {
            inner.change(id, now_us, ttl::RESULT, |entry| {
                if entry.state.is_none() {
                    entry.state = Some(TaskState::submitted(Arc::clone(task), Arc::clone(queue), *eta, now_us));
                    entry.waiters.extend(reply_to.clone());
                }
            });
        }
        Ok(())
    }

    async fn reserve(&self, keys: &[Reservation]) -> Answers<Reserved> {
        let (mut inner, now_us) = self.lock();
        let now_ms = now_us / 1_000;
        let reserve = |Reservation { key, id, ttl_ms }: &Reservation| {
            let (slot, expires_ms) = inner.unique(key, now_ms);
            if slot.is_none() {
                *expires_ms = now_ms.saturating_add(*ttl_ms);
            }
            Ok(unique::reserve(slot, id))
        };
        Ok(keys.iter().map(reserve).collect())
    }

    async fn confirm(&self, keys: &[(UniqueKey, TaskId)]) -> Answers<bool> {
        let (mut inner, now_us) = self.lock();
        let confirm = |(key, id): &(UniqueKey, TaskId)| Ok(unique::confirm(inner.unique(key, now_us / 1_000).0, id));
        Ok(keys.iter().map(confirm).collect())
    }

    async fn claim(&self, by: &Claimer, asks: &[(TaskId, Arc<Ask>)]) -> Answers<Claim> {
        let (mut inner, now_us) = self.lock();
        let mut by = by.clone();
        let claim = |(id, ask): &(TaskId, Arc<Ask>)| {
            Ok(inner.change(id, now_us, ttl::RESULT, |entry| lifecycle::claim(&mut entry.state, ask, &mut by, now_us)))
        };
        Ok(asks.iter().map(claim).collect())
    }

    async fn complete(&self, runs: &[Completion]) -> Answers<Verdict> {
        let (mut inner, now_us) = self.lock();
        let mut told = HashMap::<ClientId, Vec<Reply>>::new();
        let verdicts = runs.iter().map(|run| Ok(inner.complete(run, now_us, &mut told))).collect();
        for (client, replies) in told {
            inner.tell(&client, replies);
        }
        Ok(verdicts)
    }

    async fn hand_on(&self, runs: &[Handover]) -> Answers<HandedOn> {
        let (mut inner, now_us) = self.lock();
        let hand_on = |Handover { lease: Lease { id, ask, held }, next }: &Handover| {
            Ok(inner.change(id, now_us, ttl::RESULT, |entry| {
                lifecycle::hand_on(&mut entry.state, ask, *held, next, now_us)
            }))
        };
        Ok(runs.iter().map(hand_on).collect())
    }

    async fn extend(&self, worker: &WorkerId, lease_ms: u64, leases: &[Lease]) -> Answers<Extended> {
        let (mut inner, now_us) = self.lock();
        let extend = |Lease { id, ask, held }: &Lease| {
            Ok(inner.change(id, now_us, ttl::RESULT, |entry| {
                lifecycle::extend(&mut entry.state, ask, *held, worker, lease_ms, now_us)
            }))
        };
        Ok(leases.iter().map(extend).collect())
    }

    async fn admit(&self, entries: &[LimitEntry]) -> Answers<Admission> {
        let (mut inner, now_us) = self.lock();
        Ok(entries.iter().map(|entry| Ok(inner.limits.admit(entry, now_us))).collect())
    }

    async fn occupy(&self, lease_ms: u64, runs: &[Occupation]) -> Answers<Option<u64>> {
        let (mut inner, now_us) = self.lock();
        Ok(runs.iter().map(|run| Ok(inner.limits.occupy(run, lease_ms, now_us / 1_000))).collect())
    }

    async fn vacate(&self, places: &[Place]) -> Result<(), StoreError> {
        let (mut inner, _) = self.lock();
        places.iter().for_each(|place| inner.limits.vacate(place));
        Ok(())
    }

    async fn progress(&self, reports: &[Report]) -> Answers<bool> {
        let (mut inner, now_us) = self.lock();
        let mut told = Vec::new();
        let note = |report: &Report| {
            Ok(inner.note(&report.id, now_us, |entry| {
                let known = entry.state.as_ref().and_then(|state| state.progress.clone());
                let noted = lifecycle::progress(&mut entry.state, report.token, &report.progress);
                if noted && known.is_none_or(|known| known.number < report.progress.number) {
                    told.extend(entry.watchers.iter().map(|watcher| (Arc::clone(watcher), report.clone())));
                }
                noted
            }))
        };
        let answers = reports.iter().map(note).collect();
        for (watcher, report) in told {
            if let Some(mailbox) = inner.mailboxes.get(&watcher).and_then(Weak::upgrade) {
                mailbox.progress(report);
            }
        }
        Ok(answers)
    }

    async fn release(&self, leases: &[Lease]) -> Answers<Verdict> {
        let (mut inner, now_us) = self.lock();
        let release = |Lease { id, held, .. }: &Lease| {
            Ok(inner.change(id, now_us, ttl::RESULT, |entry| lifecycle::release(&mut entry.state, held.token, now_us)))
        };
        Ok(leases.iter().map(release).collect())
    }

    async fn revoke(&self, ids: &[TaskId]) -> Answers<Revocation> {
        let (mut inner, now_us) = self.lock();
        let revoke = |id: &TaskId| {
            let mut told = HashMap::new();
            // The marker has to outlive a record that may have waited for long.
            let answer = inner.change(id, now_us, ttl::WAITING, |entry| {
                let had_ended = entry.has_ended();
                let answer = lifecycle::revoke(&mut entry.state, now_us);
                if !had_ended {
                    entry.tell(id, None, &mut told);
                }
                answer
            });
            told.into_iter().for_each(|(client, replies)| inner.tell(&client, replies));
            if let Revocation::Asked(worker) = &answer
                && let Some(mailbox) = inner.mailboxes.get(&control(worker)).and_then(Weak::upgrade)
            {
                mailbox.revoke(id.clone());
            }
            Ok(answer)
        };
        Ok(ids.iter().map(revoke).collect())
    }

    async fn replay(&self, dead: &[Revival]) -> Answers<Replay> {
        let (mut inner, now_us) = self.lock();
        let replay = |Revival { id, seq, task, queue }: &Revival| {
            Ok(inner.change(id, now_us, ttl::RESULT, |entry| {
                lifecycle::replay(&mut entry.state, *seq, task, queue, now_us)
            }))
        };
        Ok(dead.iter().map(replay).collect())
    }

    async fn control(&self, worker: &WorkerId) -> Result<Box<dyn Replies>, StoreError> {
        self.replies(&control(worker)).await
    }

    async fn read(&self, ids: &[TaskId], waiter: Option<&ClientId>) -> Answers<Option<TaskState>> {
        Ok(self.look(ids, |entry| join(&mut entry.waiters, waiter)))
    }

    async fn watch(&self, ids: &[TaskId], watcher: &ClientId) -> Answers<Option<TaskState>> {
        Ok(self.look(ids, |entry| {
            join(&mut entry.waiters, Some(watcher));
            join(&mut entry.watchers, Some(watcher));
        }))
    }

    async fn replies(&self, client: &ClientId) -> Result<Box<dyn Replies>, StoreError> {
        let mailbox = Arc::new(Mailbox::default());
        mailbox.miss();
        let (mut inner, _) = self.lock();
        inner.mailboxes.retain(|_, mailbox| mailbox.strong_count() > 0);
        inner.mailboxes.insert(Arc::clone(client), Arc::downgrade(&mailbox));
        Ok(Box::new(MemoryReplies(mailbox)))
    }

    async fn beat(&self, worker: &WorkerInfo, lost_after_ms: Option<u64>) -> Result<Vec<WorkerInfo>, StoreError> {
        let (mut inner, now_us) = self.lock();
        let now_ms = now_us / 1_000;
        let expires_ms = now_ms + ttl::WORKER;
        let info = WorkerInfo { seen_at: now_ms, ..worker.clone() };
        inner.workers.insert(worker.id.clone(), Registration { info, expires_ms });
        let Some(lost_after_ms) = lost_after_ms else { return Ok(Vec::new()) };
        let lost = inner.workers.extract_if(|_, other| other.info.seen_at + lost_after_ms < now_ms);
        Ok(lost.filter(|(_, other)| other.expires_ms > now_ms).map(|(_, other)| other.info).collect())
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        self.lock().0.workers.remove(worker);
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>, StoreError> {
        let (inner, now_us) = self.lock();
        let live = inner.workers.values().filter(|worker| worker.expires_ms > now_us / 1_000);
        Ok(live.map(|worker| worker.info.clone()).collect())
    }

    async fn declare(&self, tasks: &[Declaration]) -> Answers<Known> {
        let (mut inner, now_us) = self.lock();
        let now_ms = now_us / 1_000;
        inner.periodics.retain(|_, periodic| periodic.expires_ms > now_ms);
        let declare = |by: &Declaration| {
            let entry = inner.periodics.entry(Arc::clone(&by.name)).or_default();
            entry.expires_ms = now_ms + by.lives_ms(ttl::WAITING);
            Ok(ticks::declare(&mut entry.state, by))
        };
        Ok(tasks.iter().map(declare).collect())
    }

    async fn periodics(&self) -> Result<Vec<(Arc<str>, Declared)>, StoreError> {
        let (inner, now_us) = self.lock();
        let live = inner.periodics.iter().filter(|(_, periodic)| periodic.expires_ms > now_us / 1_000);
        Ok(live.filter_map(|(name, periodic)| Some((Arc::clone(name), periodic.state.clone()?))).collect())
    }

    async fn ping(&self) -> Result<StoreInfo, StoreError> {
        Ok(StoreInfo { summary: "in the memory of this process".to_owned(), warnings: Vec::new() })
    }

    fn connected_for(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }

    async fn now_us(&self) -> Result<u64, StoreError> {
        Ok(self.clock.now_us())
    }
}

#[derive(Debug, Default)]
struct Inner {
    tasks: HashMap<TaskId, Entry>,
    /// How many tasks and keys there may be before expired ones are thrown out.
    sweep_at: usize,
    /// Which key is whose, and until when in ms.
    uniques: HashMap<UniqueKey, (Option<Taken>, u64)>,
    mailboxes: HashMap<ClientId, Weak<Mailbox>>,
    workers: HashMap<String, Registration>,
    periodics: BTreeMap<Arc<str>, Periodic>,
    limits: limits::Limits,
}

#[derive(Debug, Default)]
struct Periodic {
    state: Option<Declared>,
    expires_ms: u64,
}

#[derive(Debug, Default)]
struct Entry {
    state: Option<TaskState>,
    expires_ms: u64,
    waiters: Vec<ClientId>,
    /// Those of them that also want to know how far it is.
    watchers: Vec<ClientId>,
}

fn join(clients: &mut Vec<ClientId>, client: Option<&ClientId>) {
    if let Some(client) = client.filter(|client| !clients.contains(client))
        && clients.len() < MAX_WAITERS
    {
        clients.push(Arc::clone(client));
    }
}

/// The mailbox of a worker; no client has such an id.
fn control(worker: &str) -> ClientId {
    format!("control {worker}").into()
}

impl Entry {
    /// Tells whoever waits, and one client more, that the task has ended, if it has.
    fn tell(&mut self, id: &TaskId, more: Option<&ClientId>, told: &mut HashMap<ClientId, Vec<Reply>>) {
        let Some(state) = self.state.as_ref().filter(|state| state.status.is_terminal()) else { return };
        let mut clients = std::mem::take(&mut self.waiters);
        clients.extend(more.filter(|client| !clients.contains(client)).cloned());
        for client in clients {
            let (result, error) = (state.result.clone(), state.error.clone());
            told.entry(client).or_default().push(Reply { id: id.clone(), status: state.status, result, error });
        }
    }

    fn has_ended(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.status.is_terminal())
    }
}

#[derive(Debug)]
struct Registration {
    info: WorkerInfo,
    expires_ms: u64,
}

impl Inner {
    /// What is kept of a key, and until when.
    fn unique(&mut self, key: &UniqueKey, now_ms: u64) -> (&mut Option<Taken>, &mut u64) {
        self.sweep(now_ms);
        let (slot, expires_ms) = self.uniques.entry(key.clone()).or_default();
        if *expires_ms <= now_ms {
            *slot = None;
        }
        (slot, expires_ms)
    }

    /// Runs what prolongs no record's life.
    fn note<T>(&mut self, id: &TaskId, now_us: u64, note: impl FnOnce(&mut Entry) -> T) -> T {
        let expires_ms = self.tasks.get(id).map(|entry| entry.expires_ms);
        let answer = self.change(id, now_us, ttl::RESULT, note);
        if let (Some(entry), Some(expires_ms)) = (self.tasks.get_mut(id), expires_ms) {
            entry.expires_ms = expires_ms;
        }
        answer
    }

    /// Runs a transition. A record that it changed lives anew, an ended one for `ended_ttl_ms`.
    fn change<T>(
        &mut self, id: &TaskId, now_us: u64, ended_ttl_ms: u64, transition: impl FnOnce(&mut Entry) -> T,
    ) -> T {
        let now_ms = now_us / 1_000;
        self.sweep(now_ms);
        let entry = self.tasks.entry(id.clone()).or_default();
        if entry.expires_ms <= now_ms {
            *entry = Entry::default();
        }
        let before = entry.state.clone();
        let answer = transition(entry);
        if let Some(state) = entry.state.as_ref().filter(|_| entry.state != before) {
            // A marker of a revocation waits for the record as the task would have.
            let wait_ms = state.eta.unwrap_or(0).saturating_sub(now_ms);
            let ttl_ms = if entry.has_ended() { ended_ttl_ms } else { ttl::WAITING };
            entry.expires_ms = now_ms.saturating_add(wait_ms).saturating_add(ttl_ms);
        }
        if entry.has_ended() {
            entry.waiters = Vec::new();
            entry.watchers = Vec::new();
        }
        if entry.state.is_none() {
            self.tasks.remove(id);
        }
        answer
    }

    fn complete(&mut self, run: &Completion, now_us: u64, told: &mut HashMap<ClientId, Vec<Reply>>) -> Verdict {
        let Lease { id, ask, held } = &run.lease;
        self.change(id, now_us, run.ttl_ms, |entry| {
            let had_ended = entry.has_ended();
            let verdict = lifecycle::complete(&mut entry.state, ask, *held, &run.outcome, now_us);
            if verdict == Verdict::Recorded && !had_ended {
                entry.tell(id, run.reply_to.as_ref(), told);
            }
            verdict
        })
    }

    fn tell(&self, client: &ClientId, replies: Vec<Reply>) {
        if let Some(mailbox) = self.mailboxes.get(client).and_then(Weak::upgrade) {
            mailbox.push(replies);
        }
    }

    /// Throws out what has expired, each time the number of tasks has doubled: a constant cost per task.
    fn sweep(&mut self, now_ms: u64) {
        const FEW: usize = 1_024;
        if self.tasks.len() + self.uniques.len() > self.sweep_at.max(FEW) {
            self.tasks.retain(|_, entry| entry.expires_ms > now_ms);
            self.uniques.retain(|_, (_, expires_ms)| *expires_ms > now_ms);
            self.sweep_at = 2 * (self.tasks.len() + self.uniques.len());
        }
    }
}

struct MemoryReplies(Arc<Mailbox>);

#[async_trait]
impl Replies for MemoryReplies {
    async fn next(&mut self) -> Notice {
        self.0.next().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn what_has_expired_is_gone_and_takes_no_memory() {
        let clock = Arc::new(ManualClock::at_us(1_000_000));
        let store = MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let submission =
            || Submission { id: TaskId::new(), task: "add".into(), queue: "default".into(), reply_to: None, eta: None };
        let tasks = (0..3_000).map(|_| submission()).collect::<Vec<_>>();
        store.submit(&tasks).await.expect("in memory");
        let first = [tasks[0].id.clone()];
        clock.advance(Duration::from_millis(ttl::WAITING - 1));
        assert!(matches!(store.read(&first, None).await.expect("in memory")[..], [Ok(Some(_))]));
        clock.advance(Duration::from_millis(1));
        assert!(matches!(store.read(&first, None).await.expect("in memory")[..], [Ok(None)]));
        for _ in 0..3 {
            store.submit(&(0..3_000).map(|_| submission()).collect::<Vec<_>>()).await.expect("in memory");
            clock.advance(Duration::from_millis(ttl::WAITING));
        }
        assert!(store.lock().0.tasks.len() <= 6_000);
    }
}

#[cfg(test)]
mod testing {
    use super::{MemoryStore, async_trait, ttl};
    use crate::{
        core::{lifecycle::TaskState, names::TaskId},
        store::conformance::Subject,
    };

    #[async_trait]
    impl Subject for MemoryStore {
        async fn plant(&self, id: &TaskId, state: Option<TaskState>) {
            let (mut inner, now_us) = self.lock();
            inner.tasks.remove(id);
            inner.change(id, now_us, ttl::RESULT, |entry| entry.state = state);
        }

        async fn ttl_ms(&self, id: &TaskId) -> u64 {
            let (inner, now_us) = self.lock();
            inner.tasks[id].expires_ms - now_us / 1_000
        }

        async fn spoil(&self, _: &TaskId) -> bool {
            false
        }
    }
}
