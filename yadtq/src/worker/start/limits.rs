//! Whether limited tasks may start, between their claim and their slot.
//!
//! ```text
//!  granted ──► limits ──► slot                     within the limits
//!                 └─────► waits (scheduler)        not yet: its reserved time travels in the record, as `limit-slot`
//! ```
//! As with claims, one batch is under way at a time, and the next goes when it is back. Tasks without a limit never come
//! here. A permit to run among the tasks that run at once is kept with the lease, and returned when it is dropped, however a
//! run ends.
//!
//! **A limited task is rescheduled once.** What a rate refuses gets its own reserved time and waits until then, so ten
//! thousand that wait do not churn. The rate itself is held by the times of actual starts: a reserved time that is used late
//! (a full queue, a dead scheduler) must neither be lost again and again nor let many start together. The time travels in the
//! record; forged or lost, it costs a reservation, never a start too many (`core/limits.rs`). For that reason `admit` alone
//! may answer otherwise when it is sent twice.
//!
//! **What waits for `max_running` asks again, in turn.** Nobody wakes it, because what would have to be woken is in Kafka.
//! The retries of a limit are 5 ms apart, so that they cost the same however many tasks wait.
//!
//! A task that has crashed a worker is not rescheduled, because that would make a fresh task of it: it is given back, and
//! this worker asks again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, error};

use crate::{
    core::{
        limits::{Admission, Arrival, PERMIT_RETRY_DELAY, Rate},
        names::WorkerId,
    },
    store::{PermitKey, PermitRequest, RateRequest, StoreError},
    task::Limits as TaskLimits,
    worker::{
        effect::{Effect, Effects, Ended, Now, due_after},
        job::{Job, RunId},
        options::Plan,
        runs::{
            Runs,
            permit::Permit,
            run::{Phase, Run},
            table::Table,
        },
    },
};

/// The most tasks per call. While this many wait for an answer, no more tasks are claimed.
const ADMIT_BATCH: usize = 512;
/// For this long after a task had to wait for its limits, others of its name take no room when they are claimed, since they
/// will have to wait too.
const WILL_WAIT_PERIOD: Duration = Duration::from_secs(1);
/// The longest time after which a task that was given back for its limits is claimed again.
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(60);
/// How long a task waits if the store refuses to answer for its limits.
const REFUSED_DELAY: Duration = Duration::from_secs(1);

/// The runs that ask, and the permits that are returned.
pub(in crate::worker) struct Limits {
    worker: WorkerId,
    plan: Arc<Plan>,
    /// Runs that wait for the next batch.
    waiting: Vec<RunId>,
    /// Number of runs in the batch under way.
    asking: usize,
    /// For the names of tasks: when a task of this name last had to wait.
    had_to_wait: HashMap<Arc<str>, Instant>,
    /// Where permits go that are dropped.
    returns: mpsc::UnboundedSender<PermitKey>,
    returned: mpsc::UnboundedReceiver<PermitKey>,
}

/// What one run asks of its limits.
#[derive(Debug)]
pub(in crate::worker) struct Question {
    run: RunId,
    permit: Option<PermitRequest>,
    rates: Vec<RateRequest>,
}

/// The answer to a [`Question`].
#[derive(Debug)]
pub(in crate::worker) enum Answer {
    /// The run may start.
    Start,
    /// All permits are taken: the task waits for this long, and asks again.
    Full(Duration),
    /// A rate has reserved a time for the task, this far ahead.
    Wait(Duration),
    /// The store refused to answer.
    Refused(StoreError),
}

impl Limits {
    pub(in crate::worker) fn new(worker: &WorkerId, plan: &Arc<Plan>) -> Self {
        let (returns, returned) = mpsc::unbounded_channel();
        Self {
            worker: Arc::clone(worker),
            plan: Arc::clone(plan),
            waiting: Vec::new(),
            asking: 0,
            had_to_wait: HashMap::new(),
            returns,
            returned,
        }
    }

    /// Whether a whole batch waits, so that no more tasks are to be claimed.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= ADMIT_BATCH
    }

    /// Number of runs that wait for an answer.
    pub(in crate::worker) fn pending(&self) -> usize {
        self.waiting.len() + self.asking
    }

    /// Whether no returned permit is left that the store does not know of.
    pub(in crate::worker) fn has_returned_all(&self) -> bool {
        self.returned.is_empty()
    }

    /// Whether a task takes no slot, because it will have to wait like others before it.
    pub(super) fn will_wait(&self, job: &Job, now: Instant) -> bool {
        let recently = |at: &Instant| now.saturating_duration_since(*at) < WILL_WAIT_PERIOD;
        job.envelope.limit_slot.is_none() && self.had_to_wait.get(&job.ask.task).is_some_and(recently)
    }

    /// The run asks with the next batch.
    pub(in crate::worker) fn ask(&mut self, run: RunId) {
        self.waiting.push(run);
    }

    /// The next batch of questions.
    pub(in crate::worker) fn next_batch(&mut self, table: &Table) -> Vec<Question> {
        let count = self.waiting.len().min(ADMIT_BATCH);
        let plan = &self.plan;
        let question = |id: RunId| {
            let run = table.get(&id).filter(|run| matches!(run.phase, Phase::Admission))?;
            Some(JobLimits::of(plan, &run.job)?.question(run))
        };
        let questions: Vec<Question> = self.waiting.drain(..count).filter_map(question).collect();
        self.asking = questions.len();
        questions
    }

    /// The store did not answer: the same runs ask again, or are given back by a worker that stops.
    pub(in crate::worker) fn unanswered(
        &mut self, questions: Vec<Question>, error: &StoreError, is_draining: bool, out: &mut Effects,
    ) {
        self.asking = 0;
        debug!(event = "limits_unanswered", worker = %self.worker, tasks = questions.len(), %error, "asking again");
        let runs = questions.into_iter().map(|question| question.run);
        if is_draining {
            out.extend(runs.map(|run| Effect::End(run, Ended::GivenBack(Ended::GIVEN_BACK_DELAY))));
        } else {
            self.waiting.extend(runs);
        }
    }

    /// The store has answered. A run that may not start waits, or is given back.
    pub(in crate::worker) fn answered(
        &mut self, answers: Vec<(Question, Answer)>, sent: Instant, runs: &mut Runs, withheld: impl Fn(&Job) -> bool,
        now: Now, out: &mut Effects,
    ) {
        self.asking = 0;
        for (question, answer) in answers {
            let Question { run: id, permit, rates } = question;
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
            let (wait, has_reserved) = match answer {
                Answer::Start if !is_withheld => {
                    run.limits.admitted = (!rates.is_empty()).then_some(sent);
                    runs.ready(&id);
                    continue;
                }
                Answer::Start => (Duration::ZERO, false),
                Answer::Full(wait) => (wait, false),
                Answer::Wait(wait) => (wait, true),
                Answer::Refused(error) => {
                    error!(event = "limits_refused", worker = %self.worker, task_id = %id.task, %error,
                        "the task waits until this is fixed");
                    (REFUSED_DELAY, false)
                }
            };
            run.limits.permit = None;
            if run.deliveries > 0 || !has_reserved && is_withheld {
                let delay = wait.clamp(REFUSED_DELAY, LONGEST_RETRY_DELAY);
                out.push_back(Effect::End(id, Ended::GivenBack(delay)));
                continue;
            }
            let due = due_after(wait, now.ms);
            // Else it keeps the time that it has.
            if has_reserved {
                run.limits.slot = Some(due);
            }
            self.had_to_wait.insert(Arc::clone(&run.job.ask.task), now.at);
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

/// Whether any limit holds for a task.
pub(super) fn is_limited(plan: &Plan, job: &Job) -> bool {
    JobLimits::of(plan, job).is_some()
}

/// The limits of a task: its own, and that of its queue.
struct JobLimits<'a> {
    task: &'a TaskLimits,
    queue: Option<Rate>,
}

impl<'a> JobLimits<'a> {
    /// `None`: no limit holds for the task.
    fn of(plan: &Plan, job: &'a Job) -> Option<Self> {
        let task = &job.definition.as_ref()?.limits;
        let queue = plan.queue_rates.get(&*job.ask.queue).copied();
        (!task.is_empty() || queue.is_some()).then_some(Self { task, queue })
    }

    fn question(&self, run: &Run) -> Question {
        let job = &run.job;
        let arrival = match () {
            () if run.deliveries > 0 => Arrival::Waiting,
            () if run.limits.admitted.is_some() || job.envelope.limit_slot.is_some() => Arrival::Reserved,
            () => Arrival::New,
        };
        let limit = self.task.name(&job.ask.task, &job.envelope.args);
        let permit = self.task.max_running.map(|max_running| {
            let key = PermitKey { limit: Arc::clone(&limit), run: format!("{}/{}", run.id.task, run.id.token).into() };
            PermitRequest { key, max_running, holds: run.limits.permit.is_some() }
        });
        let queue =
            self.queue.map(|rate| RateRequest { limit: format!("queue:{}", job.ask.queue).into(), rate, arrival });
        let task = self.task.rate.map(|rate| RateRequest { limit, rate, arrival });
        Question { run: run.id.clone(), permit, rates: queue.into_iter().chain(task).collect() }
    }
}

/// The permits that these need, which are asked for first: they cost nothing if there is none.
pub(in crate::worker) fn permits(questions: &[Question]) -> Vec<PermitRequest> {
    questions.iter().filter_map(|question| question.permit.clone()).collect()
}

/// The answers so far, from those to [`permits`].
pub(in crate::worker) fn after_permits(
    questions: &[Question], permits: Vec<Result<Option<u64>, StoreError>>,
) -> Vec<Answer> {
    let mut permits = permits.into_iter();
    let answer = |question: &Question| match question.permit.as_ref().and_then(|_| permits.next()).unwrap_or(Ok(None)) {
        Ok(None) => Answer::Start,
        // Spread, so that those that came together do not always find the same permit taken.
        Ok(Some(ms)) => Answer::Full(PERMIT_RETRY_DELAY.mul_f32(0.5 + fastrand::f32()).max(Duration::from_millis(ms))),
        Err(error) => Answer::Refused(error),
    };
    questions.iter().map(answer).collect()
}

/// What those that may start so far ask of the rates.
pub(in crate::worker) fn rates(questions: &[Question], answers: &[Answer]) -> Vec<RateRequest> {
    let asks = questions.iter().zip(answers).filter(|(_, answer)| matches!(answer, Answer::Start));
    asks.flat_map(|(question, _)| question.rates.iter().cloned()).collect()
}

/// The answers, with those to [`rates`].
pub(in crate::worker) fn after_rates(
    questions: &[Question], answers: &mut [Answer], rates: Vec<Result<Admission, StoreError>>,
) {
    let mut rates = rates.into_iter();
    let asked = questions.iter().zip(answers).filter(|(_, answer)| matches!(answer, Answer::Start));
    for (question, answer) in asked {
        for rate in rates.by_ref().take(question.rates.len()) {
            *answer = match (std::mem::replace(answer, Answer::Start), rate) {
                (Answer::Refused(error), _) | (_, Err(error)) => Answer::Refused(error),
                (sooner, Ok(Admission::Now)) => sooner,
                (Answer::Wait(sooner), Ok(Admission::In(us))) => Answer::Wait(sooner.max(whole_ms(us))),
                (_, Ok(Admission::In(us))) => Answer::Wait(whole_ms(us)),
            };
        }
    }
}

/// Never too early.
fn whole_ms(us: u64) -> Duration {
    Duration::from_millis(us.div_ceil(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::effect::Grant;

    const NOW: u64 = 1_000_000;

    /// One granted run that asks, and what becomes of it after this answer.
    fn after(answer: Answer, deliveries: u32, is_withheld: bool) -> (String, Runs, Limits) {
        let (worker, now, plan) = ("w".into(), Instant::now(), Arc::new(Plan::for_test()));
        let (mut runs, mut limits) = (Runs::new(&worker, &plan, now), Limits::new(&worker, &plan));
        let job = Arc::new(Job::for_test(r#"{"task-id":"t","task":"noop","args":[]}"#));
        let id = runs.granted(Grant { job, token: 7, deliveries, sent: now }, Phase::Admission, now);
        let key = PermitKey { limit: "task:noop".into(), run: "t/7".into() };
        let permit = Some(PermitRequest { key, max_running: 1, holds: false });
        let rate = RateRequest { limit: "task:noop".into(), rate: Rate::per_second(1), arrival: Arrival::New };
        let question = Question { run: id, permit, rates: vec![rate] };
        let mut out = Effects::new();
        limits.answered(vec![(question, answer)], now, &mut runs, |_| is_withheld, Now { at: now, ms: NOW }, &mut out);
        let ended = out.into_iter().find_map(|effect| match effect {
            Effect::End(_, Ended::Waits(due)) => Some(format!("waits +{}", due - NOW)),
            Effect::End(_, Ended::GivenBack(delay)) => Some(format!("given back {delay:?}")),
            _ => None,
        });
        (ended.unwrap_or_else(|| "ready".to_owned()), runs, limits)
    }

    #[test]
    fn a_run_that_may_start_keeps_its_permit_and_any_other_returns_it() {
        let secs = Duration::from_secs;
        for (answer, deliveries, is_withheld, outcome, keeps) in [
            (Answer::Start, 0, false, "ready", true),
            (Answer::Start, 0, true, "given back 1s", false),
            (Answer::Wait(secs(5)), 0, false, "waits +5000", false),
            (Answer::Wait(secs(5)), 0, true, "waits +5000", false),
            (Answer::Wait(secs(5)), 1, false, "given back 5s", false),
            (Answer::Wait(secs(500)), 1, false, "given back 60s", false),
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
    fn a_reserved_time_is_kept_by_the_run_and_a_full_limit_reserves_none() {
        let slot = |answer| after(answer, 0, false).1.table.iter().next().unwrap().limits.slot;
        assert_eq!(slot(Answer::Wait(Duration::from_secs(5))), Some(NOW + 5_000));
        assert_eq!(slot(Answer::Full(Duration::from_secs(5))), None);
    }

    #[test]
    fn the_latest_of_all_rates_counts_and_an_error_is_one_for_all() {
        let question = |task: &str| Question {
            run: RunId { task: task.parse().unwrap(), token: 1 },
            permit: None,
            rates: vec![RateRequest { limit: "a".into(), rate: Rate::per_second(1), arrival: Arrival::New }; 2],
        };
        let questions = [question("a"), question("b")];
        let mut answers = after_permits(&questions, Vec::new());
        assert_eq!(rates(&questions, &answers).len(), 4);
        let refused = StoreError::Refused("no".to_owned());
        let answered = vec![Ok(Admission::In(1_500)), Ok(Admission::In(999)), Ok(Admission::Now), Err(refused)];
        after_rates(&questions, &mut answers, answered);
        assert!(matches!(answers[0], Answer::Wait(wait) if wait == Duration::from_millis(2)));
        assert!(matches!(answers[1], Answer::Refused(_)));
    }
}
