//! What becomes of a task whose run has ended, or will not start: one pure function of how it ended and its facts.
//!
//! ```text
//!  Ended ──► Outcome:  Succeeded · Failed · Revoked · Retry · Waits · GivenBack
//!                        └─► End (what the store records) ──► what follows (completer.rs)
//! ```

use std::{sync::Arc, time::Duration};

use super::reschedule;
use crate::{
    clock::millis,
    core::{lifecycle::End, text::Escaped},
    store::ttl,
    task::{Steer, TaskError},
    wire::{
        envelope::MAX_SEQ,
        failure::{ErrorKind, Failure},
        record::TaskOptions,
    },
    worker::{
        effect::{Ended, due_after},
        job::Job,
        options::Options,
    },
};

/// What the error of an expired task says.
const EXPIRED: &str = "it expired before it could run";
/// What the error of a revoked task says.
const REVOKED: &str = "it was asked to end";
/// What the error of a purged task says.
const PURGED: &str = "its queue was purged";

/// The facts that decide besides how the run ended.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) job: &'a Job,
    pub(super) options: &'a Options,
    pub(super) now_ms: u64,
    /// A random number, which spreads retries.
    pub(super) random: u64,
}

/// What becomes of the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has ended with this JSON text, if that is kept.
    Succeeded(Option<Arc<str>>),
    /// It has failed for good; a dead letter follows.
    Failed(Failure),
    /// It has ended without having succeeded or failed.
    Revoked(Failure),
    /// It is tried again, as this attempt, when it is due (in ms since the Unix epoch).
    Retry { attempt: u32, due: u64, failure: Failure },
    /// The same attempt is made when it is due (in ms since the Unix epoch).
    Waits { due: u64 },
    /// The same attempt is made when it is due, if it finds a worker that knows its name. It has waited for one since this
    /// time (in ms since the Unix epoch).
    Unknown { due: u64, since: u64, failure: Failure },
    /// Any worker may claim it; this one claims it again after this time.
    GivenBack(Duration),
}

/// The shortest and the longest pause of a task that no worker knows, in ms: it waits for as long as it has waited already.
const SHORTEST_UNKNOWN_PAUSE_MS: u64 = 1_000;
const LONGEST_UNKNOWN_PAUSE_MS: u64 = 60_000;

/// What somebody has set: the sender, the task or the worker.
fn result_ttl(task: &TaskOptions, worker: &Options) -> Option<Duration> {
    task.result_ttl.or(worker.result_ttl)
}

/// How long an end is kept, in ms: never shorter than the redelivery of its record may take. `result`: what the task has
/// returned, if it has succeeded. One that says nothing is worth no more than a mark that the task has ended.
pub(super) fn ttl_ms(task: &TaskOptions, worker: &Options, result: Option<&str>) -> u64 {
    let default = if result == Some("null") { ttl::MARKER } else { ttl::RESULT };
    result_ttl(task, worker).map_or(default, millis).max(ttl::MARKER)
}

/// Decides what becomes of a task. One that can't go on under another record fails instead.
pub(super) fn decide(ended: Ended, facts: &Facts<'_>) -> Outcome {
    let job = facts.job;
    match decide_whatever_seq(ended, facts) {
        Outcome::Retry { .. } | Outcome::Waits { .. } | Outcome::Unknown { .. }
            if job.ask.seq >= MAX_SEQ && job.envelope.ordering_key.is_none() =>
        {
            let message = "the `seq` of its record can't grow any more".to_owned();
            Outcome::Failed(Failure::new(ErrorKind::Unpublishable, message, job.ask.attempt))
        }
        outcome => outcome,
    }
}

fn decide_whatever_seq(ended: Ended, facts: &Facts<'_>) -> Outcome {
    let Facts { job, options, now_ms, .. } = *facts;
    let ask = &job.ask;
    let failure = |kind, message: String| Failure::new(kind, message, ask.attempt);
    match ended {
        Ended::Returned(Ok(json)) if json.len() > options.max_result_bytes => {
            let (len, max) = (json.len(), options.max_result_bytes);
            let message = format!("the result has {len} bytes, more than this worker's limit of {max}");
            Outcome::Failed(failure(ErrorKind::Result, message))
        }
        Ended::Returned(Ok(json)) => {
            let is_kept = result_ttl(&job.options(), options).is_none_or(|ttl| !ttl.is_zero());
            Outcome::Succeeded(is_kept.then(|| json.into()))
        }
        Ended::Returned(Err(TaskError { steer: Steer::Snooze(time), .. })) => {
            Outcome::Waits { due: due_after(time, now_ms) }
        }
        Ended::Returned(Err(TaskError { kind, message, steer })) => fail_or_retry(failure(kind, message), steer, facts),
        Ended::Arguments(error) => Outcome::Failed(failure(ErrorKind::Arguments, error.to_string())),
        Ended::Panicked(message) => fail_or_retry(failure(ErrorKind::Panic, message), Steer::Policy, facts),
        Ended::TimedOut(after) => {
            let failure = failure(ErrorKind::Timeout, format!("not done after {after:?}"));
            fail_or_retry(failure, Steer::Policy, facts)
        }
        Ended::UnknownTask => {
            // In a rolling deploy, another worker will know it. It has made no attempt.
            let message = format!("no worker of queue {} has a task named `{}`", ask.queue, Escaped(&ask.task));
            let failure = failure(ErrorKind::UnknownTask, message);
            let since = job.envelope.unknown_since.unwrap_or(now_ms);
            let waited = now_ms.saturating_sub(since);
            if waited >= millis(options.unknown_task_window) {
                return Outcome::Failed(failure);
            }
            let pause = waited.clamp(SHORTEST_UNKNOWN_PAUSE_MS, LONGEST_UNKNOWN_PAUSE_MS);
            Outcome::Unknown { due: due_after(Duration::from_millis(pause), now_ms), since, failure }
        }
        Ended::Disabled => {
            Outcome::Failed(failure(ErrorKind::Disabled, format!("an operator has disabled `{}`", ask.task)))
        }
        Ended::Revoked => Outcome::Revoked(failure(ErrorKind::Revoked, REVOKED.to_owned())),
        Ended::Purged => Outcome::Revoked(failure(ErrorKind::Purged, PURGED.to_owned())),
        Ended::Expired => Outcome::Revoked(failure(ErrorKind::Expired, EXPIRED.to_owned())),
        Ended::Waits(due) => Outcome::Waits { due },
        Ended::GivenBack(delay) => Outcome::GivenBack(delay),
        // The application's runtime is gone, or going.
        Ended::Dropped => Outcome::GivenBack(Ended::GIVEN_BACK_DELAY),
    }
}

/// An attempt failed: it is made again, unless there is none left or the error says that there is no point.
fn fail_or_retry(failure: Failure, steer: Steer, facts: &Facts<'_>) -> Outcome {
    let attempt = facts.job.ask.attempt;
    let retry = facts.job.options().retry.or(facts.options.retry);
    if steer == Steer::Fatal || attempt > retry.retries() {
        return Outcome::Failed(failure);
    }
    let due = reschedule::retry_due(retry, attempt, steer, facts.random, facts.now_ms);
    Outcome::Retry { attempt: attempt + 1, due, failure }
}

impl Outcome {
    /// What the task has returned, if it has succeeded and that is kept.
    pub(super) fn result(&self) -> Option<&str> {
        if let Self::Succeeded(result) = self { result.as_deref() } else { None }
    }

    /// What the store is to record.
    pub(super) fn end(&self, job: &Job) -> End {
        let error = |failure: &Failure| -> Arc<str> { failure.to_json().into() };
        let end = match self {
            Self::Succeeded(result) => End::succeeded(result.clone()),
            Self::Failed(failure) => End::failed(error(failure)),
            Self::Revoked(failure) => End::revoked(error(failure)),
            Self::Retry { attempt, due, failure } => End::retry(*attempt, *due, error(failure)),
            // The attempt that follows still wants to know why the one before it failed.
            Self::Waits { due } => End::snooze(job.ask.attempt, *due, job.envelope.last_error.as_deref().map(error)),
            Self::Unknown { due, failure, .. } => End::snooze(job.ask.attempt, *due, Some(error(failure))),
            Self::GivenBack(_) => End::given_back(),
        };
        if job.envelope.ordering_key.is_some() { end.in_place() } else { end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::retry::Retry, task::ArgsError};

    const NOW: u64 = 1_000_000;

    fn job(attempt: u32) -> Job {
        Job::for_test(&format!(r#"{{"task-id":"t","task":"add","args":[],"attempt":{attempt}}}"#))
    }

    fn options() -> Options {
        let retry = Retry::new().max(2).base(Duration::from_secs(1)).cap(Duration::from_secs(60));
        Options { retry, max_result_bytes: 10, ..Options::default() }
    }

    fn decided(ended: Ended, job: &Job, options: &Options) -> String {
        let facts = Facts { job, options, now_ms: NOW, random: 499 };
        match decide(ended, &facts) {
            Outcome::Succeeded(result) => format!("succeeded {result:?}"),
            Outcome::Failed(failure) => format!("failed {}", failure.kind),
            Outcome::Revoked(failure) => format!("revoked {}", failure.kind),
            Outcome::Retry { attempt, due, failure } => format!("retry {attempt} +{} {}", due - NOW, failure.kind),
            Outcome::Waits { due } => format!("waits +{}", due - NOW),
            Outcome::Unknown { due, failure, .. } => format!("waits +{} {}", due - NOW, failure.kind),
            Outcome::GivenBack(delay) => format!("given back {delay:?}"),
        }
    }

    #[test]
    fn an_unknown_task_waits_longer_each_time_until_its_window_is_over() {
        let options = Options { unknown_task_window: Duration::from_secs(600), ..options() };
        let mut job = job(9);
        for (waited, outcome) in [
            (None, "waits +1000 unknown-task"),
            (Some(0), "waits +1000 unknown-task"),
            (Some(4_000), "waits +4000 unknown-task"),
            (Some(500_000), "waits +60000 unknown-task"),
            (Some(599_999), "waits +60000 unknown-task"),
            (Some(600_000), "failed unknown-task"),
        ] {
            job.envelope.unknown_since = waited.map(|waited| NOW - waited);
            assert_eq!(decided(Ended::UnknownTask, &job, &options), outcome, "{waited:?}");
        }
        job.envelope.unknown_since = Some(NOW + 5_000);
        assert_eq!(decided(Ended::UnknownTask, &job, &options), "waits +1000 unknown-task", "of another clock");
        let never = Options { unknown_task_window: Duration::ZERO, ..options };
        assert_eq!(decided(Ended::UnknownTask, &job, &never), "failed unknown-task");
    }

    #[test]
    fn each_end_of_a_first_attempt() {
        let (job, options) = (job(1), options());
        let error = |error: TaskError| Ended::Returned(Err(error));
        let secs = Duration::from_secs;
        for (ended, outcome) in [
            (Ended::Returned(Ok("3".to_owned())), r#"succeeded Some("3")"#),
            (Ended::Returned(Ok("\"too long\" ".to_owned())), "failed result"),
            (error(TaskError::new("busy").kind("bank")), "retry 2 +999 bank"),
            (error(TaskError::retry_after("busy", secs(30))), "retry 2 +30000 error"),
            (error(TaskError::fatal("no")), "failed error"),
            (error(TaskError::snooze(secs(5))), "waits +5000"),
            (error(TaskError::snooze(Duration::ZERO)), "waits +0"),
            (Ended::Panicked("boom".to_owned()), "retry 2 +999 panic"),
            (Ended::TimedOut(secs(9)), "retry 2 +999 timeout"),
            (Ended::UnknownTask, "waits +1000 unknown-task"),
            (Ended::Disabled, "failed disabled"),
            (Ended::Revoked, "revoked revoked"),
            (Ended::Purged, "revoked purged"),
            (Ended::Expired, "revoked expired"),
            (Ended::Waits(NOW + 7), "waits +7"),
            (Ended::GivenBack(secs(1)), "given back 1s"),
            (Ended::Dropped, "given back 100ms"),
        ] {
            let name = format!("{ended:?}");
            assert_eq!(decided(ended, &job, &options), outcome, "{name}");
        }
    }

    #[test]
    fn the_last_attempt_fails_whatever_its_error_says_but_a_snooze() {
        let (job, options) = (job(3), options());
        let error = |error: TaskError| Ended::Returned(Err(error));
        assert_eq!(decided(error(TaskError::new("busy")), &job, &options), "failed error");
        assert_eq!(decided(error(TaskError::retry_after("busy", Duration::ZERO)), &job, &options), "failed error");
        assert_eq!(decided(Ended::Panicked("boom".to_owned()), &job, &options), "failed panic");
        assert_eq!(decided(error(TaskError::snooze(Duration::ZERO)), &job, &options), "waits +0");
    }

    #[test]
    fn a_task_whose_seq_cannot_grow_fails_where_it_would_go_on() {
        let record = |seq: u64, more: &str| {
            Job::for_test(&format!(r#"{{"task-id":"t","task":"add","args":[],"seq":{seq}{more}}}"#))
        };
        let retry = || Ended::Returned(Err(TaskError::new("busy")));
        let last = record(MAX_SEQ, "");
        for ended in [retry(), Ended::Waits(NOW + 7), Ended::UnknownTask] {
            assert_eq!(decided(ended, &last, &options()), "failed unpublishable");
        }
        assert_eq!(decided(Ended::Returned(Ok("3".to_owned())), &last, &options()), r#"succeeded Some("3")"#);
        assert_eq!(decided(retry(), &record(MAX_SEQ - 1, ""), &options()), "retry 2 +999 error");
        let in_place = record(MAX_SEQ, r#","ordering-key":"k""#);
        assert_eq!(decided(retry(), &in_place, &options()), "retry 2 +999 error", "it keeps its record");
    }

    #[test]
    fn arguments_that_do_not_fit_are_never_tried_again() {
        let error = ArgsError::Missing("a");
        assert_eq!(decided(Ended::Arguments(error), &job(1), &options()), "failed arguments");
    }

    #[test]
    fn an_ignored_result_is_not_recorded() {
        let options = Options { result_ttl: Some(Duration::ZERO), ..options() };
        assert_eq!(decided(Ended::Returned(Ok("3".to_owned())), &job(1), &options), "succeeded None");
    }

    #[test]
    fn an_end_without_a_result_is_kept_for_an_hour_unless_somebody_says_otherwise() {
        let (day, hour, minute) = (ttl::RESULT, ttl::MARKER, Some(Duration::from_secs(60)));
        let week = Some(Duration::from_secs(7 * 24 * 3_600));
        for (task, worker, result, expected) in [
            (None, None, Some("3"), day),
            (None, None, Some("null"), hour),
            (None, None, None, day),
            (None, week, Some("null"), 7 * day),
            (week, minute, Some("null"), 7 * day),
            (minute, week, Some("3"), hour),
        ] {
            let task = TaskOptions { result_ttl: task, ..TaskOptions::default() };
            let worker = Options { result_ttl: worker, ..options() };
            assert_eq!(ttl_ms(&task, &worker, result), expected, "{task:?} {result:?}");
        }
    }
}
