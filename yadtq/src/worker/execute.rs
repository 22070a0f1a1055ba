//! Runs granted tasks: `async` ones on the application's runtime, plain ones on its blocking pool.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tracing::{Instrument, info, info_span, warn};

use super::{
    builder::Options,
    control::Control,
    granted::{Granted, Waiting},
    job::{Job, Lane, Run},
    levels::{self, Rank},
    step::Due,
};
use crate::{
    context::Context,
    core::{
        lifecycle::Token,
        names::TaskId,
        priority::{Levels, Priority},
    },
    task::{ArgsError, Body, Finished, Reader, RunBlocking, RunFuture},
    wire::{envelope::Args, failure::ErrorKind},
};

/// How far ahead of free slots tasks are claimed: what the recent pace finishes in this time. Keeps slots busy
/// between two batches of short tasks, and claims no long task that cannot start.
const AHEAD: Duration = Duration::from_millis(10);
const MOST_AHEAD: usize = 1_024;
/// What the error of an expired task says.
pub(super) const EXPIRED: &str = "it expired before it could run";
/// Timers take no more.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);

/// A run has ended, one way or another.
#[derive(Debug)]
pub(super) struct Finish {
    pub(super) id: TaskId,
    pub(super) token: Token,
    pub(super) lane: Lane,
    pub(super) suspect: bool,
    pub(super) ended: Ended,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The function returned.
    Returned(Finished),
    /// The arguments did not fit, so it never ran.
    Arguments(ArgsError),
    /// It panicked with this message.
    Panicked(String),
    /// It was dropped at its timeout.
    TimedOut(Duration),
    /// It was dropped before it ended: aborted, or its runtime is gone.
    Dropped,
}

/// Which granted tasks run, and which wait for their slot.
pub(super) struct Slots {
    lanes: [LaneSlots; 2],
    /// Suspects run one at a time, so that what kills workers does not convict its neighbours.
    quarantine: LaneSlots,
}

struct LaneSlots {
    limit: usize,
    started: usize,
    granted: Granted,
    pace: Pace,
}

struct Pace {
    since: Instant,
    finished: usize,
    ahead: usize,
}

impl Slots {
    pub(super) fn new(options: &Options, queues: usize) -> Self {
        let slots = |limit| LaneSlots {
            limit,
            started: 0,
            granted: Granted::new(queues, options.strict_priority),
            pace: Pace { since: Instant::now(), finished: 0, ahead: 0 },
        };
        Self { lanes: [slots(options.concurrency), slots(options.blocking_concurrency)], quarantine: slots(1) }
    }

    /// How many tasks may be claimed for a lane.
    pub(super) fn room(&mut self, lane: Lane) -> usize {
        let slots = &mut self.lanes[lane as usize];
        let ahead = slots.pace.ahead();
        slots.limit.saturating_add(ahead).saturating_sub(slots.started + slots.granted.len())
    }

    pub(super) fn quarantine_is_free(&self) -> bool {
        self.quarantine.started + self.quarantine.granted.len() == 0
    }

    /// How many tasks of a priority may be claimed although there is no room, in the place of lower ones of their queue
    /// that are granted: as many as there are free slots. `claimed`: those that are about to be, at this level or above.
    pub(super) fn room_above(&self, lane: Lane, queue: usize, priority: Priority, claimed: usize) -> usize {
        let slots = &self.lanes[lane as usize];
        let (above, below) = slots.granted.around(queue, priority);
        slots.limit.saturating_sub(slots.started + above + claimed).min(below)
    }

    pub(super) fn grant(&mut self, job: &Job, suspect: bool, token: Token) {
        let Rank { queue, priority } = Rank::of(job.at.queue);
        self.of(job.lane(), suspect).granted.push(queue, priority, (job.envelope.id.clone(), token));
    }

    /// All that was granted and has not started.
    pub(super) fn granted(&self) -> impl Iterator<Item = &Waiting> {
        self.lanes.iter().chain([&self.quarantine]).flat_map(|slots| slots.granted.iter())
    }

    /// Takes some of it back.
    pub(super) fn retain_granted(&mut self, keep: impl Fn(&TaskId) -> bool) {
        for slots in self.lanes.iter_mut().chain([&mut self.quarantine]) {
            slots.granted.retain(&keep);
        }
    }

    fn of(&mut self, lane: Lane, suspect: bool) -> &mut LaneSlots {
        if suspect { &mut self.quarantine } else { &mut self.lanes[lane as usize] }
    }

    pub(super) fn freed(&mut self, finish: &Finish) {
        let slots = self.of(finish.lane, finish.suspect);
        slots.started -= 1;
        slots.pace.finished += 1;
    }
}

impl LaneSlots {
    fn next(&mut self, coming: impl Fn(usize) -> Levels<bool>) -> Option<Waiting> {
        if self.started < self.limit { self.granted.pop(coming) } else { None }
    }
}

impl Pace {
    fn ahead(&mut self) -> usize {
        let elapsed = self.since.elapsed();
        if elapsed >= AHEAD {
            let share = AHEAD.as_secs_f64() / elapsed.as_secs_f64();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let ahead = (self.finished as f64 * share) as usize;
            *self = Self { since: Instant::now(), finished: 0, ahead: ahead.min(MOST_AHEAD) };
        }
        self.ahead
    }
}

impl Run {
    /// Asks the task to end, and drops it where that is possible.
    pub(super) fn stop(&self) {
        self.cancel.cancel();
        if let Some(abort) = &self.abort {
            abort.abort();
        }
    }
}

impl Control {
    /// Starts granted tasks while there are free slots.
    pub(super) fn start_granted(&mut self) {
        for suspect in [false, true] {
            for lane in Lane::ALL {
                while let Some((id, token)) = self.next_granted(lane, suspect) {
                    self.start(&id, token, suspect);
                }
            }
        }
    }

    fn next_granted(&mut self, lane: Lane, suspect: bool) -> Option<Waiting> {
        let (sources, claims) = (&self.sources, &self.claims);
        // One suspect is claimed at a time, so nobody overtakes there.
        let coming = |queue| if suspect { [false; 3] } else { levels::coming(sources, claims, queue, lane) };
        self.slots.of(lane, suspect).next(coming)
    }

    fn start(&mut self, id: &TaskId, token: Token, suspect: bool) {
        let Some(run) = self.runs.get_mut(id).filter(|run| run.token == token) else { return };
        if run.cancel.is_cancelled() {
            // Its lease was lost while it waited for the slot.
            return self.forsake(id);
        }
        if Self::is_stale(run) {
            return self.limit(id.clone(), token);
        }
        let job = Arc::clone(&run.job);
        if job.envelope.expires.is_some_and(|at| at <= self.client.config().clock.now_ms()) {
            return self.end_revoked(id.clone(), token, ErrorKind::Expired, EXPIRED);
        }
        let Some(definition) = &job.definition else { return };
        let (envelope, lane) = (&job.envelope, job.lane());
        run.started = Some(Instant::now());
        // If it waits after this, it is not for its limits.
        run.limit_slot = None;
        let (task, queue) = (Arc::clone(&job.ask.task), Arc::clone(&job.ask.queue));
        let priority = Rank::of(job.at.queue).priority;
        info!(event = "task_started", worker = %self.id, task_id = %id, task = %task, queue = %queue, %priority,
            attempt = envelope.attempt, deliveries = run.deliveries,
            waited_ms = millis(job.received.elapsed()), "task started");
        let span = info_span!("task", task_id = %id, task = %task, queue = %queue, attempt = envelope.attempt);
        let state = self.plan.state.clone();
        let ctx = Context::new(id.clone(), task, queue, envelope.attempt, token, run.cancel.clone(), state)
            .reporting(&self.board)
            .after(envelope.last_error.clone());
        let limit = envelope.timeout_ms.map(Duration::from_millis).or(definition.timeout);
        let args = envelope.args.clone();
        let finish = Finish { id: id.clone(), token, lane, suspect, ended: Ended::Dropped };
        let reporter = Reporter { finish: Some(finish), tell: self.finish.clone() };
        self.slots.of(lane, suspect).started += 1;
        let client = self.client.clone();
        match definition.body {
            Body::Async(body) => {
                let future = async move {
                    let run = AssertUnwindSafe(run_async(body, ctx, args, limit)).catch_unwind();
                    reporter.tell(run.await.unwrap_or_else(|panic| Ended::Panicked(message(&*panic))));
                };
                run.abort = Some(self.tasks.spawn(client.scope(future).instrument(span)).abort_handle());
            }
            Body::Blocking(body) => {
                self.tasks.spawn_blocking(move || {
                    let run = || span.in_scope(|| client.scope_blocking(|| run_blocking(body, ctx, &args)));
                    let run = || catch_unwind(AssertUnwindSafe(run));
                    let ended = || run().unwrap_or_else(|panic| Ended::Panicked(message(&*panic)));
                    reporter.tell(within(limit, ended));
                });
                if let Some(limit) = limit {
                    run.timer = Some(self.later.insert(Due::Overrun(id.clone(), token), limit.min(LONGEST)));
                }
            }
        }
    }

    /// A run that must not begin: the store says what becomes of its records.
    fn forsake(&mut self, id: &TaskId) {
        let Some(run) = self.runs.remove(id) else { return };
        for job in run.jobs() {
            self.ask(Arc::clone(job));
        }
    }

    /// A blocking task cannot be dropped: it is asked to end, and keeps its lease until it does.
    pub(super) fn overrun(&mut self, id: &TaskId, token: Token) {
        let Some(run) = self.runs.get_mut(id).filter(|run| run.token == token) else { return };
        run.timer = None;
        run.overrun = true;
        self.overrun += 1;
        run.cancel.cancel();
        warn!(event = "task_overrun", worker = %self.id, task_id = %id, task = %run.job.ask.task,
            "its timeout is over; a blocking task can only be asked to end");
    }
}

async fn run_async(
    body: fn(Context, Reader<'_>) -> Result<RunFuture, ArgsError>, ctx: Context, args: Args, limit: Option<Duration>,
) -> Ended {
    let cancel = ctx.clone();
    let future = match Reader::new(args.as_str()).and_then(|reader| body(ctx, reader)) {
        Ok(future) => future,
        Err(error) => return Ended::Arguments(error),
    };
    let Some(limit) = limit else { return Ended::Returned(future.await) };
    match timeout(limit, future).await {
        Ok(finished) => Ended::Returned(finished),
        Err(_) => {
            cancel.cancel();
            Ended::TimedOut(limit)
        }
    }
}

fn run_blocking(body: fn(Context, Reader<'_>) -> Result<RunBlocking, ArgsError>, ctx: Context, args: &Args) -> Ended {
    match Reader::new(args.as_str()).and_then(|reader| body(ctx, reader)) {
        Ok(run) => Ended::Returned(run()),
        Err(error) => Ended::Arguments(error),
    }
}

/// One that took too long has failed, also if the control loop had no time to notice while it ran.
fn within(limit: Option<Duration>, run: impl FnOnce() -> Ended) -> Ended {
    let begun = Instant::now();
    let ended = run();
    let took = begun.elapsed();
    if limit.is_some_and(|limit| took > limit) { Ended::TimedOut(took) } else { ended }
}

/// Tells the control loop how a run ended, also if its future is dropped.
struct Reporter {
    finish: Option<Finish>,
    tell: mpsc::UnboundedSender<Finish>,
}

impl Reporter {
    fn tell(mut self, ended: Ended) {
        if let Some(finish) = &mut self.finish {
            finish.ended = ended;
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(finish) = self.finish.take() {
            // Fails only when the loop has ended, and then nobody waits.
            let _ = self.tell.send(finish);
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".to_owned())
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_blocking_run_is_held_to_its_timeout() {
        let nap = |limit| {
            within(limit, || {
                std::thread::sleep(Duration::from_millis(20));
                Ended::Returned(Ok("1".to_owned()))
            })
        };
        assert!(matches!(nap(Some(Duration::from_millis(5))), Ended::TimedOut(took) if took.as_millis() >= 20));
        assert!(matches!(nap(Some(Duration::from_secs(60))), Ended::Returned(Ok(_))));
        assert!(matches!(nap(None), Ended::Returned(Ok(_))));
    }
}
