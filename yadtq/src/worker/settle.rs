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
        lifecycle::{HandOn, Outcome, Status, Token, Verdict},
        names::TaskId,
    },
    store::{Completion, StoreError, ttl},
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
    outcome: Arc<Outcome>,
    failure: Option<Failure>,
}

/// A batch of ends, and its answers.
pub(super) struct Settling {
    endings: Vec<Ending>,
    answers: Result<Vec<Result<Verdict, StoreError>>, StoreError>,
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
                    self.fail(id, token, fail(ErrorKind::Result, message), None);
                }
                Ended::Returned(Err(error)) => self.fail(id, token, fail(error.kind, error.message), None),
                Ended::Arguments(error) => {
                    self.fail(id, token, fail(ErrorKind::Arguments, error.to_string()), Some(HandOn::Dead));
                }
                Ended::Panicked(message) => self.fail(id, token, fail(ErrorKind::Panic, message), None),
                Ended::TimedOut(after) => {
                    self.fail(id, token, fail(ErrorKind::Timeout, format!("not done after {after:?}")), None);
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
        self.endings.push_back(Ending { id, token, outcome: Arc::new(outcome), failure: None });
    }

    fn fail(&mut self, id: TaskId, token: Token, failure: Failure, hand_on: Option<HandOn>) {
        let error = Some(failure.to_json().into());
        let outcome = Outcome { status: Status::Failure, result: None, error, hand_on };
        self.endings.push_back(Ending { id, token, outcome: Arc::new(outcome), failure: Some(failure) });
    }

    /// It ends without having succeeded or failed.
    pub(super) fn end_revoked(&mut self, id: TaskId, token: Token, kind: ErrorKind, reason: &str) {
        let Some(run) = self.runs.get(&id) else { return };
        let failure = Failure::new(kind, reason.to_owned(), run.job.ask.attempt);
        let error = Some(failure.to_json().into());
        let outcome = Outcome { status: Status::Revoked, result: None, error, hand_on: None };
        self.endings.push_back(Ending { id, token, outcome: Arc::new(outcome), failure: Some(failure) });
    }

    /// Nobody who knows the task came in time.
    pub(super) fn unknown(&mut self, id: TaskId, token: Token) {
        let Some(run) = self.runs.get(&id) else { return };
        let message = format!("no worker of queue {} has a task named `{}`", run.job.ask.queue, run.job.ask.task);
        let failure = Failure::new(ErrorKind::UnknownTask, message, run.job.ask.attempt);
        self.fail(id, token, failure, Some(HandOn::Dead));
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
        let completion = |ending: &Ending| {
            let run = ending.run(&self.runs)?;
            let (lease, outcome) = (run.lease(), Arc::clone(&ending.outcome));
            // Never shorter than a redelivery may take.
            let ttl_ms = millis(run.result_ttl(self.plan.options.result_ttl)).max(ttl::MARKER);
            Some(Completion { lease, outcome, reply_to: run.job.envelope.reply_to.clone(), ttl_ms })
        };
        let completions: Vec<Completion> = endings.iter().filter_map(completion).collect();
        let store = Arc::clone(&self.store);
        self.settling = true;
        self.calls.push(Box::pin(async move {
            let answers = store.complete(&completions).await;
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
                Ok(verdict) => {
                    // Absent if the task was granted anew meanwhile: then the newer run decides.
                    let Some(run) = ending.run(&self.runs) else { continue };
                    let token = run.token;
                    let Some(run) = self.runs.remove(&ending.id) else { continue };
                    match verdict {
                        Verdict::Recorded => self.recorded(&run, &ending),
                        Verdict::Stale => self.stale(&run, token),
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
        let Job { ask, envelope, at, record, .. } = &*run.job;
        let took_ms = run.started.map_or(0, |at| millis(at.elapsed()));
        self.processed += 1;
        match &ending.failure {
            None => info!(event = "task_succeeded", worker = %self.id, task_id = %ending.id, task = %ask.task,
                queue = %ask.queue, attempt = ask.attempt, took_ms, "task succeeded"),
            Some(failure) if ending.outcome.status == Status::Revoked => {
                info!(event = "task_revoked", worker = %self.id, task_id = %ending.id, task = %ask.task,
                    queue = %ask.queue, attempt = ask.attempt, kind = %failure.kind, "task revoked");
            }
            Some(failure) => {
                self.failed += 1;
                warn!(event = "task_failed", worker = %self.id, task_id = %ending.id, task = %ask.task,
                    queue = %ask.queue, attempt = ask.attempt, took_ms, kind = %failure.kind, error = failure.logged(), "task failed");
            }
        }
        let all: Vec<Position> = run.jobs().map(|job| job.at).collect();
        match (&ending.outcome.hand_on, &ending.failure) {
            (Some(HandOn::Dead), Some(failure)) => {
                self.bury_failed(envelope, *at, record.clone(), all, failure, run.deliveries);
            }
            _ => all.into_iter().for_each(|at| self.complete_offset(at)),
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

impl Ending {
    pub(super) fn is(&self, id: &TaskId, token: Token) -> bool {
        self.token == token && self.id == *id
    }

    fn bytes(&self) -> usize {
        let Outcome { result, error, .. } = &*self.outcome;
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
