//! Records how runs ended, in batches, and says what follows once that is done.
//!
//! While the store is down, ends are kept here. No new claims are granted then, so their number is bounded by that of the
//! runs.
//! The order is that of invariant 4: the store first, then what is published, then the offset.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::outcome::{self, Facts, Outcome};
use crate::{
    clock::millis,
    core::{
        lifecycle::{End, Finished},
        names::{TaskId, WorkerId},
        text::Escaped,
    },
    store::{Finish, StoreError},
    wire::failure::Failure,
    worker::{
        effect::{DeadLetter, Effect, Effects, Ended, NextRecord, Now},
        job::{Job, Position, RunId},
        options::Plan,
        runs::{
            run::{Phase, Run},
            table::Table,
        },
        timers::Timers,
    },
};

/// The most ends per call.
const FINISH_BATCH: usize = 512;
/// The most bytes of results and errors per call, unless a single one has more: a slow network carries that well within the
/// timeout of the call.
const FINISH_BATCH_BYTES: usize = 4 * 1_024 * 1_024;
/// The wait before an end that the store refused is sent again.
const REFUSED_DELAY: Duration = Duration::from_secs(1);
/// Number of attempts to give a task back. After that its lease is left to end, which counts as a crash.
const GIVE_BACK_ATTEMPTS: u32 = 5;

/// The ends of runs that are not recorded yet.
pub(in crate::worker) struct Completer {
    worker: WorkerId,
    plan: Arc<Plan>,
    pending: VecDeque<Pending>,
    /// Ends that the store refused, until they are sent again.
    refused: Timers<Pending>,
    /// Number of tasks that ended here.
    pub(in crate::worker) processed: u64,
    /// Number of tasks that failed here.
    pub(in crate::worker) failed: u64,
}

/// One end that is not recorded yet.
#[derive(Debug)]
pub(in crate::worker) struct Pending {
    run: RunId,
    outcome: Outcome,
    end: Arc<End>,
    /// How often the store did not answer.
    failures: u32,
}

impl Pending {
    /// The task, if it ends as revoked.
    pub(in crate::worker) fn revoked(&self) -> Option<&TaskId> {
        matches!(self.outcome, Outcome::Revoked(_)).then_some(&self.run.task)
    }
}

impl Completer {
    pub(super) fn new(worker: &WorkerId, plan: &Arc<Plan>) -> Self {
        Self {
            worker: Arc::clone(worker),
            plan: Arc::clone(plan),
            pending: VecDeque::new(),
            refused: Timers::default(),
            processed: 0,
            failed: 0,
        }
    }

    /// A run has ended, or will not start: decides what becomes of its task, and keeps that until it is recorded.
    pub(super) fn run_ended(&mut self, run: &mut Run, ended: Ended, now_ms: u64) {
        let facts = Facts { job: &run.job, options: &self.plan.options, now_ms, random: fastrand::u64(..) };
        let outcome = outcome::decide(ended, &facts);
        run.phase = match outcome {
            Outcome::GivenBack(_) => Phase::GivenBack,
            _ => Phase::Ending { started: run.phase.started() },
        };
        let end = Arc::new(outcome.end(&run.job));
        self.pending.push_back(Pending { run: run.id.clone(), outcome, end, failures: 0 });
    }

    /// Whether everything is recorded, but for a call under way.
    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.refused.next().is_none()
    }

    /// Ends that the store refused are recorded again when their wait is over.
    pub(in crate::worker) fn due(&mut self, now: Instant) {
        while let Some(pending) = self.refused.pop(now) {
            self.pending.push_back(pending);
        }
    }

    /// The next batch to record, in order.
    pub(in crate::worker) fn next_batch(&mut self, table: &Table, now: Instant) -> Option<(Vec<Pending>, Vec<Finish>)> {
        // Of a task that was granted anew meanwhile the newer run decides.
        while self.pending.front().is_some_and(|pending| table.get(&pending.run).is_none()) {
            self.pending.pop_front();
        }
        let mut bytes = 0;
        let fits = |pending: &&Pending| {
            bytes += pending.end.bytes();
            bytes <= FINISH_BATCH_BYTES
        };
        let count = self.pending.iter().take(FINISH_BATCH).take_while(fits).count();
        let count = count.max(1).min(self.pending.len());
        let mut batch = (Vec::with_capacity(count), Vec::with_capacity(count));
        for pending in self.pending.drain(..count) {
            let Some(run) = table.get(&pending.run) else { continue };
            batch.1.push(Finish {
                lease: run.lease(now),
                end: Arc::clone(&pending.end),
                reply_to: run.job.envelope.reply_to.clone(),
                ttl_ms: outcome::ttl_ms(&run.job.options(), &self.plan.options, pending.outcome.result()),
            });
            batch.0.push(pending);
        }
        (!batch.0.is_empty()).then_some(batch)
    }

    /// When [`due`](Self::due) has to be called although nothing happens.
    pub(in crate::worker) fn next_due(&self) -> Option<Instant> {
        self.refused.next()
    }

    /// The store did not answer: the ends are recorded when it does.
    pub(in crate::worker) fn unanswered(
        &mut self, batch: Vec<Pending>, error: &StoreError, table: &mut Table, out: &mut Effects,
    ) {
        warn!(event = "results_held", worker = %self.worker, tasks = batch.len(), %error, "they are written when it is back");
        for pending in batch.into_iter().rev() {
            if let Some(pending) = self.failed_to_record(pending, error, table, out) {
                self.pending.push_front(pending);
            }
        }
    }

    /// An end could not be recorded. Returns it, to be tried again; `None`: it is a task that could not be given back so
    /// often that it is left to its lease.
    fn failed_to_record(
        &self, mut pending: Pending, error: &StoreError, table: &mut Table, out: &mut Effects,
    ) -> Option<Pending> {
        // A store that takes no writes lets nobody else claim the task either.
        pending.failures += u32::from(!matches!(error, StoreError::WritesRefused { .. }));
        match pending.outcome {
            Outcome::GivenBack(delay) if pending.failures >= GIVE_BACK_ATTEMPTS => {
                warn!(event = "hand_back_failed", worker = %self.worker, task_id = %pending.run.task.shown(), %error,
                    "its lease ends in a few seconds");
                if let Some(run) = table.remove(&pending.run) {
                    ask_after(&run, delay, out);
                }
                None
            }
            _ => Some(pending),
        }
    }

    /// The store has answered.
    pub(in crate::worker) fn answered(
        &mut self, batch: Vec<Pending>, answers: Vec<Result<Finished, StoreError>>, table: &mut Table, now: Now,
        out: &mut Effects,
    ) {
        let mut given_back = 0;
        // In a cluster, of those whose master is away.
        let mut held: Option<(usize, StoreError)> = None;
        for (pending, answer) in batch.into_iter().zip(answers) {
            match answer {
                Ok(Finished::Revoking) => {
                    // The revocation came before this end: the run ends as revoked instead.
                    if let Some(run) = table.get_mut(&pending.run) {
                        self.run_ended(run, Ended::Revoked, now.ms);
                    }
                }
                Ok(answer) => {
                    // Absent if the task was granted anew meanwhile: then the newer run decides.
                    let Some(run) = table.remove(&pending.run) else { continue };
                    let is_given_back = matches!(pending.outcome, Outcome::GivenBack(_));
                    given_back += usize::from(is_given_back);
                    match answer {
                        Finished::Stale if !is_given_back => self.stale(&run, out),
                        _ => self.recorded(&run, pending.outcome, now, out),
                    }
                }
                Err(error) => {
                    if error.is_outage() {
                        held.get_or_insert_with(|| (0, error.clone())).0 += 1;
                    } else {
                        error!(event = "result_refused", worker = %self.worker, task_id = %pending.run.task.shown(), %error,
                            "it is held until this is fixed");
                    }
                    if let Some(pending) = self.failed_to_record(pending, &error, table, out) {
                        self.refused.set(now.at, REFUSED_DELAY, pending);
                    }
                }
            }
        }
        if let Some((tasks, error)) = held {
            warn!(event = "results_held", worker = %self.worker, tasks, %error, "they are written when it is back");
        }
        if given_back > 0 {
            info!(event = "tasks_handed_back", worker = %self.worker, tasks = given_back, "handed back");
        }
    }

    /// Another run has the task, or had it: what this one did is not recorded. The store says what becomes of the record.
    fn stale(&self, run: &Run, out: &mut Effects) {
        warn!(event = "outcome_stale", worker = %self.worker, task_id = %run.id.task.shown(), task = %Escaped(&run.job.ask.task),
            token = run.id.token, "this run had lost its lease; its outcome is dropped");
        out.extend(run.jobs().cloned().map(Effect::Ask));
    }

    /// Readers can see the end. Says what follows.
    fn recorded(&mut self, run: &Run, outcome: Outcome, now: Now, out: &mut Effects) {
        let job = &run.job;
        match outcome {
            Outcome::Succeeded(_) => {
                self.log_end(run, now.at, None);
                out.extend(run.jobs().map(|job| Effect::Complete(job.at)));
            }
            Outcome::Revoked(failure) => {
                self.processed += 1;
                info!(event = "task_revoked", worker = %self.worker, task_id = %run.id.task.shown(), task = %Escaped(&job.ask.task),
                    queue = %job.ask.queue, attempt = job.ask.attempt, kind = %failure.kind, by = "run", "task revoked");
                out.extend(run.jobs().map(|job| Effect::Complete(job.at)));
            }
            Outcome::Failed(failure) => {
                self.log_end(run, now.at, Some(&failure));
                let at = positions(run);
                out.push_back(Effect::DeadLetter(DeadLetter {
                    job: Arc::clone(job),
                    failure,
                    deliveries: run.deliveries,
                    at,
                }));
            }
            Outcome::Retry { attempt, due, failure } => {
                warn!(event = "task_retrying", worker = %self.worker, task_id = %run.id.task.shown(), task = %Escaped(&job.ask.task),
                    queue = %job.ask.queue, attempt = job.ask.attempt, kind = %failure.kind, error = failure.logged(),
                    in_ms = due.saturating_sub(now.ms), "attempt failed; the next one follows");
                goes_on(run, attempt, due, None, Some(Arc::new(failure)), now, out);
            }
            Outcome::Waits { due } => {
                info!(event = "task_parked", worker = %self.worker, task_id = %run.id.task.shown(), task = %Escaped(&job.ask.task),
                    queue = %job.ask.queue, attempt = job.ask.attempt, in_ms = due.saturating_sub(now.ms),
                    "task waits for its time");
                goes_on(run, job.ask.attempt, due, None, job.envelope.last_error.clone(), now, out);
            }
            // The log has said that its name is unknown.
            Outcome::Unknown { due, since, .. } => {
                goes_on(run, job.ask.attempt, due, Some(since), job.envelope.last_error.clone(), now, out);
            }
            Outcome::GivenBack(delay) => ask_after(run, delay, out),
        }
    }

    fn log_end(&mut self, run: &Run, now: Instant, failure: Option<&Failure>) {
        self.processed += 1;
        let Job { ask, .. } = &*run.job;
        let took_ms = run.phase.started().map_or(0, |at| millis(now.saturating_duration_since(at)));
        match failure {
            None => {
                info!(event = "task_succeeded", worker = %self.worker, task_id = %run.id.task.shown(), task = %Escaped(&ask.task),
                queue = %ask.queue, attempt = ask.attempt, took_ms, "task succeeded")
            }
            Some(failure) => {
                self.failed += 1;
                warn!(event = "task_failed", worker = %self.worker, task_id = %run.id.task.shown(), task = %Escaped(&ask.task),
                    queue = %ask.queue, attempt = ask.attempt, took_ms, kind = %failure.kind, error = failure.logged(),
                    "task failed");
            }
        }
    }
}

fn ask_after(run: &Run, delay: Duration, out: &mut Effects) {
    out.extend(run.jobs().cloned().map(|job| Effect::AskAfter(job, delay)));
}

fn positions(run: &Run) -> Vec<Position> {
    run.jobs().map(|job| job.at).collect()
}

/// The task has another run at a later time. Usually another record asks for it. With an ordering key the same record does, so
/// that those behind it wait.
fn goes_on(
    run: &Run, attempt: u32, due: u64, unknown_since: Option<u64>, error: Option<Arc<Failure>>, now: Now,
    out: &mut Effects,
) {
    let limit_slot = run.limits.slot;
    if run.job.envelope.ordering_key.is_none() {
        let error = error.map(|failure| failure.to_json().into());
        let (job, at) = (Arc::clone(&run.job), positions(run));
        return out.push_back(Effect::PublishNext(NextRecord {
            job,
            attempt,
            due,
            limit_slot,
            unknown_since,
            error,
            at,
        }));
    }
    let wait = Duration::from_millis(due.saturating_sub(now.ms));
    for job in run.jobs() {
        let mut job = job.at_attempt(attempt);
        // Should the store forget it meanwhile, it still waits.
        job.envelope.eta = Some(due);
        job.envelope.last_error.clone_from(&error);
        job.envelope.limit_slot = limit_slot;
        job.envelope.unknown_since = unknown_since;
        out.push_back(Effect::WaitInPlace(Box::new(job), wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::effect::Grant;

    fn granted(table: &mut Table, task: &str, token: u64, now: Instant) -> RunId {
        let job = Arc::new(Job::for_test(&format!(r#"{{"task-id":"{task}","task":"noop","args":[]}}"#)));
        let run = Run::new(Grant { job, token, deliveries: 0, sent: now }, Phase::Ready, now);
        let id = run.id.clone();
        table.insert(run);
        id
    }

    fn end(completer: &mut Completer, table: &mut Table, run: &RunId) {
        completer.run_ended(table.get_mut(run).unwrap(), Ended::Returned(Ok("1".to_owned())), 0);
    }

    #[test]
    fn a_refused_end_is_sent_again_after_its_wait_and_wakes_the_loop_once() {
        let (now, mut table) = (Instant::now(), Table::default());
        let mut completer = Completer::new(&"w".into(), &Arc::new(Plan::for_test()));
        let run = granted(&mut table, "t", 7, now);
        end(&mut completer, &mut table, &run);
        let (batch, _) = completer.next_batch(&table, now).unwrap();
        let answers = vec![Err(StoreError::Refused("no".to_owned()))];
        completer.answered(batch, answers, &mut table, Now { at: now, ms: 0 }, &mut Effects::new());
        let due = now + REFUSED_DELAY;
        assert!(completer.next_batch(&table, now).is_none() && !completer.is_empty());
        assert_eq!(completer.next_due(), Some(due));
        completer.due(due);
        assert_eq!(completer.next_due(), None, "even while a call is under way");
        assert_eq!(completer.next_batch(&table, due).unwrap().0.len(), 1);
    }

    #[test]
    fn the_end_of_a_run_that_another_one_followed_is_dropped_and_delays_no_other() {
        let (now, mut table) = (Instant::now(), Table::default());
        let mut completer = Completer::new(&"w".into(), &Arc::new(Plan::for_test()));
        let (lost, other) = (granted(&mut table, "a", 1, now), granted(&mut table, "b", 2, now));
        end(&mut completer, &mut table, &lost);
        end(&mut completer, &mut table, &other);
        granted(&mut table, "a", 3, now);
        let (batch, finishes) = completer.next_batch(&table, now).unwrap();
        assert_eq!((batch.len(), &batch[0].run, finishes[0].lease.held.token), (1, &other, 2));
        assert!(completer.is_empty());
    }
}
