//! Tasks in Redis: a hash each, every transition a script.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use fred::types::Value;

use super::{
    RedisStore,
    call::{Args, BYTES_PER_CALL, Layout, Resend, Script, read},
    codec,
};
use crate::{
    core::{
        lifecycle::{
            Claim, ClaimRequest, Claimer, Delayed, Extended, Finished, NextRun, Replay, Revocation, Status, TaskState,
        },
        names::{ClientId, TaskId, WorkerId},
    },
    store::{Answers, DeadTask, Finish, Lease, MAX_WAITERS, Report, StoreError, Submission, Tasks, ttl},
};

/// Results that are larger are not published: the client is notified, and reads them.
const MAX_REPLY_BYTES: usize = 64 * 1_024;

const TASK: &str = include_str!("lua/task.lua");
const LEASE: &str = include_str!("lua/lease.lua");
const NOTIFY: &str = include_str!("lua/notify.lua");

static SUBMIT: Script = Script::new(&[TASK, include_str!("lua/submit.lua")]);
static CLAIM: Script = Script::new(&[TASK, NOTIFY, include_str!("lua/claim.lua")]);
static FINISH: Script = Script::new(&[TASK, NOTIFY, LEASE, include_str!("lua/finish.lua")]);
static EXTEND: Script = Script::new(&[TASK, LEASE, include_str!("lua/extend.lua")]);
static CARRY: Script = Script::new(&[TASK, include_str!("lua/carry.lua")]);
static DEAD_LETTERED: Script = Script::new(&[TASK, include_str!("lua/dead_lettered.lua")]);
static PROGRESS: Script = Script::new(&[TASK, NOTIFY, include_str!("lua/progress.lua")]);
static REVOKE: Script = Script::new(&[TASK, NOTIFY, include_str!("lua/revoke.lua")]);
static REPLAY: Script = Script::new(&[TASK, include_str!("lua/replay.lua")]);
static READ: Script = Script::new(&[TASK, include_str!("lua/read.lua")]);

#[async_trait]
impl Tasks for RedisStore {
    async fn submit(&self, tasks: &[Submission]) -> Result<(), StoreError> {
        let shared = |args: &mut Args| {
            args.number(ttl::WAITING);
        };
        let each = |args: &mut Args, task: &Submission| {
            args.text(&task.task).text(&task.queue).optional(task.reply_to.as_deref());
            args.optional(task.eta.map(|eta| eta.to_string()).as_deref());
        };
        let answers = self.batch(&SUBMIT, tasks, |task| &task.id, shared, each).await?;
        let noted = read(tasks, answers, |(task, [answer])| self.number(&task.id, &answer));
        noted.into_iter().try_for_each(|answer| answer.map(drop))
    }

    async fn claim(&self, by: &Claimer, asks: &[(TaskId, Arc<ClaimRequest>)]) -> Answers<Claim> {
        // The slots count over the whole batch, but calls of a pipeline know nothing of each other.
        let mut slots = by.quarantine;
        let several = asks.len() > self.per_call();
        let first = self.claim_calls(by, if several { 0 } else { slots }, asks).await?;
        let mut claims = Vec::with_capacity(asks.len());
        for (ask, answer) in asks.iter().zip(first) {
            let mut claim = answer.and_then(|answer| self.claimed(ask, &answer));
            if several && slots > 0 && matches!(claim, Ok(codec::Claimed::NoSlot(_))) {
                let again = self.claim_calls(by, slots, std::slice::from_ref(ask)).await;
                claim = again.and_then(|mut again| self.claimed(ask, &again.remove(0)?));
            }
            if matches!(claim, Ok(codec::Claimed::Claim(Claim::Granted { deliveries: Claimer::SUSPECT.., .. }))) {
                slots = slots.saturating_sub(1);
            }
            claims.push(claim.map(codec::Claimed::into_claim));
        }
        Ok(claims)
    }

    async fn finish(&self, runs: &[Finish]) -> Answers<Finished> {
        let id_at = self.keys.task_prefix().len() + 1;
        let channel = self.keys.reply_prefix();
        let shared = |args: &mut Args| {
            args.text(&channel).number(id_at).number(MAX_REPLY_BYTES).number(ttl::WAITING).number(ttl::WAITING);
            args.number(BYTES_PER_CALL);
        };
        let each = |args: &mut Args, Finish { lease, end, reply_to, ttl_ms }: &Finish| {
            let (status, seq) = (end.status(), lease.ask.seq);
            args.number(lease.held.token);
            // A task that is given back needs no record.
            if status == Status::Queued {
                args.text("")
            } else {
                args.remake(lease)
            };
            args.text(status.as_str()).optional(end.result().or(end.error()).map(|text| &**text));
            args.number(if status.is_terminal() { *ttl_ms } else { ttl::WAITING });
            match end.next() {
                None => args.optional(reply_to.as_deref()),
                Some(NextRun { attempt, due, in_place: true }) => args.text(&format!("stay {seq} {attempt} {due}")),
                Some(NextRun { attempt, due, .. }) => args.text(&format!("next {} {attempt} {due}", seq + 1)),
            };
        };
        let answers = self.batch(&FINISH, runs, |run| &run.lease.id, shared, each).await?;
        let finished = |(run, [answer]): (&Finish, [Value; 1])| {
            self.number(&run.lease.id, &answer).map(|code| match code {
                1 => Finished::Recorded,
                2 => Finished::Revoking,
                _ => Finished::Stale,
            })
        };
        Ok(read(runs, answers, finished))
    }

    async fn extend(&self, worker: &WorkerId, lease_ms: u64, leases: &[Lease]) -> Answers<Extended> {
        let shared = |args: &mut Args| {
            args.text(worker).number(lease_ms).number(ttl::WAITING);
        };
        let each = |args: &mut Args, lease: &Lease| {
            args.number(lease.held.token).remake(lease);
        };
        let answers = self.batch(&EXTEND, leases, |lease| &lease.id, shared, each).await?;
        let extended = |(lease, [answer]): (&Lease, [Value; 1])| {
            self.number(&lease.id, &answer).map(|code| match code {
                1 => Extended::Live,
                2 => Extended::Revoking,
                _ => Extended::Lost,
            })
        };
        Ok(read(leases, answers, extended))
    }

    async fn carry(&self, records: &[(TaskId, u64)]) -> Answers<bool> {
        let each = |args: &mut Args, (_, seq): &(TaskId, u64)| {
            args.number(*seq);
        };
        let answers = self.batch(&CARRY, records, |(id, _)| id, |_| (), each).await?;
        Ok(read(records, answers, |((id, _), [answer])| self.number(id, &answer).map(|code| code == 1)))
    }

    async fn dead_lettered(&self, records: &[(TaskId, u64)]) -> Answers<bool> {
        let each = |args: &mut Args, (_, seq): &(TaskId, u64)| {
            args.number(*seq);
        };
        let answers = self.batch(&DEAD_LETTERED, records, |(id, _)| id, |_| (), each).await?;
        Ok(read(records, answers, |((id, _), [answer])| self.number(id, &answer).map(|code| code == 1)))
    }

    async fn progress(&self, reports: &[Report]) -> Answers<bool> {
        let id_at = self.keys.task_prefix().len() + 1;
        let channel = self.keys.reply_prefix();
        let shared = |args: &mut Args| {
            args.text(&channel).number(id_at).number(BYTES_PER_CALL);
        };
        let each = |args: &mut Args, report: &Report| {
            args.number(report.token).number(report.progress.number).text(&report.progress.value);
        };
        let answers = self.batch(&PROGRESS, reports, |report| &report.id, shared, each).await?;
        Ok(read(reports, answers, |(report, [answer])| self.number(&report.id, &answer).map(|code| code == 1)))
    }

    async fn revoke(&self, ids: &[TaskId]) -> Answers<Revocation> {
        let id_at = self.keys.task_prefix().len() + 1;
        let (reply, control) = (self.keys.reply_prefix(), self.keys.control_prefix());
        let shared = |args: &mut Args| {
            args.number(ttl::WAITING).text(&reply).text(&control).number(id_at);
        };
        let answers = self.batch(&REVOKE, ids, |id| id, shared, |_, _| ()).await?;
        let revocation = |(id, [code, text]): (&TaskId, [Value; 2])| {
            let text = codec::text(&text);
            match code.as_i64() {
                Some(1) => {
                    let delayed =
                        text.split_once(' ').and_then(|(seq, eta)| Some((seq.parse().ok()?, eta.parse().ok()?)));
                    Ok(Revocation::Revoked { delayed: delayed.map(|(seq, eta)| Delayed { seq, eta }) })
                }
                Some(2) => Ok(Revocation::Asked(text.into())),
                Some(3) => text.parse().map(Revocation::Ended).map_err(|_| self.wrong_type(id, text)),
                _ => Err(self.wrong_type(id, text)),
            }
        };
        Ok(read(ids, answers, revocation))
    }

    async fn replay(&self, dead: &[DeadTask]) -> Answers<Replay> {
        let shared = |args: &mut Args| {
            args.number(ttl::WAITING);
        };
        let each = |args: &mut Args, task: &DeadTask| {
            args.number(task.seq).text(&task.task).text(&task.queue);
        };
        let answers = self.batch(&REPLAY, dead, |task| &task.id, shared, each).await?;
        let replayed = |(task, [code, text]): (&DeadTask, [Value; 2])| {
            let text = codec::text(&text);
            match (code.as_i64(), text.parse()) {
                (Some(1), _) => Ok(Replay::Queued),
                (Some(2), Ok(status)) => Ok(Replay::Past(status)),
                (Some(3), Ok(status)) => Ok(Replay::Refused(status)),
                _ => Err(self.wrong_type(&task.id, text)),
            }
        };
        Ok(read(dead, answers, replayed))
    }

    async fn read(&self, ids: &[TaskId], waiter: Option<&ClientId>) -> Answers<Option<TaskState>> {
        self.read_and_join(ids, waiter, false).await
    }

    async fn watch(&self, ids: &[TaskId], watcher: &ClientId) -> Answers<Option<TaskState>> {
        self.read_and_join(ids, Some(watcher), true).await
    }
}

impl RedisStore {
    async fn claim_calls(&self, by: &Claimer, slots: u32, asks: &[(TaskId, Arc<ClaimRequest>)]) -> Answers<[Value; 3]> {
        let (channel, id_at) = (self.keys.reply_prefix(), self.keys.task_prefix().len() + 1);
        let lease = Duration::from_millis(by.lease_ms);
        let shared = |args: &mut Args, (id, _): &(TaskId, Arc<ClaimRequest>)| {
            // In a cluster one master may have been away: those who hold its leases extend them first.
            let take_over = by.take_over && (!self.is_clustered || self.has_been_up(id, lease));
            args.text(&by.worker).number(by.lease_ms).number(u8::from(take_over)).number(slots);
            args.number(by.max_deliveries).number(ttl::WAITING).number(ttl::RESULT).text(&channel).number(id_at);
        };
        let each = |args: &mut Args, (_, ask): &(TaskId, Arc<ClaimRequest>)| {
            args.number(ask.seq).number(ask.attempt).number(ask.nonce).text(&ask.task).text(&ask.queue);
        };
        let key = |args: &mut Args, (id, _): &(TaskId, Arc<ClaimRequest>)| {
            args.key(self.keys.task_prefix(), id);
        };
        // In a cluster it lies in another slot.
        let dead = (!self.is_clustered).then(|| self.keys.workers_part("dead"));
        let layout = Layout { keys: key, last_key: dead.as_deref(), shared, each };
        self.send_batch(&CLAIM, asks, &layout, Resend::AfterReconnect).await
    }

    /// Whether the connection to the master that has this task has been up for a lease.
    fn has_been_up(&self, id: &TaskId, lease: Duration) -> bool {
        #[cfg(test)]
        if self.trusts_new_masters.load(std::sync::atomic::Ordering::Relaxed) {
            return true;
        }
        self.connections.connected_to(&self.keys.task(id)).is_some_and(|up| up >= lease)
    }

    fn claimed(&self, (id, ask): &(TaskId, Arc<ClaimRequest>), answer: &[Value]) -> Result<codec::Claimed, StoreError> {
        codec::claim(answer, ask.attempt).map_err(|detail| self.wrong_type(id, detail))
    }

    async fn read_and_join(
        &self, ids: &[TaskId], waiter: Option<&ClientId>, watches: bool,
    ) -> Answers<Option<TaskState>> {
        let shared = |args: &mut Args| {
            args.optional(waiter.map(|client| &**client)).number(MAX_WAITERS).number(u8::from(watches));
            args.number(BYTES_PER_CALL);
        };
        let answers = self.batch(&READ, ids, |id| id, shared, |_, _| ()).await?;
        let state =
            |(id, [hash]): (&TaskId, [Value; 1])| codec::state(hash).map_err(|detail| self.wrong_type(id, detail));
        Ok(read(ids, answers, state))
    }

    /// The number that a script answers, or what is wrong with the key.
    fn number(&self, id: &TaskId, answer: &Value) -> Result<i64, StoreError> {
        answer.as_i64().ok_or_else(|| self.wrong_type(id, codec::text(answer)))
    }

    fn wrong_type(&self, id: &TaskId, detail: String) -> StoreError {
        StoreError::WrongType { key: self.keys.task(id), detail }
    }
}
