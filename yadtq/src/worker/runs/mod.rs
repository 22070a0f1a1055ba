//! The tasks whose leases this worker holds: what waits for a slot, what runs, what was asked to end.
//!
//! ```text
//!  grant ─► admission ─► ready queue ─► slot ─► executor ─► ended (its end goes to `finish`)
//!              │             └──────────────────────────► given back, revoked, expired
//!              └────────────────────────────────────────► limited, withheld
//! ```
//! The [table](table::Table) alone knows which run is the latest of its task: everything that comes back names its run, and
//! changes nothing if another one has followed.

pub(crate) mod executor;
mod lease;
pub(crate) mod permit;
pub(crate) mod progress;
mod ready_queue;
mod revoke;
pub(crate) mod run;
mod slots;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio::{task::AbortHandle, time::Instant};
use tracing::{debug, warn};

pub(super) use self::lease::extend_interval;
use self::{
    executor::RunFinished,
    run::{Phase, Run, Running, StopReason},
    slots::Slots,
    table::Table,
};
use super::{
    effect::{Effect, Effects, Ended, Grant, Now},
    job::{Job, Lane, Position, RunId, SourceId},
    options::Plan,
    timers::Timers,
};
use crate::{
    core::{names::WorkerId, priority::PerPriority},
    wire::record::TaskOptions,
};

/// How long a run that a rate has admitted may wait for its slot. After that it asks again, because it would start at another
/// time than the one that it was admitted for.
const ADMISSION_LIFETIME: Duration = Duration::from_millis(250);
/// After running for this long the first suspect of a worker leaves quarantine, so that one that hangs keeps no other suspect waiting.
/// After each one that has not crashed the worker the time is half as long: after two hard deploys all tasks that ran are
/// suspects, and few of them guilty.
const QUARANTINE: Duration = Duration::from_secs(60);
/// The shortest time in quarantine is this many halvings away: 0.94 s.
const MAX_HALVINGS: u32 = 6;
/// The longest time for which a timer is set.
pub(super) const LONGEST_TIMER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The runs of a worker.
pub(super) struct Runs {
    worker: WorkerId,
    plan: Arc<Plan>,
    pub(super) table: Table,
    pub(super) slots: Slots,
    timers: Timers<Timer>,
    /// Suspects that run outside of quarantine, each in the lane of its task.
    left_quarantine: Vec<(RunId, Lane)>,
    /// Number of suspects that have not crashed this worker, at most [`MAX_HALVINGS`].
    innocent: u32,
    /// When runs that wait for a slot are given back, if some wait.
    give_back_at: Option<Instant>,
    /// When leases are extended again although it is not their turn.
    extend_again_at: Option<Instant>,
    /// Number of blocking tasks that went on beyond their timeout.
    pub(super) overrun: u64,
    /// Whether a task was dropped that nobody had asked to end.
    pub(super) has_dropped: bool,
}

/// What happens to a run when its timer goes off.
#[derive(Clone)]
enum Timer {
    /// The timeout of a blocking task is over.
    TimeOut(RunId),
    /// The soft timeout of a task is over.
    AskToEnd(RunId),
    /// The grace of a revoked task is over.
    CutOff(RunId),
    /// A suspect has run for long enough.
    LeaveQuarantine(RunId),
}

impl Runs {
    pub(super) fn new(worker: &WorkerId, plan: &Arc<Plan>, now: Instant) -> Self {
        Self {
            worker: Arc::clone(worker),
            plan: Arc::clone(plan),
            table: Table::default(),
            slots: Slots::new(&plan.options, plan.queues.len(), now),
            timers: Timers::default(),
            left_quarantine: Vec::new(),
            innocent: 0,
            give_back_at: None,
            extend_again_at: None,
            overrun: 0,
            has_dropped: false,
        }
    }

    /// A claim was granted. The run begins in this phase: ready, or in admission until [`ready`](Self::ready).
    pub(super) fn granted(&mut self, grant: Grant, phase: Phase, now: Instant) -> RunId {
        let run = Run::new(grant, phase, now);
        let id = run.id.clone();
        if matches!(run.phase, Phase::Ready) {
            self.slots.push(run.lane(), run.job.at.source, id.clone());
        }
        if let Some(older) = self.table.insert(run) {
            // Its lease was lost, or this one would not have been granted.
            warn!(event = "lease_lost", worker = %self.worker, task_id = %id.task.shown(), token = older.id.token, "granted anew");
            older.cut_off();
            if let Some(run) = self.table.get_mut(&id) {
                run.joined.extend(older.jobs().cloned());
            }
        }
        id
    }

    /// A record of a task came back. If the task runs here, the record ends with the run; if not, it is returned as `Err`. `owns`
    /// says whether a record still belongs to this worker.
    pub(super) fn join(&mut self, job: Arc<Job>, owns: impl Fn(Position) -> bool) -> Result<(), Arc<Job>> {
        match self.table.of_task(&job.envelope.id) {
            Some(run) if job.ask.seq <= run.job.ask.seq => {
                run.joined.retain(|joined| owns(joined.at));
                run.joined.push(job);
                Ok(())
            }
            _ => Err(job),
        }
    }

    /// A record was published again, and its offset is completed: a run that it has joined forgets it, because the copy joins too.
    pub(super) fn carried(&mut self, job: &Job) {
        if let Some(run) = self.table.of_task(&job.envelope.id) {
            run.joined.retain(|joined| joined.at != job.at);
        }
    }

    /// The run may start, as soon as there is a slot.
    pub(super) fn ready(&mut self, id: &RunId) {
        let Some(run) = self.table.get_mut(id) else { return };
        run.phase = Phase::Ready;
        let (lane, source) = (run.lane(), run.job.at.source);
        self.slots.push(lane, source, id.clone());
    }

    /// Gives free slots to what is ready. `coming` says for each priority of a queue whether a task of it is about to be
    /// claimed for the lane.
    pub(super) fn fill_slots(
        &mut self, coming: impl Fn(usize, Lane) -> PerPriority<bool>, now: Now, out: &mut Effects,
    ) {
        for lane in Lane::ALL {
            // One suspect is claimed at a time, so nobody overtakes there.
            let coming = |queue| if lane == Lane::Quarantine { [false; 3] } else { coming(queue, lane) };
            while let Some(id) = self.slots.next(lane, coming) {
                self.start(id, lane, now, out);
            }
        }
        self.watch_waiting(now.at);
    }

    fn start(&mut self, id: RunId, lane: Lane, now: Now, out: &mut Effects) {
        let quarantine = self.quarantine();
        let Some(run) = self.table.get_mut(&id) else { return };
        if run.stop == Some(StopReason::LeaseLost) {
            // The store says what becomes of its records.
            let Some(run) = self.table.remove(&id) else { return };
            return out.extend(run.jobs().cloned().map(Effect::Ask));
        }
        if run.limits.admitted.is_some_and(|at| now.at > at + ADMISSION_LIFETIME) {
            run.phase = Phase::Admission;
            return out.push_back(Effect::AskLimits(id));
        }
        if run.job.has_expired(now.ms) {
            return out.push_back(Effect::End(id, Ended::Expired));
        }
        // If it waits after this, it is not for its limits.
        run.limits.slot = None;
        let options = run.job.options();
        // An `async` task is held to its timeout where it runs.
        let timeout = options.timeout.filter(|_| run.job.lane() == Lane::Blocking);
        let timeout = timeout.map(|after| (after, Timer::TimeOut(id.clone())));
        let soft = options.asks_to_end_after().map(|after| (after, Timer::AskToEnd(id.clone())));
        let quarantine = (lane == Lane::Quarantine).then(|| (quarantine, Timer::LeaveQuarantine(id.clone())));
        let timers = timeout.into_iter().chain(soft).chain(quarantine);
        let timers = timers.map(|(after, timer)| self.timers.set(now.at, after.min(LONGEST_TIMER), timer)).collect();
        run.phase = Phase::Running(Running { since: now.at, abort: None, timers });
        self.slots.started(lane);
        out.push_back(Effect::Start(id));
    }

    /// The executor has started the run.
    pub(super) fn started(&mut self, id: &RunId, abort: Option<AbortHandle>) {
        if let Some(Run { phase: Phase::Running(running), .. }) = self.table.get_mut(id) {
            running.abort = abort;
        }
    }

    /// The executor is done with a run: its end is to be recorded. Its slot is free for [`fill_slots`](Self::fill_slots).
    pub(super) fn finished(&mut self, finished: RunFinished, now: Instant, out: &mut Effects) {
        let RunFinished { run: id, lane, ended } = finished;
        let started = self.table.get(&id).and_then(|run| run.phase.started());
        let moved = self.left_quarantine.iter().position(|(moved, _)| *moved == id);
        let lane = moved.map_or(lane, |at| self.left_quarantine.swap_remove(at).1);
        self.is_innocent(lane);
        self.slots.ended(lane, started.map(|at| now.saturating_duration_since(at)));
        if let Some(run) = self.table.get(&id) {
            if let Phase::Running(Running { timers, .. }) = &run.phase {
                timers.iter().for_each(|&timer| self.timers.cancel(timer));
            }
            let ended = match ended {
                ended if run.is_revoked() && !matches!(ended, Ended::Returned(Ok(_))) => Ended::Revoked,
                _ if run.has_timed_out() => {
                    Ended::TimedOut(run.phase.started().map_or(Duration::ZERO, |at| now.saturating_duration_since(at)))
                }
                ended => ended,
            };
            self.has_dropped |= matches!(ended, Ended::Dropped) && !run.cancel.is_cancelled();
            if matches!(ended, Ended::Dropped) {
                warn!(event = "task_dropped", worker = %self.worker, task_id = %id.task.shown(),
                    "dropped before it ended; handed back");
            }
            out.push_back(Effect::End(id, ended));
        }
    }

    /// Gives tasks back that wait for a slot, so that anybody may run them at once.
    pub(super) fn give_back_ready(&mut self, which: impl Fn(&Run) -> bool, out: &mut Effects) {
        let table = &self.table;
        let ids = self.slots.take_ready(|id| table.get(id).is_none_or(&which));
        out.extend(ids.into_iter().map(|id| Effect::End(id, Ended::GivenBack(Ended::GIVEN_BACK_DELAY))));
    }

    /// Partitions went to another worker. What runs goes on; the next owner watches it.
    pub(super) fn give_back_partitions(&mut self, source: SourceId, partitions: &[i32], out: &mut Effects) {
        let is_gone = |at: Position| !at.is_foreign() && at.source == source && partitions.contains(&at.partition);
        self.give_back_ready(|run| is_gone(run.job.at), out);
    }

    /// Acts on the timers that have gone off by now. Slots may be free after that.
    pub(super) fn due(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                timer if self.is_set_again(&timer, now) => {}
                Timer::TimeOut(id) => self.time_out(&id),
                Timer::AskToEnd(id) => self.ask_to_end(&id),
                Timer::CutOff(id) => self.cut_off(&id),
                Timer::LeaveQuarantine(id) => self.leave_quarantine(id),
            }
        }
    }

    /// When [`due`](Self::due) has to be called although nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.give_back_at).chain(self.extend_again_at).min()
    }

    /// A blocking task cannot be dropped: it is asked to end, and keeps its lease until it does.
    fn time_out(&mut self, id: &RunId) {
        let Some(run) = self.table.get_mut(id) else { return };
        self.overrun += 1;
        run.ask_to_end(StopReason::TimedOut);
        warn!(event = "task_overrun", worker = %self.worker, task_id = %id.task.shown(), task = %run.job.ask.task,
            "its timeout is over; a blocking task can only be asked to end");
    }

    /// Sets a timer again that has gone off before the time of its run is over.
    fn is_set_again(&mut self, timer: &Timer, now: Instant) -> bool {
        let (id, after): (_, fn(&TaskOptions) -> Option<Duration>) = match timer {
            Timer::TimeOut(id) => (id, |options| options.timeout),
            Timer::AskToEnd(id) => (id, TaskOptions::asks_to_end_after),
            Timer::CutOff(_) | Timer::LeaveQuarantine(_) => return false,
        };
        let Some(run) = self.table.get_mut(id) else { return false };
        let Some(at) = after(&run.job.options()).and_then(|after| run.ends_later(after, now)) else { return false };
        let wait = at.saturating_duration_since(now).min(LONGEST_TIMER);
        let key = self.timers.set(now, wait, timer.clone());
        if let Phase::Running(running) = &mut run.phase {
            running.timers.push(key);
        }
        true
    }

    /// How long the next suspect stays in quarantine.
    fn quarantine(&self) -> Duration {
        QUARANTINE / 2_u32.pow(self.innocent)
    }

    /// A run has left this lane, and the worker lives.
    fn is_innocent(&mut self, lane: Lane) {
        if lane == Lane::Quarantine {
            self.innocent = (self.innocent + 1).min(MAX_HALVINGS);
        }
    }

    /// A suspect takes a slot of its task's lane, even if none is free, and the next suspect may run.
    fn leave_quarantine(&mut self, id: RunId) {
        let Some(run) = self.table.get(&id) else { return };
        let lane = run.job.lane();
        self.slots.ended(Lane::Quarantine, None);
        self.slots.started(lane);
        self.is_innocent(Lane::Quarantine);
        self.left_quarantine.push((id, lane));
    }

    /// A task has run for so long that it is asked to end. Whatever it returns is its outcome.
    fn ask_to_end(&self, id: &RunId) {
        let Some(run) = self.table.get(id) else { return };
        debug!(event = "task_cancelled", worker = %self.worker, task_id = %id.task.shown(), why = "its soft timeout is over",
            "asked to end");
        run.cancel.cancel();
    }

    /// The worker stops, and soon drops what runs: everything is asked to end.
    pub(super) fn ask_all_to_end(&self) {
        for run in self.table.iter() {
            debug!(event = "task_cancelled", worker = %self.worker, task_id = %run.id.task.shown(), why = "its worker stops",
                "asked to end");
            run.cancel.cancel();
        }
    }

    /// Cuts off everything that runs here.
    pub(super) fn cut_off_all(&self) {
        self.table.iter().for_each(Run::cut_off);
    }

    /// Whether all tasks that are left are blocking ones, which cannot be cut off.
    pub(super) fn are_only_blocking(&self) -> bool {
        self.table.iter().all(|run| run.job.lane() == Lane::Blocking)
    }
}
