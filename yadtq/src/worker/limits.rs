//! Asks whether limited tasks may start, between their claim and their slot.
//!
//! ```text
//!  granted ──► limits ──► slot                     within the limits
//!                 └─────► parked (scheduler)       not yet: its place in line travels in the record, as `limit-slot`
//! ```
//! As with claims, one batch is under way at a time, and the next goes when it is back. Tasks without a limit never come
//! here. A place among the tasks that run at once is kept with the lease, and given up when its [`Seat`] is dropped, so
//! however a run ends.
//!
//! A task that has crashed a worker is not parked, because that would make a fresh task of it: it is given back, and this
//! worker asks again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tracing::{debug, error};

use super::{
    builder::Plan,
    control::{Control, LEASE},
    execute::millis,
    job::{Job, Run},
    step::{Due, PAUSE, Step},
};
use crate::{
    core::{
        lifecycle::{Claimer, Token},
        limits::{Admission, LOOK_AFTER, Rate, Turn},
        names::TaskId,
    },
    store::{Entry, Occupation, Place, Store, StoreError},
    task::Limits as TaskLimits,
};

/// Tasks per call, and how many may wait before no more are claimed.
const BATCH: usize = 512;
/// A task that has not found a slot by then asks again: it would start in another time than the one it was let into.
const FRESH: Duration = Duration::from_millis(250);
/// For how long a task that was parked lets others of its name through to be parked, beyond free slots.
const LATELY: Duration = Duration::from_secs(1);
/// The longest time between two looks of a task that has to wait here.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How long a task waits whose limit cannot be asked.
const REFUSED: Duration = Duration::from_secs(1);

/// What is asked, and what is given up.
pub(super) struct Limits {
    waiting: Vec<(TaskId, Token)>,
    /// Tasks of the batch under way.
    asking: Option<usize>,
    /// When tasks of this name were last parked.
    parked: HashMap<Arc<str>, Instant>,
    leave: mpsc::UnboundedSender<Place>,
    left: mpsc::UnboundedReceiver<Place>,
    vacating: bool,
    keeping: bool,
}

/// A place among the tasks that run at once, given up when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    place: Place,
    most: u32,
    leave: mpsc::UnboundedSender<Place>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Fails only when the loop has ended; then it lapses with its lease.
        let _ = self.leave.send(self.place.clone());
    }
}

/// One task's question.
#[derive(Debug)]
struct Question {
    id: TaskId,
    token: Token,
    place: Option<Occupation>,
    entries: Vec<Entry>,
}

/// Its answer.
#[derive(Debug)]
enum Answer {
    Start,
    /// All places are taken: it looks again after that.
    Full(Duration),
    /// Its place in line is then.
    Wait(Duration),
    Refused(StoreError),
}

/// A batch of questions, and its answers.
pub(super) struct Limited {
    questions: Vec<Question>,
    sent: Instant,
    answers: Result<Vec<Answer>, StoreError>,
}

impl Limits {
    pub(super) fn new() -> Self {
        let (leave, left) = mpsc::unbounded_channel();
        let (parked, waiting) = (HashMap::new(), Vec::new());
        Self { waiting, asking: None, parked, leave, left, vacating: false, keeping: false }
    }

    /// Whether enough wait for an answer.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= BATCH
    }

    /// How many wait for an answer.
    pub(super) fn pending(&self) -> usize {
        self.waiting.len() + self.asking.unwrap_or(0)
    }

    /// Whether all places are given up that were left.
    pub(super) fn is_quiet(&self) -> bool {
        !self.vacating && self.left.is_empty()
    }

    /// Whether a task takes no slot, because it will be parked like others before it.
    pub(super) fn parks(&self, job: &Job) -> bool {
        let lately = || self.parked.get(&job.ask.task).is_some_and(|at| at.elapsed() < LATELY);
        job.envelope.limit_slot.is_none() && lately()
    }
}

/// The limits of a task: its own, and that of its queue.
struct Of<'a> {
    task: &'a TaskLimits,
    queue: Option<Rate>,
}

impl<'a> Of<'a> {
    fn job(plan: &Plan, job: &'a Job) -> Option<Self> {
        let task = &job.definition.as_ref()?.limits;
        let queue = plan.queue_rates.get(&*job.ask.queue).copied();
        (!task.is_empty() || queue.is_some()).then_some(Self { task, queue })
    }

    fn question(&self, run: &Run) -> Question {
        let job = &run.job;
        let turn = match () {
            () if run.deliveries > 0 => Turn::Waits,
            () if run.admitted.is_some() || job.envelope.limit_slot.is_some() => Turn::Holds,
            () => Turn::New,
        };
        let limit = self.task.name(&job.ask.task, &job.envelope.args);
        let place = self.task.max_running.map(|most| {
            let place = Place { limit: Arc::clone(&limit), run: format!("{}/{}", job.envelope.id, run.token).into() };
            Occupation { place, most, holds: run.seat.is_some() }
        });
        let queue = self.queue.map(|rate| Entry { limit: format!("queue:{}", job.ask.queue).into(), rate, turn });
        let task = self.task.rate.map(|rate| Entry { limit, rate, turn });
        let entries = queue.into_iter().chain(task).collect();
        Question { id: job.envelope.id.clone(), token: run.token, place, entries }
    }
}

impl Control {
    pub(super) fn is_limited(&self, job: &Job) -> bool {
        Of::job(&self.plan, job).is_some()
    }

    /// Notes that a granted task has to ask.
    pub(super) fn limit(&mut self, id: TaskId, token: Token) {
        self.limits.waiting.push((id, token));
    }

    /// Whether a task that was let in has waited for its slot for too long since.
    pub(super) fn is_stale(run: &Run) -> bool {
        run.admitted.is_some_and(|at| at.elapsed() > FRESH)
    }

    pub(super) fn pump_limits(&mut self) {
        self.pump_places();
        if self.limits.asking.is_some() || self.limits.waiting.is_empty() {
            return;
        }
        let count = self.limits.waiting.len().min(BATCH);
        let question = |(id, token): (TaskId, Token)| {
            let run = self.runs.get(&id).filter(|run| run.token == token && !run.revoking)?;
            Some(Of::job(&self.plan, &run.job)?.question(run))
        };
        let questions: Vec<Question> = self.limits.waiting.drain(..count).filter_map(question).collect();
        if questions.is_empty() {
            return;
        }
        let store = Arc::clone(&self.store);
        self.limits.asking = Some(questions.len());
        self.calls.push(Box::pin(async move {
            let sent = Instant::now();
            let answers = ask(&*store, &questions).await;
            if answers.is_err() {
                sleep(PAUSE).await;
            }
            Step::Limited(Limited { questions, sent, answers })
        }));
    }

    pub(super) fn limited(&mut self, Limited { questions, sent, answers }: Limited) {
        self.limits.asking = None;
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                debug!(event = "limits_unanswered", worker = %self.id, tasks = questions.len(), %error, "asking again");
                if self.draining {
                    let runs = questions.iter().filter_map(|question| self.take_waiting(&question.id, question.token));
                    let runs = runs.collect::<Vec<_>>();
                    return self.give_back(&runs, Vec::new());
                }
                return self.limits.waiting.extend(questions.into_iter().map(|question| (question.id, question.token)));
            }
        };
        for (question, answer) in questions.into_iter().zip(answers) {
            self.answered(question, answer, sent);
        }
        self.start_granted();
    }

    fn answered(&mut self, question: Question, answer: Answer, sent: Instant) {
        let Question { id, token, place, entries } = question;
        let place = place.filter(|place| !place.holds && !matches!(answer, Answer::Full(_)));
        let leave = self.limits.leave.clone();
        let seat = place.map(|Occupation { place, most, .. }| Seat { place, most, leave });
        // Gone, or ended as revoked, while this was under way: then the seat is given up here.
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.token == token && !run.revoking) else { return };
        let (suspect, crashed) = (run.deliveries >= Claimer::SUSPECT, run.deliveries > 0);
        let job = Arc::clone(&run.job);
        run.seat = run.seat.take().or(seat);
        let (wait, is_in_line) = match answer {
            // An operator may have withheld it meanwhile.
            Answer::Start if self.draining || job.is_withheld(&self.standing.orders) => (Duration::ZERO, false),
            Answer::Start => {
                run.admitted = (!entries.is_empty()).then_some(sent);
                return self.slots.grant(&job, suspect, token);
            }
            Answer::Full(wait) => (wait, false),
            Answer::Wait(wait) => (wait, true),
            Answer::Refused(error) => {
                error!(event = "limits_refused", worker = %self.id, task_id = %id, %error, "the task waits until this is mended");
                (REFUSED, false)
            }
        };
        run.seat = None;
        if crashed || !is_in_line && (self.draining || job.is_withheld(&self.standing.orders)) {
            let Some(run) = self.runs.remove(&id) else { return };
            let jobs = run.jobs().cloned().collect::<Vec<_>>();
            self.give_back(&[run], Vec::new());
            for job in jobs {
                self.later.insert(Due::Ask(job), wait.clamp(REFUSED, LOOK_AGAIN));
            }
            return;
        }
        let due = self.in_ms(millis(wait));
        // Else it keeps the place that it has.
        if is_in_line && let Some(run) = self.runs.get_mut(&id) {
            run.limit_slot = Some(due);
        }
        self.limits.parked.insert(Arc::clone(&job.ask.task), Instant::now());
        self.park(id, token, due);
    }

    fn take_waiting(&mut self, id: &TaskId, token: Token) -> Option<Run> {
        self.runs.get(id).filter(|run| run.token == token && !run.revoking)?;
        self.runs.remove(id)
    }

    /// Gives up the places of runs that have ended.
    fn pump_places(&mut self) {
        if self.limits.vacating || self.limits.left.is_empty() {
            return;
        }
        let places: Vec<Place> = std::iter::from_fn(|| self.limits.left.try_recv().ok()).take(BATCH).collect();
        let store = Arc::clone(&self.store);
        self.limits.vacating = true;
        self.calls.push(Box::pin(async move {
            // Else they lapse with their lease.
            if let Err(error) = store.vacate(&places).await {
                debug!(event = "places_not_vacated", places = places.len(), %error, "they lapse in a few seconds");
            }
            Step::Vacated
        }));
    }

    pub(super) fn vacated(&mut self) {
        self.limits.vacating = false;
    }

    /// Keeps the places of runs, as their leases are kept.
    pub(super) fn keep_places(&mut self) {
        let occupation = |seat: &Seat| Occupation { place: seat.place.clone(), most: seat.most, holds: true };
        let held: Vec<_> = self.runs.values().filter_map(|run| run.seat.as_ref()).map(occupation).collect();
        if self.limits.keeping || held.is_empty() {
            return;
        }
        let store = Arc::clone(&self.store);
        self.limits.keeping = true;
        self.calls.push(Box::pin(async move {
            if let Err(error) = store.occupy(millis(LEASE), &held).await {
                debug!(event = "places_not_kept", places = held.len(), %error, "trying again");
            }
            Step::Kept
        }));
    }

    pub(super) fn kept(&mut self) {
        self.limits.keeping = false;
    }
}

/// First for a place, which costs nothing if there is none; then for the time.
async fn ask(store: &dyn Store, questions: &[Question]) -> Result<Vec<Answer>, StoreError> {
    let places: Vec<_> = questions.iter().filter_map(|question| question.place.clone()).collect();
    let occupied = if places.is_empty() { Vec::new() } else { store.occupy(millis(LEASE), &places).await? };
    let mut occupied = occupied.into_iter();
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        let told = question.place.as_ref().and_then(|_| occupied.next()).unwrap_or(Ok(None));
        answers.push(match told {
            Ok(None) => Answer::Start,
            // Spread, so that those that came together do not always find the same place taken.
            Ok(Some(ms)) => Answer::Full(LOOK_AFTER.mul_f32(0.5 + fastrand::f32()).max(Duration::from_millis(ms))),
            Err(error) => Answer::Refused(error),
        });
    }
    let starts = |answer: &Answer| matches!(answer, Answer::Start);
    let asks = || questions.iter().zip(&answers).filter(|(_, answer)| starts(answer)).map(|(question, _)| question);
    let entries: Vec<_> = asks().flat_map(|question| question.entries.iter().cloned()).collect();
    if entries.is_empty() {
        return Ok(answers);
    }
    let mut admitted = store.admit(&entries).await?.into_iter();
    for (question, answer) in questions.iter().zip(&mut answers).filter(|(_, answer)| starts(answer)) {
        for told in admitted.by_ref().take(question.entries.len()) {
            *answer = match (std::mem::replace(answer, Answer::Start), told) {
                (Answer::Refused(error), _) | (_, Err(error)) => Answer::Refused(error),
                (sooner, Ok(Admission::Now)) => sooner,
                (Answer::Wait(sooner), Ok(Admission::In(us))) => Answer::Wait(sooner.max(whole_ms(us))),
                (_, Ok(Admission::In(us))) => Answer::Wait(whole_ms(us)),
            };
        }
    }
    Ok(answers)
}

/// Never too early.
fn whole_ms(us: u64) -> Duration {
    Duration::from_millis(us.div_ceil(1_000))
}
