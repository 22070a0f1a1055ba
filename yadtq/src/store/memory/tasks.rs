//! Tasks in memory: the pure transitions on one record each, with what is published of them.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;

use super::{Inner, MemoryStore, control};
use crate::{
    core::{
        lifecycle::{self, Claim, ClaimRequest, Claimer, Extended, Finished, Replay, Revocation, Status, TaskState},
        names::{ClientId, TaskId, WorkerId},
    },
    store::{
        Answers, DeadTask, Finish, Lease, MAX_WAITERS, Reply, Report, StoreError, Submission, Tasks, mailbox::Mailbox,
        ttl,
    },
};

#[async_trait]
impl Tasks for MemoryStore {
    async fn submit(&self, tasks: &[Submission]) -> Result<(), StoreError> {
        let (mut inner, now_us) = self.lock();
        for Submission { id, task, queue, reply_to, eta } in tasks {
            inner.change(id, now_us, |entry| {
                let is_new = entry.state.is_none();
                if is_new {
                    entry.state = Some(TaskState::submitted(Arc::clone(task), Arc::clone(queue), *eta, now_us));
                    entry.waiters.extend(reply_to.clone());
                }
                ((), is_new.then_some(ttl::RESULT))
            });
        }
        Ok(())
    }

    async fn claim(&self, by: &Claimer, asks: &[(TaskId, Arc<ClaimRequest>)]) -> Answers<Claim> {
        let (mut inner, now_us) = self.lock();
        let (mut by, mut mail) = (by.clone(), HashMap::new());
        let fleet = std::mem::take(&mut inner.fleet);
        let claim = |(id, ask): &(TaskId, Arc<ClaimRequest>)| {
            Ok(inner.change(id, now_us, |entry| {
                let (before, had_ended) = (entry.state.clone(), entry.has_ended());
                let is_dead = |worker: &str| fleet.is_dead(worker);
                let answer = lifecycle::claim(&mut entry.state, ask, &mut by, is_dead, now_us);
                if !had_ended {
                    entry.address(id, None, &mut mail);
                }
                // What was in its queue is kept as long as before: `extend` prolongs that in time.
                let was_queued = before.as_ref().is_some_and(|state| state.status == Status::Queued);
                let is_changed = entry.state != before;
                (answer, (is_changed && !was_queued && !had_ended).then_some(ttl::RESULT))
            }))
        };
        let answers = asks.iter().map(claim).collect();
        inner.fleet = fleet;
        inner.notify(mail);
        Ok(answers)
    }

    async fn finish(&self, runs: &[Finish]) -> Answers<Finished> {
        let (mut inner, now_us) = self.lock();
        let mut mail = HashMap::new();
        let answers = runs.iter().map(|run| Ok(inner.finish(run, now_us, &mut mail))).collect();
        inner.notify(mail);
        Ok(answers)
    }

    async fn extend(&self, worker: &WorkerId, lease_ms: u64, leases: &[Lease]) -> Answers<Extended> {
        let (mut inner, now_us) = self.lock();
        let extend = |Lease { id, ask, held }: &Lease| {
            Ok(inner.change(id, now_us, |entry| {
                let answer = lifecycle::extend(&mut entry.state, ask, *held, worker, lease_ms, now_us);
                (answer, (answer != Extended::Lost).then_some(ttl::RESULT))
            }))
        };
        Ok(leases.iter().map(extend).collect())
    }

    async fn carry(&self, records: &[(TaskId, u64)]) -> Answers<bool> {
        let (mut inner, now_us) = self.lock();
        let carry =
            |(id, seq): &(TaskId, u64)| Ok(inner.look(id, now_us, |entry| lifecycle::carry(&mut entry.state, *seq)));
        Ok(records.iter().map(carry).collect())
    }

    async fn dead_lettered(&self, records: &[(TaskId, u64)]) -> Answers<bool> {
        let (mut inner, now_us) = self.lock();
        let note = |(id, seq): &(TaskId, u64)| {
            Ok(inner.look(id, now_us, |entry| lifecycle::dead_lettered(&mut entry.state, *seq)))
        };
        Ok(records.iter().map(note).collect())
    }

    async fn progress(&self, reports: &[Report]) -> Answers<bool> {
        let (mut inner, now_us) = self.lock();
        let mut news = Vec::new();
        let record = |report: &Report| {
            Ok(inner.look(&report.id, now_us, |entry| {
                let known = entry.state.as_ref().and_then(|state| state.progress.clone());
                let recorded = lifecycle::progress(&mut entry.state, report.token, &report.progress);
                if recorded && known.is_none_or(|known| known.number < report.progress.number) {
                    news.extend(entry.watchers.iter().map(|watcher| (Arc::clone(watcher), report.clone())));
                }
                recorded
            }))
        };
        let answers = reports.iter().map(record).collect();
        for (watcher, report) in news {
            inner.with_mailbox(&watcher, |mailbox| mailbox.progress(report));
        }
        Ok(answers)
    }

    async fn revoke(&self, ids: &[TaskId]) -> Answers<Revocation> {
        let (mut inner, now_us) = self.lock();
        let mut mail = HashMap::new();
        let revoke = |id: &TaskId| {
            let answer = inner.change(id, now_us, |entry| {
                let had_ended = entry.has_ended();
                let answer = lifecycle::revoke(&mut entry.state, now_us);
                if !had_ended {
                    entry.address(id, None, &mut mail);
                }
                // The marker has to outlive a record that may have waited for long.
                (answer, (!had_ended).then_some(ttl::WAITING))
            });
            if let Revocation::Asked(worker) = &answer {
                inner.with_mailbox(&control(worker), |mailbox| mailbox.revoke(id.clone()));
            }
            Ok(answer)
        };
        let answers = ids.iter().map(revoke).collect();
        inner.notify(mail);
        Ok(answers)
    }

    async fn replay(&self, dead: &[DeadTask]) -> Answers<Replay> {
        let (mut inner, now_us) = self.lock();
        let replay = |DeadTask { id, seq, task, queue }: &DeadTask| {
            Ok(inner.change(id, now_us, |entry| {
                let before = entry.state.clone();
                let answer = lifecycle::replay(&mut entry.state, *seq, task, queue, now_us);
                (answer, (entry.state != before).then_some(ttl::RESULT))
            }))
        };
        Ok(dead.iter().map(replay).collect())
    }

    async fn read(&self, ids: &[TaskId], waiter: Option<&ClientId>) -> Answers<Option<TaskState>> {
        Ok(self.read_and(ids, |entry| join(&mut entry.waiters, waiter)))
    }

    async fn watch(&self, ids: &[TaskId], watcher: &ClientId) -> Answers<Option<TaskState>> {
        Ok(self.read_and(ids, |entry| {
            join(&mut entry.waiters, Some(watcher));
            join(&mut entry.watchers, Some(watcher));
        }))
    }
}

impl MemoryStore {
    fn read_and(&self, ids: &[TaskId], join: impl Fn(&mut Entry)) -> Vec<Result<Option<TaskState>, StoreError>> {
        let (mut inner, now_us) = self.lock();
        let read = |id: &TaskId| {
            Ok(inner.look(id, now_us, |entry| {
                join(entry);
                entry.state.clone()
            }))
        };
        ids.iter().map(read).collect()
    }
}

/// What is to be put into the mailboxes of clients.
type Mail = HashMap<ClientId, Vec<Reply>>;

/// A task, and who wants to know of it.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) state: Option<TaskState>,
    pub(super) expires_ms: u64,
    waiters: Vec<ClientId>,
    /// Those of the waiters that also want to know how far it is.
    watchers: Vec<ClientId>,
}

impl Entry {
    /// Addresses the task's end, if it has ended, to the clients that wait and to one more.
    fn address(&mut self, id: &TaskId, more: Option<&ClientId>, mail: &mut Mail) {
        let Some(reply) = self.state.as_ref().and_then(|state| Reply::of(id, state)) else { return };
        let mut clients = std::mem::take(&mut self.waiters);
        clients.extend(more.filter(|client| !clients.contains(client)).cloned());
        for client in clients {
            mail.entry(client).or_default().push(reply.clone());
        }
    }

    fn has_ended(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.status.is_terminal())
    }
}

fn join(clients: &mut Vec<ClientId>, client: Option<&ClientId>) {
    if let Some(client) = client.filter(|client| !clients.contains(client))
        && clients.len() < MAX_WAITERS
    {
        clients.push(Arc::clone(client));
    }
}

impl Inner {
    fn finish(&mut self, Finish { lease, end, reply_to, ttl_ms }: &Finish, now_us: u64, mail: &mut Mail) -> Finished {
        let Lease { id, ask, held } = lease;
        // A task that is given back and ends as revoked may have a record that waits for long.
        let ttl_ms = if end.status().is_terminal() { *ttl_ms } else { ttl::WAITING };
        self.change(id, now_us, |entry| {
            let (before, had_ended) = (entry.state.clone(), entry.has_ended());
            let answer = lifecycle::finish(&mut entry.state, ask, *held, end, now_us);
            if answer == Finished::Recorded && !had_ended {
                entry.address(id, reply_to.as_ref(), mail);
            }
            (answer, (entry.state != before).then_some(ttl_ms))
        })
    }

    /// Runs what prolongs no record's life.
    fn look<T>(&mut self, id: &TaskId, now_us: u64, look: impl FnOnce(&mut Entry) -> T) -> T {
        self.change(id, now_us, |entry| (look(entry), None))
    }

    /// Runs a transition. It returns, besides its answer, whether the record lives anew, and for how many ms if it has ended.
    pub(super) fn change<T>(
        &mut self, id: &TaskId, now_us: u64, transition: impl FnOnce(&mut Entry) -> (T, Option<u64>),
    ) -> T {
        let now_ms = now_us / 1_000;
        self.sweep(now_ms);
        let entry = self.tasks.entry(id.clone()).or_default();
        if entry.expires_ms <= now_ms {
            *entry = Entry::default();
        }
        let (answer, anew) = transition(entry);
        if let (Some(state), Some(ended_ttl_ms)) = (&entry.state, anew) {
            // Until `eta` another record of the task waits, which must find out what became of it.
            let wait_ms = state.eta.unwrap_or(0).saturating_sub(now_ms);
            let ttl_ms = match entry.has_ended() {
                true if state.carried => ended_ttl_ms.max(ttl::WAITING),
                true => ended_ttl_ms,
                false => ttl::WAITING,
            };
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

    fn notify(&self, mail: Mail) {
        for (client, replies) in mail {
            self.with_mailbox(&client, |mailbox| mailbox.push(replies));
        }
    }

    /// Does nothing if nobody has such a mailbox any more.
    pub(super) fn with_mailbox(&self, client: &ClientId, put: impl FnOnce(&Mailbox)) {
        if let Some(mailbox) = self.mailboxes.get(client).and_then(std::sync::Weak::upgrade) {
            put(&mailbox);
        }
    }
}
