//! What runs ask of their limits, and what the answers mean together.

use std::{sync::Arc, time::Duration};

use crate::{
    core::limits::{Admission, Arrival, PERMIT_RETRY_DELAY, Rate},
    store::{PermitKey, PermitRequest, RateRequest, StoreError},
    task::Limits as TaskLimits,
    worker::{
        job::{Job, RunId},
        options::Plan,
        runs::run::Run,
    },
};

/// What one run asks of its limits.
#[derive(Debug)]
pub(in crate::worker) struct Question {
    pub(super) run: RunId,
    /// Whether it is likely to start, so that it will take a slot.
    pub(super) is_likely: bool,
    pub(super) permit: Option<PermitRequest>,
    pub(super) rates: Vec<RateRequest>,
}

/// The answer to a [`Question`].
#[derive(Debug)]
pub(in crate::worker) enum Answer {
    /// The run may start.
    Start,
    /// All permits are taken: the task waits for this long, and asks again.
    Full(Duration),
    /// The task waits for its turn under a rate.
    Wait(RateWait),
    /// The store refused to answer.
    Refused(StoreError),
}

/// How long a task waits under a rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::worker) struct RateWait {
    pub(super) time: Duration,
    /// Whether it is its turn then; else it asks again.
    pub(super) is_turn: bool,
    /// Names the limit that makes it wait.
    pub(super) limit: Arc<str>,
}

impl RateWait {
    fn longer(self, other: Self) -> Self {
        let is_turn = self.is_turn && other.is_turn;
        Self { is_turn, ..if other.time > self.time { other } else { self } }
    }
}

/// Whether any limit holds for a task.
pub(in crate::worker::start) fn is_limited(plan: &Plan, job: &Job) -> bool {
    JobLimits::of(plan, job).is_some()
}

/// The limits of a task: its own, and that of its queue.
pub(super) struct JobLimits<'a> {
    task: &'a TaskLimits,
    queue: Option<Rate>,
}

impl<'a> JobLimits<'a> {
    /// `None`: no limit holds for the task.
    pub(super) fn of(plan: &Plan, job: &'a Job) -> Option<Self> {
        let task = &job.definition.as_ref()?.limits;
        let queue = plan.queue_rates.get(&*job.ask.queue).copied();
        (!task.is_empty() || queue.is_some()).then_some(Self { task, queue })
    }

    /// The name of its own limits, if it has any.
    fn own(&self, job: &Job) -> Option<Arc<str>> {
        (!self.task.is_empty()).then(|| self.task.name(&job.ask.task, &job.envelope.args))
    }

    /// The name of its queue's limit, if there is one.
    fn of_queue(&self, job: &Job) -> Option<Arc<str>> {
        self.queue.map(|_| format!("queue:{}", job.ask.queue).into())
    }

    /// The names of all.
    pub(super) fn names(&self, job: &Job) -> [Option<Arc<str>>; 2] {
        [self.of_queue(job), self.own(job)]
    }

    pub(super) fn question(&self, run: &Run, is_likely: bool) -> Question {
        let job = &run.job;
        let arrival = match () {
            () if run.deliveries > 0 => Arrival::Waiting,
            () if run.limits.admitted.is_some() || job.envelope.limit_slot.is_some() => Arrival::Turn,
            () => Arrival::New,
        };
        let [queue_limit, limit] = self.names(job);
        let permit = limit.clone().zip(self.task.max_running).map(|(limit, max_running)| {
            let key = PermitKey { limit, run: format!("{}/{}", run.id.task, run.id.token).into() };
            PermitRequest { key, max_running, holds: run.limits.permit.is_some() }
        });
        let request = |(limit, rate)| RateRequest { task: run.id.task.clone(), limit, rate, arrival };
        let rates = [queue_limit.zip(self.queue), limit.zip(self.task.rate)].into_iter().flatten().map(request);
        Question { run: run.id.clone(), is_likely, permit, rates: rates.collect() }
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
        for (request, rate) in question.rates.iter().zip(rates.by_ref()) {
            let wait = |us, is_turn| RateWait { time: whole_ms(us), is_turn, limit: Arc::clone(&request.limit) };
            let wait = match rate {
                Ok(Admission::Now) => continue,
                Ok(Admission::In(us)) => Ok(wait(us, true)),
                Ok(Admission::AskAgain(us)) => Ok(wait(us, false)),
                Err(error) => Err(error),
            };
            *answer = match (std::mem::replace(answer, Answer::Start), wait) {
                (Answer::Refused(error), _) | (_, Err(error)) => Answer::Refused(error),
                (Answer::Wait(sooner), Ok(wait)) => Answer::Wait(sooner.longer(wait)),
                (_, Ok(wait)) => Answer::Wait(wait),
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

    #[test]
    fn the_latest_of_all_rates_counts_and_an_error_is_one_for_all() {
        let request = |limit: &str| RateRequest {
            task: "t".parse().unwrap(),
            limit: limit.into(),
            rate: Rate::per_second(1),
            arrival: Arrival::New,
        };
        let question = |task: &str| Question {
            run: RunId { task: task.parse().unwrap(), token: 1 },
            is_likely: true,
            permit: None,
            rates: vec![request("queue"), request("task")],
        };
        let questions = [question("a"), question("b"), question("c")];
        let mut answers = after_permits(&questions, Vec::new());
        assert_eq!(rates(&questions, &answers).len(), 6);
        let refused = StoreError::Refused("no".to_owned());
        let (turn, early) = (Admission::In(1_500), Admission::AskAgain(999));
        let answered = [turn, early, Admission::Now].map(Ok).into_iter();
        let answered = answered.chain([Err(refused), Ok(Admission::In(1_000)), Ok(Admission::In(9_000))]).collect();
        after_rates(&questions, &mut answers, answered);
        let wait =
            |ms, is_turn, limit: &str| RateWait { time: Duration::from_millis(ms), is_turn, limit: limit.into() };
        assert!(matches!(&answers[0], Answer::Wait(longest) if *longest == wait(2, false, "queue")), "{answers:?}");
        assert!(matches!(answers[1], Answer::Refused(_)));
        assert!(matches!(&answers[2], Answer::Wait(longest) if *longest == wait(9, true, "task")), "{answers:?}");
    }
}
