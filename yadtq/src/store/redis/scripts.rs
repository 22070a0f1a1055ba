//! The Lua scripts, one typed function each.
//!
//! A call carries up to [`PER_CALL`] tasks; in a cluster one, because a script needs its keys in one slot. The
//! calls of one batch are pipelined.

use std::sync::Arc;

use fred::types::Value;

use super::{
    RedisStore,
    call::{Args, Call, Script, send},
    codec,
};
use crate::{
    core::{
        lifecycle::{Ask, Claim, Claimer, Extended, HandedOn, Replay, Revocation, TaskState, Verdict},
        names::{ClientId, TaskId, WorkerId},
        ticks::Declaration,
    },
    store::{Answers, Completion, Handover, Lease, MAX_WAITERS, Report, Revival, StoreError, Submission, ttl},
};

/// Tasks that one script call handles: enough to make the call's own cost small, few enough (1 to 3 ms) to let
/// others in between.
const PER_CALL: usize = 256;
/// Larger results are not published; the client is told to ask.
const MAX_REPLY: usize = 64 * 1_024;

const TELL: &str = include_str!("lua/tell.lua");

static SUBMIT: Script = Script::new(include_str!("lua/submit.lua"));
static CLAIM: Script = Script::new(include_str!("lua/claim.lua"));
static COMPLETE: Script = Script::after(TELL, include_str!("lua/complete.lua"));
static HAND_ON: Script = Script::new(include_str!("lua/hand_on.lua"));
static EXTEND: Script = Script::new(include_str!("lua/extend.lua"));
static PROGRESS: Script = Script::after(TELL, include_str!("lua/progress.lua"));
static REPLAY: Script = Script::new(include_str!("lua/replay.lua"));
static REVOKE: Script = Script::new(include_str!("lua/revoke.lua"));
static RELEASE: Script = Script::new(include_str!("lua/release.lua"));
static READ: Script = Script::new(include_str!("lua/read.lua"));
static DECLARE: Script = Script::new(include_str!("lua/declare.lua"));
static BEAT: Script = Script::new(include_str!("lua/beat.lua"));

impl RedisStore {
    pub(super) async fn run_submit(&self, tasks: &[Submission]) -> Result<(), StoreError> {
        let shared = |args: &mut Args| {
            args.number(ttl::WAITING);
        };
        let each = |args: &mut Args, task: &Submission| {
            args.text(&task.task).text(&task.queue).optional(task.reply_to.as_deref());
            args.optional(task.eta.map(|eta| eta.to_string()).as_deref());
        };
        let answers = self.batch(&SUBMIT, tasks, |task| &task.id, shared, each).await?;
        tasks.iter().zip(answers).try_for_each(|(task, answer)| self.number(&task.id, &answer).map(drop))
    }

    pub(super) async fn run_claim(&self, by: &Claimer, asks: &[(TaskId, Arc<Ask>)]) -> Answers<Claim> {
        // The slots count over the whole batch, but calls of a pipeline know nothing of each other.
        let mut slots = by.quarantine;
        let several = asks.len() > self.per_call();
        let first = self.claim_calls(by, if several { 0 } else { slots }, asks).await?;
        let mut claims = Vec::with_capacity(asks.len());
        for (ask, answer) in asks.iter().zip(first.chunks_exact(3)) {
            let mut claim = codec::claim(answer, ask.1.attempt);
            if several && slots > 0 && matches!(claim, Ok(codec::Claimed::NoSlot(_))) {
                claim = codec::claim(&self.claim_calls(by, slots, std::slice::from_ref(ask)).await?, ask.1.attempt);
                slots -= u32::from(matches!(claim, Ok(codec::Claimed::Told(Claim::Granted { .. }))));
            }
            claims.push(claim.map(codec::Claimed::told).map_err(|detail| self.wrong_type(&ask.0, detail)));
        }
        Ok(claims)
    }

    async fn claim_calls(
        &self, by: &Claimer, slots: u32, asks: &[(TaskId, Arc<Ask>)],
    ) -> Result<Vec<Value>, StoreError> {
        let shared = |args: &mut Args| {
            args.text(&by.worker).number(by.lease_ms).number(u8::from(by.take_over)).number(slots);
            args.number(by.max_deliveries).number(ttl::WAITING).number(ttl::RESULT);
        };
        let each = |args: &mut Args, (_, ask): &(TaskId, Arc<Ask>)| {
            args.number(ask.seq).number(ask.attempt).number(ask.nonce).text(&ask.task).text(&ask.queue);
        };
        self.batch(&CLAIM, asks, |(id, _)| id, shared, each).await
    }

    pub(super) async fn run_complete(&self, runs: &[Completion]) -> Answers<Verdict> {
        let id_at = self.keys.task_prefix().len() + 1;
        let channel = self.keys.reply_prefix();
        let shared = |args: &mut Args| {
            args.text(&channel).number(id_at).number(MAX_REPLY);
        };
        let each = |args: &mut Args, run: &Completion| {
            let outcome = &run.outcome;
            args.number(run.lease.held.token).remake(&run.lease).text(outcome.status.as_str());
            args.optional(outcome.result.as_deref()).optional(outcome.error.as_deref());
            args.optional(outcome.hand_on.map(codec::hand_on).as_deref());
            args.number(run.ttl_ms).optional(run.reply_to.as_deref());
        };
        let answers = self.batch(&COMPLETE, runs, |run| &run.lease.id, shared, each).await?;
        let verdict = |(run, answer): (&Completion, &Value)| self.number(&run.lease.id, answer).map(codec::verdict);
        Ok(runs.iter().zip(&answers).map(verdict).collect())
    }

    pub(super) async fn run_hand_on(&self, runs: &[Handover]) -> Answers<HandedOn> {
        let shared = |args: &mut Args| {
            args.number(ttl::WAITING);
        };
        let each = |args: &mut Args, Handover { lease, next }: &Handover| {
            args.number(lease.held.token).remake(lease).number(lease.ask.seq).text(next.status.as_str());
            args.number(next.attempt).number(next.due).optional(next.error.as_deref()).number(u8::from(next.in_place));
        };
        let answers = self.batch(&HAND_ON, runs, |run| &run.lease.id, shared, each).await?;
        let told = |(run, answer): (&Handover, &Value)| self.number(&run.lease.id, answer).map(codec::handed_on);
        Ok(runs.iter().zip(&answers).map(told).collect())
    }

    pub(super) async fn run_extend(&self, worker: &WorkerId, lease_ms: u64, leases: &[Lease]) -> Answers<Extended> {
        let shared = |args: &mut Args| {
            args.text(worker).number(lease_ms).number(ttl::WAITING);
        };
        let each = |args: &mut Args, lease: &Lease| {
            args.number(lease.held.token).remake(lease);
        };
        let answers = self.batch(&EXTEND, leases, |lease| &lease.id, shared, each).await?;
        let extended = |(lease, answer): (&Lease, &Value)| {
            self.number(&lease.id, answer).map(|code| match code {
                1 => Extended::Live,
                2 => Extended::Revoking,
                _ => Extended::Lost,
            })
        };
        Ok(leases.iter().zip(&answers).map(extended).collect())
    }

    pub(super) async fn run_progress(&self, reports: &[Report]) -> Answers<bool> {
        let id_at = self.keys.task_prefix().len() + 1;
        let channel = self.keys.reply_prefix();
        let shared = |args: &mut Args| {
            args.text(&channel).number(id_at);
        };
        let each = |args: &mut Args, report: &Report| {
            args.number(report.token).number(report.progress.number).text(&report.progress.value);
        };
        let answers = self.batch(&PROGRESS, reports, |report| &report.id, shared, each).await?;
        let noted = |(report, answer): (&Report, &Value)| self.number(&report.id, answer).map(|code| code == 1);
        Ok(reports.iter().zip(&answers).map(noted).collect())
    }

    pub(super) async fn run_release(&self, leases: &[Lease]) -> Answers<Verdict> {
        let shared = |args: &mut Args| {
            args.number(ttl::WAITING).number(ttl::RESULT);
        };
        let each = |args: &mut Args, lease: &Lease| {
            args.number(lease.held.token);
        };
        let answers = self.batch(&RELEASE, leases, |lease| &lease.id, shared, each).await?;
        let verdict = |(lease, answer): (&Lease, &Value)| self.number(&lease.id, answer).map(codec::verdict);
        Ok(leases.iter().zip(&answers).map(verdict).collect())
    }

    pub(super) async fn run_revoke(&self, ids: &[TaskId]) -> Answers<Revocation> {
        let id_at = self.keys.task_prefix().len() + 1;
        let (reply, control) = (self.keys.reply_prefix(), self.keys.control_prefix());
        let shared = |args: &mut Args| {
            args.number(ttl::WAITING).text(&reply).text(&control).number(id_at);
        };
        let answers = self.batch(&REVOKE, ids, |id| id, shared, |_, _| ()).await?;
        let told = |(id, answer): (&TaskId, &[Value])| {
            let text = codec::text(&answer[1]);
            match answer[0].as_i64() {
                Some(1) => Ok(Revocation::Revoked { delayed: text.parse().ok() }),
                Some(2) => Ok(Revocation::Asked(text.into())),
                Some(3) => text.parse().map(Revocation::Ended).map_err(|_| self.wrong_type(id, text)),
                _ => Err(self.wrong_type(id, text)),
            }
        };
        Ok(ids.iter().zip(answers.chunks_exact(2)).map(told).collect())
    }

    pub(super) async fn run_replay(&self, dead: &[Revival]) -> Answers<Replay> {
        let shared = |args: &mut Args| {
            args.number(ttl::WAITING);
        };
        let each = |args: &mut Args, task: &Revival| {
            args.number(task.seq).text(&task.task).text(&task.queue);
        };
        let answers = self.batch(&REPLAY, dead, |task| &task.id, shared, each).await?;
        let told = |(task, answer): (&Revival, &[Value])| {
            let text = codec::text(&answer[1]);
            match (answer[0].as_i64(), text.parse()) {
                (Some(1), _) => Ok(Replay::Queued),
                (Some(2), Ok(status)) => Ok(Replay::Past(status)),
                (Some(3), Ok(status)) => Ok(Replay::Refused(status)),
                _ => Err(self.wrong_type(&task.id, text)),
            }
        };
        Ok(dead.iter().zip(answers.chunks_exact(2)).map(told).collect())
    }

    pub(super) async fn run_read(
        &self, ids: &[TaskId], waiter: Option<&ClientId>, watches: bool,
    ) -> Answers<Option<TaskState>> {
        let shared = |args: &mut Args| {
            args.optional(waiter.map(|client| &**client)).number(MAX_WAITERS).number(u8::from(watches));
        };
        let answers = self.batch(&READ, ids, |id| id, shared, |_, _| ()).await?;
        let state = |(id, hash): (&TaskId, Value)| codec::state(hash).map_err(|detail| self.wrong_type(id, detail));
        Ok(ids.iter().zip(answers).map(state).collect())
    }

    /// Workers that were lost, with their last beat in ms; each is told to one caller.
    pub(super) async fn run_beat(
        &self, worker: &str, lost_after_ms: Option<u64>,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let mut args = Args::default();
        args.text(&self.keys.workers()).text(worker).optional(lost_after_ms.map(|ms| ms.to_string()).as_deref());
        let answers = self.send(&BEAT, &[Call { args, keys: 1 }]).await?;
        let lost = answers.into_iter().flat_map(Value::into_array).collect::<Vec<_>>();
        Ok(lost.chunks_exact(2).map(|pair| (codec::text(&pair[0]), pair[1].as_u64().unwrap_or_default())).collect())
    }

    /// Two values of each declaration.
    pub(super) async fn run_declare(&self, tasks: &[Declaration]) -> Result<Vec<Value>, StoreError> {
        let optional = |ms: Option<u64>| ms.map(|ms| ms.to_string());
        let call = |chunk: &[Declaration]| {
            let mut args = Args::default();
            for task in chunk {
                args.text(&self.keys.tick(&task.name));
            }
            for by in chunk {
                args.number(by.now).number(by.lives_ms(ttl::WAITING)).text(&by.schedule).optional(by.zone.as_deref());
                args.text(by.missed.as_str()).text(&by.task).text(&by.queue);
                args.optional(optional(by.next).as_deref()).optional(optional(by.last).as_deref());
            }
            Call { args, keys: chunk.len() }
        };
        let calls = tasks.chunks(self.per_call()).map(call).collect::<Vec<_>>();
        Ok(self.send(&DECLARE, &calls).await?.into_iter().flat_map(Value::into_array).collect())
    }

    /// Runs a script over a batch of tasks; returns the values of all its answers in one list.
    async fn batch<T>(
        &self, script: &Script, batch: &[T], id: impl Fn(&T) -> &TaskId, shared: impl Fn(&mut Args),
        each: impl Fn(&mut Args, &T),
    ) -> Result<Vec<Value>, StoreError> {
        let key = |args: &mut Args, task: &T| {
            args.key(self.keys.task_prefix(), id(task));
        };
        self.batch_of(script, batch, key, shared, each).await
    }

    /// The same, whatever the keys are.
    pub(super) async fn batch_of<T>(
        &self, script: &Script, batch: &[T], key: impl Fn(&mut Args, &T), shared: impl Fn(&mut Args),
        each: impl Fn(&mut Args, &T),
    ) -> Result<Vec<Value>, StoreError> {
        let call = |chunk: &[T]| {
            let mut args = Args::default();
            for task in chunk {
                key(&mut args, task);
            }
            shared(&mut args);
            for task in chunk {
                each(&mut args, task);
            }
            Call { args, keys: chunk.len() }
        };
        let calls = batch.chunks(self.per_call()).map(call).collect::<Vec<_>>();
        let mut values = self.send(script, &calls).await?.into_iter();
        // Most batches are one call: take its list as it is.
        let mut all = values.next().map_or_else(Vec::new, Value::into_array);
        values.for_each(|value| all.extend(value.into_array()));
        Ok(all)
    }

    async fn send(&self, script: &Script, calls: &[Call]) -> Result<Vec<Value>, StoreError> {
        let client = self.connection.client();
        send(&client, script, calls).await.map_err(|error| self.connection.error(&error))
    }

    fn per_call(&self) -> usize {
        if self.is_clustered { 1 } else { PER_CALL }
    }

    /// The number that a script answers, or what is wrong with the key.
    fn number(&self, id: &TaskId, answer: &Value) -> Result<i64, StoreError> {
        answer.as_i64().ok_or_else(|| self.wrong_type(id, codec::text(answer)))
    }

    fn wrong_type(&self, id: &TaskId, detail: String) -> StoreError {
        StoreError::WrongType { key: self.keys.task(id), detail }
    }
}
