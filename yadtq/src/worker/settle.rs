//! Records how runs ended, and completes their offsets once that is done.
//!
//! While the store is away ends are held here; no new claims are granted then, so there are never more of them
//! than slots.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{
    control::Control,
    execute::{Ended, Finish, millis},
    job::{Job, Position, Run},
    revoke::REASON,
    step::{Due, PAUSE, Step},
};
use crate::{
    core::{
        lifecycle::{HandOn, HandedOn, Next, Outcome, Status, Token, Verdict},
        names::TaskId,
    },
    store::{Answers, Completion, Handover, Store, ttl},
    task::{Steer, TaskError},
    wire::failure::{ErrorKind, Failure},
};

/// Ends per call.
const BATCH: usize = 512;

/// How long an end waits that the store refused.
const REFUSED: Duration = Duration::from_secs(1);
/// Bytes per call, unless a single one has more: what a slow network carries well within the call's timeout.
const BATCH_BYTES: usize = 4 * 1_024 * 1_024;

/// A run's end that is not recorded yet.
pub(super) struct Ending {
    id: TaskId,
    token: Token,
    end: End,
    failure: Option<Failure>,
}

/// What is to be recorded.
enum End {
    /// The task ended.
    Outcome(Arc<Outcome>),
    /// It goes on.
    Next(Arc<Next>),
}

/// A batch of ends, and its answers.
pub(super) struct Settling {
    endings: Vec<Ending>,
    answers: Answers<Told>,
}

/// What the store said to an end.
enum Told {
    Recorded,
    Stale,
    Revoking,
}

impl From<Verdict> for Told {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Recorded => Self::Recorded,
            Verdict::Stale => Self::Stale,
        }
    }
}

impl From<HandedOn> for Told {
    fn from(handed_on: HandedOn) -> Self {
        match handed_on {
            HandedOn::Recorded => Self::Recorded,
            HandedOn::Revoking => Self::Revoking,
            HandedOn::Stale => Self::Stale,
        }
    }
}

impl Control {
    /// A run ended: frees its slot, and notes what is to be recorded.
    pub(super) fn report(&mut self, finish: Finish) {
        self.slots.freed(&finish);
        let Finish { id, token, ended, .. } = finish;
        if let Some(run) = self.runs.get_mut(&id).filter(|run| run.token == token) {
            if let Some(timer) = run.timer.take() {
                self.later.try_remove(&timer);
            }
            let attempt = run.job.ask.attempt;
            if run.revoking && !matches!(ended, Ended::Returned(Ok(_))) {
                self.end_revoked(id, token, ErrorKind::Revoked, REASON);
                return self.start_granted();
            }
            let ended = if run.overrun {
                Ended::TimedOut(Duration::from_millis(run.started.map_or(0, |at| millis(at.elapsed()))))
            } else {
                ended
            };
            let fail = |kind, message| Failure::new(kind, message, attempt);
            let max = self.plan.options.max_result_bytes;
            match ended {
                Ended::Returned(Ok(json)) if json.len() <= max => self.succeed(id, token, json),
                Ended::Returned(Ok(json)) => {
                    let message =
                        format!("the result has {} bytes, more than this worker's limit of {max}", json.len());
                    self.fail(id, token, fail(ErrorKind::Result, message));
                }
                Ended::Returned(Err(TaskError { steer: Steer::Snooze(time), .. })) => self.snooze(id, token, time),
                Ended::Returned(Err(error)) => {
                    self.fail_or_retry(id, token, fail(error.kind, error.message), error.steer);
                }
                Ended::Arguments(error) => self.fail(id, token, fail(ErrorKind::Arguments, error.to_string())),
                Ended::Panicked(message) => {
                    self.fail_or_retry(id, token, fail(ErrorKind::Panic, message), Steer::Policy);
                }
                Ended::TimedOut(after) => {
                    let failure = fail(ErrorKind::Timeout, format!("not done after {after:?}"));
                    self.fail_or_retry(id, token, failure, Steer::Policy);
                }
                Ended::Dropped => self.dropped(&id),
            }
        }
        self.start_granted();
    }

    fn succeed(&mut self, id: TaskId, token: Token, json: String) {
        let default = self.plan.options.result_ttl;
        let is_kept = self.runs.get(&id).is_some_and(|run| !run.result_ttl(default).is_zero());
        let result = is_kept.then(|| json.into());
        let outcome = Outcome { status: Status::Success, result, error: None, hand_on: None };
        self.end(id, token, outcome, None);
    }

    /// It failed for good.
    pub(super) fn fail(&mut self, id: TaskId, token: Token, failure: Failure) {
        let error = Some(failure.to_json().into());
        let outcome = Outcome { status: Status::Failure, result: None, error, hand_on: Some(HandOn::Dead) };
        self.end(id, token, outcome, Some(failure));
    }

    fn end(&mut self, id: TaskId, token: Token, outcome: Outcome, failure: Option<Failure>) {
        self.endings.push_back(Ending { id, token, end: End::Outcome(Arc::new(outcome)), failure });
    }

    /// It goes on under the next `seq`; with an ordering key in its place.
    pub(super) fn go_on(&mut self, id: TaskId, token: Token, next: Next, failure: Option<Failure>) {
        let is_ordered = self.runs.get(&id).is_some_and(|run| run.job.envelope.ordering_key.is_some());
        let next = Next { in_place: is_ordered, ..next };
        self.endings.push_back(Ending { id, token, end: End::Next(Arc::new(next)), failure });
    }

    /// It ends without having succeeded or failed.
    pub(super) fn end_revoked(&mut self, id: TaskId, token: Token, kind: ErrorKind, reason: &str) {
        let Some(run) = self.runs.get(&id) else { return };
        let failure = Failure::new(kind, reason.to_owned(), run.job.ask.attempt);
        let error = Some(failure.to_json().into());
        let outcome = Outcome { status: Status::Revoked, result: None, error, hand_on: None };
        self.end(id, token, outcome, Some(failure));
    }

    /// The application's runtime is gone, or going: somebody else may have the task.
    fn dropped(&mut self, id: &TaskId) {
        let Some(run) = self.runs.remove(id) else { return };
        warn!(event = "task_dropped", worker = %self.id, task_id = %id, "dropped before it ended; handed back");
        let again = run.jobs().cloned().collect();
        self.give_back(&[run], again);
    }

    pub(super) fn pump_settling(&mut self) {
        if self.settling || self.endings.is_empty() {
            return;
        }
        let mut bytes = 0;
        let fits = |ending: &&Ending| {
            bytes += ending.bytes();
            bytes <= BATCH_BYTES
        };
        let count = self.endings.iter().take(BATCH).take_while(fits).count().max(1);
        let endings: Vec<Ending> =
            self.endings.drain(..count).filter(|ending| ending.run(&self.runs).is_some()).collect();
        let (mut completions, mut handovers) = (Vec::new(), Vec::new());
        for ending in &endings {
            let Some(run) = ending.run(&self.runs) else { continue };
            let lease = run.lease();
            match &ending.end {
                End::Next(next) => handovers.push(Handover { lease, next: Arc::clone(next) }),
                End::Outcome(outcome) => {
                    // Never shorter than a redelivery may take.
                    let ttl_ms = millis(run.result_ttl(self.plan.options.result_ttl)).max(ttl::MARKER);
                    let (outcome, reply_to) = (Arc::clone(outcome), run.job.envelope.reply_to.clone());
                    completions.push(Completion { lease, outcome, reply_to, ttl_ms });
                }
            }
        }
        let store = Arc::clone(&self.store);
        self.settling = true;
        self.calls.push(Box::pin(async move {
            let answers = settle(&*store, &endings, &completions, &handovers).await;
            if answers.is_err() {
                sleep(PAUSE).await;
            }
            Step::Settled(Settling { endings, answers })
        }));
    }

    pub(super) fn settled(&mut self, Settling { endings, answers }: Settling) {
        self.settling = false;
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                warn!(event = "results_held", worker = %self.id, tasks = endings.len(), %error, "they are written when it is back");
                endings.into_iter().rev().for_each(|ending| self.endings.push_front(ending));
                return;
            }
        };
        for (ending, answer) in endings.into_iter().zip(answers) {
            match answer {
                Ok(Told::Revoking) => self.end_revoked(ending.id, ending.token, ErrorKind::Revoked, REASON),
                Ok(told) => {
                    // Absent if the task was granted anew meanwhile: then the newer run decides.
                    let Some(run) = ending.run(&self.runs) else { continue };
                    let token = run.token;
                    let Some(run) = self.runs.remove(&ending.id) else { continue };
                    match told {
                        Told::Stale => self.stale(&run, token),
                        _ => self.recorded(&run, &ending),
                    }
                }
                Err(error) => {
                    error!(event = "result_refused", worker = %self.id, task_id = %ending.id, %error, "it is held until this is mended");
                    self.later.insert(Due::Record(ending), REFUSED);
                }
            }
        }
    }

    fn recorded(&mut self, run: &Run, ending: &Ending) {
        let all: Vec<Position> = run.jobs().map(|job| job.at).collect();
        match &ending.end {
            End::Next(next) => {
                self.log_next(run, next, ending.failure.as_ref());
                if next.in_place {
                    return self.keep_in_place(run, next, ending.failure.as_ref());
                }
                self.publish_next(&run.job, next.attempt, next.due, run.limit_slot, next.error.as_deref(), all);
            }
            End::Outcome(outcome) => {
                self.processed += 1;
                self.log_end(run, outcome.status, ending.failure.as_ref());
                match (&outcome.hand_on, &ending.failure) {
                    (Some(HandOn::Dead), Some(failure)) => {
                        self.bury_failed(&run.job, all, failure, run.deliveries);
                    }
                    _ => all.into_iter().for_each(|at| self.complete_offset(at)),
                }
            }
        }
    }

    fn log_end(&mut self, run: &Run, status: Status, failure: Option<&Failure>) {
        let Job { ask, envelope, .. } = &*run.job;
        let took_ms = run.started.map_or(0, |at| millis(at.elapsed()));
        match failure {
            None => info!(event = "task_succeeded", worker = %self.id, task_id = %envelope.id, task = %ask.task,
                queue = %ask.queue, attempt = ask.attempt, took_ms, "task succeeded"),
            Some(failure) if status == Status::Revoked => {
                info!(event = "task_revoked", worker = %self.id, task_id = %envelope.id, task = %ask.task,
                    queue = %ask.queue, attempt = ask.attempt, kind = %failure.kind, "task revoked");
            }
            Some(failure) => {
                self.failed += 1;
                warn!(event = "task_failed", worker = %self.id, task_id = %envelope.id, task = %ask.task,
                    queue = %ask.queue, attempt = ask.attempt, took_ms, kind = %failure.kind, error = failure.logged(), "task failed");
            }
        }
    }

    /// Another run has the task, or had it: what this one did is not recorded. The store says what becomes of
    /// the record.
    fn stale(&mut self, run: &Run, token: Token) {
        warn!(event = "outcome_stale", worker = %self.id, task_id = %run.job.envelope.id, task = %run.job.ask.task, token,
            "this run had lost its lease; its outcome is dropped");
        for job in run.jobs() {
            self.ask(Arc::clone(job));
        }
    }
}

/// Records ends of both kinds; the answers come in the order of the endings.
async fn settle(
    store: &dyn Store, endings: &[Ending], completions: &[Completion], handovers: &[Handover],
) -> Answers<Told> {
    let complete = async { if completions.is_empty() { Ok(Vec::new()) } else { store.complete(completions).await } };
    let hand_on = async { if handovers.is_empty() { Ok(Vec::new()) } else { store.hand_on(handovers).await } };
    let (completed, handed_on) = tokio::join!(complete, hand_on);
    let (mut completed, mut handed_on) = (completed?.into_iter(), handed_on?.into_iter());
    let told = |ending: &Ending| match ending.end {
        End::Outcome(_) => completed.next().expect("one answer a run").map(Told::from),
        End::Next(_) => handed_on.next().expect("one answer a run").map(Told::from),
    };
    Ok(endings.iter().map(told).collect())
}

impl Ending {
    pub(super) fn is(&self, id: &TaskId, token: Token) -> bool {
        self.token == token && self.id == *id
    }

    fn bytes(&self) -> usize {
        let (result, error) = match &self.end {
            End::Outcome(outcome) => (&outcome.result, &outcome.error),
            End::Next(next) => (&None, &next.error),
        };
        result.as_ref().map_or(0, |text| text.len()) + error.as_ref().map_or(0, |text| text.len())
    }

    /// The run that ended, if it is still the task's latest here.
    fn run<'a>(&self, runs: &'a std::collections::HashMap<TaskId, Run>) -> Option<&'a Run> {
        runs.get(&self.id).filter(|run| run.token == self.token)
    }
}

impl Run {
    /// How long its result is to be kept: as the record says, else the task, else the worker.
    fn result_ttl(&self, default: Duration) -> Duration {
        let asked = self.job.envelope.result_ttl_ms.map(Duration::from_millis);
        asked.or(self.job.definition.as_ref().and_then(|task| task.result_ttl)).unwrap_or(default)
    }
}
