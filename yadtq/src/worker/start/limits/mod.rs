//! Whether limited tasks may start, between their claim and their slot.
//!
//! ```text
//!  granted ──► limits ──► slot                     within the limits
//!                 └─────► waits (scheduler)        not yet: the time of its turn travels in the record, as `limit-slot`
//! ```
//! As with claims, one batch is under way at a time, and the next goes when it is back. Tasks without a limit never come
//! here. A permit to run among the tasks that run at once is kept with the lease, and returned when it is dropped, however a
//! run ends.
//!
//! **A limited task is rescheduled until its turn**, or for ten minutes and more if that is later, so ten thousand that wait do
//! not churn. The rate itself is held by the times of actual starts: a turn that is used late (a full queue, a dead scheduler)
//! must neither be lost again and again nor let many start together. The time of the turn travels in the record; forged or
//! lost, it costs a wait, never a start too many (`core/limits/`). For that reason `admit` alone may answer otherwise when it
//! is sent twice.
//!
//! **A limit that is used up holds up nothing else.** A task that will have to wait takes no room when it is claimed, and does
//! not count among those that are about to start. That is known by limit, so by the value of a `limit_key`.
//!
//! **What waits for `max_running` asks again, in turn.** Nobody wakes it, because what would have to be woken is in Kafka.
//! The retries of a limit are 5 ms apart, so that they cost the same however many tasks wait.
//!
//! A task that has crashed a worker is not rescheduled, because that would make a fresh task of it: it is given back, and
//! this worker asks again.

mod question;
mod recent_waits;

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, error};

pub(super) use self::question::is_limited;
pub(in crate::worker) use self::question::{Answer, Question, after_permits, after_rates, permits, rates};
use self::{
    question::{JobLimits, RateWait},
    recent_waits::RecentWaits,
};
use crate::{
    core::names::WorkerId,
    store::{PermitKey, PermitRequest, StoreError},
    worker::{
        effect::{Effect, Effects, Ended, Now, due_after},
        job::{Job, RunId},
        options::Plan,
        runs::{Runs, permit::Permit, run::Phase, table::Table},
    },
};

/// The most tasks per call. While this many wait for an answer, no more tasks are claimed.
const ADMIT_BATCH: usize = 512;
/// The longest time after which a task that was given back for its limits is claimed again.
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(60);
/// How long a task waits if the store refuses to answer for its limits.
const REFUSED_DELAY: Duration = Duration::from_secs(1);

/// The runs that ask, and the permits that are returned.
pub(in crate::worker) struct Limits {
    worker: WorkerId,
    plan: Arc<Plan>,
    /// Runs that wait for the next batch, and whether each is likely to start.
    waiting: Vec<(RunId, bool)>,
    /// Number of runs, of those that wait or ask, that are likely to start.
    may_start: usize,
    had_to_wait: RecentWaits,
    /// Where permits go that are dropped.
    returns: mpsc::UnboundedSender<PermitKey>,
    returned: mpsc::UnboundedReceiver<PermitKey>,
}

impl Limits {
    pub(in crate::worker) fn new(worker: &WorkerId, plan: &Arc<Plan>) -> Self {
        let (returns, returned) = mpsc::unbounded_channel();
        Self {
            worker: Arc::clone(worker),
            plan: Arc::clone(plan),
            waiting: Vec::new(),
            may_start: 0,
            had_to_wait: RecentWaits::default(),
            returns,
            returned,
        }
    }

    /// Whether a whole batch waits, so that no more tasks are to be claimed.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= ADMIT_BATCH
    }

    /// Number of runs that wait for an answer, and are likely to start.
    pub(in crate::worker) fn pending(&self) -> usize {
        self.may_start
    }

    /// Whether no returned permit is left that the store does not know of.
    pub(in crate::worker) fn has_returned_all(&self) -> bool {
        self.returned.is_empty()
    }

    /// Whether a task takes no slot, because it will have to wait like others before it.
    pub(super) fn will_wait(&self, job: &Job, now: Instant) -> bool {
        if job.envelope.limit_slot.is_some() || !self.had_to_wait.has_any(now) {
            return false;
        }
        JobLimits::of(&self.plan, job)
            .is_some_and(|limits| limits.names(job).into_iter().flatten().any(|name| self.had_to_wait.has(&name, now)))
    }

    /// The run asks with the next batch.
    pub(in crate::worker) fn ask(&mut self, run: RunId, job: &Job, now: Instant) {
        self.ask_again(run, !self.will_wait(job, now));
    }

    fn ask_again(&mut self, run: RunId, is_likely: bool) {
        self.may_start += usize::from(is_likely);
        self.waiting.push((run, is_likely));
    }

    /// The next batch of questions.
    pub(in crate::worker) fn next_batch(&mut self, table: &Table) -> Vec<Question> {
        let count = self.waiting.len().min(ADMIT_BATCH);
        let plan = &self.plan;
        let question = |(id, is_likely): (RunId, bool)| {
            let run = table.get(&id).filter(|run| matches!(run.phase, Phase::Admission))?;
            Some(JobLimits::of(plan, &run.job)?.question(run, is_likely))
        };
        let questions: Vec<Question> = self.waiting.drain(..count).filter_map(question).collect();
        let likely = self.waiting.iter().map(|(_, is_likely)| is_likely).chain(questions.iter().map(|q| &q.is_likely));
        self.may_start = likely.filter(|&&is_likely| is_likely).count();
        questions
    }

    /// The store did not answer: the same runs ask again, or are given back by a worker that stops.
    pub(in crate::worker) fn unanswered(
        &mut self, questions: Vec<Question>, error: &StoreError, is_draining: bool, out: &mut Effects,
    ) {
        debug!(event = "limits_unanswered", worker = %self.worker, tasks = questions.len(), %error, "asking again");
        for Question { run, is_likely, .. } in questions {
            self.may_start -= usize::from(is_likely);
            match is_draining {
                true => out.push_back(Effect::End(run, Ended::GivenBack(Ended::GIVEN_BACK_DELAY))),
                false => self.ask_again(run, is_likely),
            }
        }
    }

    /// The store has answered. A run that may not start waits, or is given back.
    pub(in crate::worker) fn answered(
        &mut self, answers: Vec<(Question, Answer)>, sent: Instant, runs: &mut Runs, withheld: impl Fn(&Job) -> bool,
        now: Now, out: &mut Effects,
    ) {
        for (question, answer) in answers {
            let Question { run: id, is_likely, permit, rates } = question;
            self.may_start -= usize::from(is_likely);
            let limit = permit.as_ref().map(|permit| Arc::clone(&permit.key.limit));
            let permit = permit.filter(|permit| !permit.holds && !matches!(answer, Answer::Full(_)));
            let permit = permit.map(|PermitRequest { key, max_running, .. }| Permit {
                key,
                max_running,
                returns: self.returns.clone(),
            });
            // Gone, or ended, while this was under way: then the permit is returned here.
            let asks = runs.table.get_mut(&id).filter(|run| matches!(run.phase, Phase::Admission));
            let Some(run) = asks else { continue };
            run.limits.permit = run.limits.permit.take().or(permit);
            // An operator may have withheld the task meanwhile.
            let is_withheld = withheld(&run.job);
            let (wait, limit, in_line) = match answer {
                Answer::Start if !is_withheld => {
                    run.limits.admitted = (!rates.is_empty()).then_some(sent);
                    runs.ready(&id);
                    continue;
                }
                Answer::Start => (Duration::ZERO, None, None),
                Answer::Full(wait) => (wait, limit, None),
                Answer::Wait(RateWait { time, is_turn, limit }) => (time, Some(limit), Some(is_turn)),
                Answer::Refused(error) if error.is_outage() => {
                    debug!(event = "limits_unanswered", worker = %self.worker, tasks = 1, %error, "asking again");
                    (REFUSED_DELAY, None, None)
                }
                Answer::Refused(error) => {
                    error!(event = "limits_refused", worker = %self.worker, task_id = %id.task.shown(), %error,
                        "the task waits until this is fixed");
                    (REFUSED_DELAY, None, None)
                }
            };
            run.limits.permit = None;
            if run.deliveries > 0 || in_line.is_none() && is_withheld {
                let delay = wait.clamp(REFUSED_DELAY, LONGEST_RETRY_DELAY);
                out.push_back(Effect::End(id, Ended::GivenBack(delay)));
                continue;
            }
            let mut due = due_after(wait, now.ms);
            // Else it keeps the time that it has.
            if let Some(is_turn) = in_line {
                run.limits.slot = is_turn.then_some(due);
            }
            // Then it ends, and is not in the way of others.
            if let Some(expires) = run.job.envelope.expires.filter(|&expires| expires < due) {
                (due, run.limits.slot) = (expires, None);
            }
            if let Some(limit) = limit {
                self.had_to_wait.note(limit, now.at);
            }
            out.push_back(Effect::End(id, Ended::Waits(due)));
        }
        out.push_back(Effect::FillSlots);
    }

    /// Permits that were returned since the last call, at most a batch.
    pub(in crate::worker) fn take_returned(&mut self) -> Vec<PermitKey> {
        std::iter::from_fn(|| self.returned.try_recv().ok()).take(ADMIT_BATCH).collect()
    }

    /// The permits of runs, to be kept as their leases are.
    pub(in crate::worker) fn permits_held(table: &Table) -> Vec<PermitRequest> {
        let held =
            |permit: &Permit| PermitRequest { key: permit.key.clone(), max_running: permit.max_running, holds: true };
        table.iter().filter_map(|run| run.limits.permit.as_ref()).map(held).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{recent_waits::WILL_WAIT_PERIOD, *};
    use crate::{
        core::limits::{Arrival, Rate},
        store::RateRequest,
        task::Limits as TaskLimits,
        worker::effect::Grant,
    };

    const NOW: u64 = 1_000_000;

    /// One granted run that asks, and what becomes of it after this answer.
    fn after(answer: Answer, deliveries: u32, is_withheld: bool) -> (String, Runs, Limits) {
        after_of(r#"{"task-id":"t","task":"noop","args":[]}"#, answer, deliveries, is_withheld)
    }

    fn after_of(record: &str, answer: Answer, deliveries: u32, is_withheld: bool) -> (String, Runs, Limits) {
        let (worker, now, plan) = ("w".into(), Instant::now(), Arc::new(Plan::for_test()));
        let (mut runs, mut limits) = (Runs::new(&worker, &plan, now), Limits::new(&worker, &plan));
        let job = Arc::new(Job::for_test(record));
        let id = runs.granted(Grant { job, token: 7, deliveries, sent: now }, Phase::Admission, now);
        let key = PermitKey { limit: "task:noop".into(), run: "t/7".into() };
        let permit = Some(PermitRequest { key, max_running: 1, holds: false });
        let (task, limit) = (id.task.clone(), "task:noop".into());
        let rate = RateRequest { task, limit, rate: Rate::per_second(1), arrival: Arrival::New };
        let question = Question { run: id, is_likely: false, permit, rates: vec![rate] };
        let mut out = Effects::new();
        limits.answered(vec![(question, answer)], now, &mut runs, |_| is_withheld, Now { at: now, ms: NOW }, &mut out);
        let ended = out.into_iter().find_map(|effect| match effect {
            Effect::End(_, Ended::Waits(due)) => Some(format!("waits +{}", due - NOW)),
            Effect::End(_, Ended::GivenBack(delay)) => Some(format!("given back {delay:?}")),
            _ => None,
        });
        (ended.unwrap_or_else(|| "ready".to_owned()), runs, limits)
    }

    fn turn(time: Duration) -> Answer {
        Answer::Wait(RateWait { time, is_turn: true, limit: "task:noop".into() })
    }

    #[test]
    fn a_run_that_may_start_keeps_its_permit_and_any_other_returns_it() {
        let secs = Duration::from_secs;
        for (answer, deliveries, is_withheld, outcome, keeps) in [
            (Answer::Start, 0, false, "ready", true),
            (Answer::Start, 0, true, "given back 1s", false),
            (turn(secs(5)), 0, false, "waits +5000", false),
            (turn(secs(5)), 0, true, "waits +5000", false),
            (turn(secs(5)), 1, false, "given back 5s", false),
            (turn(secs(500)), 1, false, "given back 60s", false),
            (Answer::Refused(StoreError::Refused("no".to_owned())), 0, false, "waits +1000", false),
        ] {
            let name = format!("{answer:?}, {deliveries} crashes, withheld: {is_withheld}");
            let (ended, runs, mut limits) = after(answer, deliveries, is_withheld);
            assert_eq!(ended, outcome, "{name}");
            assert_eq!(limits.take_returned().is_empty(), keeps, "{name}");
            assert_eq!(runs.table.iter().next().unwrap().limits.permit.is_some(), keeps, "{name}");
        }
    }

    #[test]
    fn the_time_of_a_turn_is_kept_by_the_run_and_no_other() {
        let slot = |answer| after(answer, 0, false).1.table.iter().next().unwrap().limits.slot;
        let early = RateWait { time: Duration::from_secs(5), is_turn: false, limit: "task:noop".into() };
        assert_eq!(slot(turn(Duration::from_secs(5))), Some(NOW + 5_000));
        assert_eq!(slot(Answer::Full(Duration::from_secs(5))), None);
        assert_eq!(slot(Answer::Wait(early)), None);
    }

    #[test]
    fn a_task_that_expires_before_its_turn_waits_no_longer_than_that() {
        let record = format!(r#"{{"task-id":"t","task":"noop","args":[],"expires":{}}}"#, NOW + 3_000);
        let (ended, runs, _) = after_of(&record, turn(Duration::from_secs(5)), 0, false);
        assert_eq!((&*ended, runs.table.iter().next().unwrap().limits.slot), ("waits +3000", None));
    }

    /// Runs that wait for one value of a `limit_key` delay no other: only others of the same value are expected to wait.
    #[test]
    fn only_tasks_under_the_same_limit_are_expected_to_wait() {
        let (worker, now, mut plan) = ("w".into(), Instant::now(), Plan::for_test());
        let noop = plan.tasks.get_mut("noop").unwrap();
        noop.limits = TaskLimits { rate: Some(Rate::per_hour(1)), key: Some(("user", 0)), ..TaskLimits::new() };
        let noop = noop.clone();
        let job = |user: &str| {
            let record = format!(r#"{{"task-id":"{user}","task":"noop","args":["{user}"]}}"#);
            Arc::new(Job { definition: Some(noop.clone()), ..Job::for_test(&record) })
        };
        let plan = Arc::new(plan);
        let (mut runs, mut limits) = (Runs::new(&worker, &plan, now), Limits::new(&worker, &plan));
        let mut ask = |limits: &mut Limits, user: &str, token| {
            let id = runs.granted(Grant { job: job(user), token, deliveries: 0, sent: now }, Phase::Admission, now);
            limits.ask(id, &job(user), now);
            limits.next_batch(&runs.table)
        };
        let questions = ask(&mut limits, "ada", 1);
        assert_eq!(limits.pending(), 1);
        let answered = questions.into_iter().map(|question| {
            let limit = Arc::clone(&question.rates[0].limit);
            (question, Answer::Wait(RateWait { time: Duration::from_secs(5), is_turn: true, limit }))
        });
        let (answered, mut out) = (answered.collect(), Effects::new());
        let mut nothing = Runs::new(&worker, &plan, now);
        let id = nothing.granted(Grant { job: job("ada"), token: 1, deliveries: 0, sent: now }, Phase::Admission, now);
        assert!(nothing.table.get(&id).is_some());
        limits.answered(answered, now, &mut nothing, |_| false, Now { at: now, ms: NOW }, &mut out);
        assert_eq!(limits.pending(), 0);
        assert!(limits.will_wait(&job("ada"), now) && !limits.will_wait(&job("bob"), now));
        ask(&mut limits, "ada", 2);
        assert_eq!(limits.pending(), 0, "it will wait too, and takes no slot from others");
        ask(&mut limits, "bob", 3);
        assert_eq!(limits.pending(), 1);
        assert!(!limits.will_wait(&job("ada"), now + WILL_WAIT_PERIOD));
    }
}
