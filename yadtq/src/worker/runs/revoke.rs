//! Ends running tasks that somebody revoked. The worker learns of it over its channel or, if that notice is lost, from the
//! answer to the next extension of the lease.

use tokio::time::Instant;
use tracing::info;

use super::{
    Runs, Timer,
    run::{Phase, StopReason},
};
use crate::{
    core::names::TaskId,
    worker::{
        effect::{Effect, Effects, Ended},
        job::RunId,
    },
};

impl Runs {
    /// Somebody revoked these tasks.
    pub(in crate::worker) fn revoke_tasks(&mut self, tasks: &[TaskId], now: Instant, out: &mut Effects) {
        for task in tasks {
            if let Some(id) = self.table.of_task(task).map(|run| run.id.clone()) {
                self.revoke(&id, now, out);
            }
        }
    }

    /// Asks a run to end, and sees to it that an `async` one does.
    pub(super) fn revoke(&mut self, id: &RunId, now: Instant, out: &mut Effects) {
        let Some(run) = self.table.get_mut(id).filter(|run| !run.is_revoked()) else { return };
        info!(event = "task_revoking", worker = %self.worker, task_id = %id.task.shown(), task = %run.job.ask.task, "asked to end");
        run.ask_to_end(StopReason::Revoked { timed_out: false });
        match run.phase {
            Phase::Admission | Phase::Ready => {
                self.slots.take_ready(|ready| ready == id);
                out.push_back(Effect::End(id.clone(), Ended::Revoked));
            }
            Phase::Running(_) => {
                let grace = self.plan.options.revoke_grace;
                self.timers.set(now, grace, Timer::CutOff(id.clone()));
            }
            // The end is on its way to the store, which answers if the revocation came first.
            Phase::Ending { .. } | Phase::GivenBack => {}
        }
    }

    /// Its grace is over. A blocking task goes on until it sees that it should end.
    pub(super) fn cut_off(&self, id: &RunId) {
        if let Some(run) = self.table.get(id) {
            run.cut_off();
        }
    }
}
