//! Which leases are extended, and what the answers mean. Short tasks end before their first extension, so they cost none.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    Runs,
    run::{Phase, Run, StopReason},
};
use crate::{
    core::lifecycle::Extended,
    store::{Answers, Lease, StoreError},
    worker::{
        effect::{Effect, Effects, Ended},
        job::RunId,
    },
};

/// A lease that was confirmed within this part of its length is not extended yet.
const FRESH_PART: u32 = 12;
/// An extension that failed is sent again after this part of the lease.
const RETRY_PART: u32 = 24;
/// A task that has waited for a slot for this long since it was granted is given back: others may have a free one.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// The time between two extensions of the leases of running tasks: one may fail, and its lease lives on.
pub(in crate::worker) fn extend_interval(lease: Duration) -> Duration {
    lease / 3
}

impl Runs {
    /// Leases that are due to be extended.
    pub(in crate::worker) fn leases_due(&self, now: Instant) -> Vec<Lease> {
        let fresh = self.plan.options.lease / FRESH_PART;
        let is_due = |confirmed| now.saturating_duration_since(confirmed) >= fresh;
        self.leases(|run| is_due(run.confirmed), now)
    }

    /// All leases: the answers to their extension say which tasks are to end.
    pub(in crate::worker) fn all_leases(&self, now: Instant) -> Vec<Lease> {
        self.leases(|_| true, now)
    }

    /// Extensions were not answered, or could not be sent: they are sent again soon, and not only when it is their turn. So two more
    /// attempts fit into the lease.
    pub(in crate::worker) fn extend_again(&mut self, now: Instant) {
        self.extend_again_at = Some(now + self.plan.options.lease / RETRY_PART);
    }

    /// Whether leases have to be extended again, once.
    pub(in crate::worker) fn take_extension_due(&mut self, now: Instant) -> bool {
        self.extend_again_at.take_if(|at| *at <= now).is_some()
    }

    /// The lease of what is being given back must not be made anew.
    fn leases(&self, which: impl Fn(&Run) -> bool, now: Instant) -> Vec<Lease> {
        let held = self.table.iter().filter(|run| !matches!(run.phase, Phase::GivenBack) && which(run));
        held.map(|run| run.lease(now)).collect()
    }

    /// Notes whether runs wait for a slot, so that they are given back in time.
    pub(super) fn watch_waiting(&mut self, now: Instant) {
        let has_waiting = self.slots.has_waiting();
        self.give_back_at = has_waiting.then(|| self.give_back_at.unwrap_or(now + READY_TIMEOUT));
    }

    /// Gives tasks back, when it is time, that were claimed ahead for a throughput that did not last. This worker claims them
    /// again if it has a slot before the others.
    pub(in crate::worker) fn give_back_waiting(&mut self, is_connected: bool, now: Instant, out: &mut Effects) {
        if self.give_back_at.is_none_or(|at| at > now) {
            return;
        }
        self.give_back_at = None;
        if is_connected {
            let table = &self.table;
            let has_waited = |run: &Run| now.saturating_duration_since(run.granted) >= READY_TIMEOUT;
            let ids = self.slots.take_ready(|id| table.get(id).is_none_or(has_waited));
            out.extend(ids.into_iter().map(|id| Effect::End(id, Ended::GivenBack(Duration::ZERO))));
        }
        // What waits for less is looked at again then, and so is everything if the store could not take it back.
        self.watch_waiting(now);
    }

    /// The answers to a batch of extensions.
    pub(in crate::worker) fn extended(
        &mut self, leases: &[Lease], sent: Instant, answers: Answers<Extended>, now: Instant, out: &mut Effects,
    ) {
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                warn!(event = "leases_not_extended", worker = %self.worker, tasks = leases.len(), %error, "trying again");
                self.extend_again(now);
                return;
            }
        };
        // In a cluster, of those whose master is away.
        let mut unanswered: Option<(usize, StoreError)> = None;
        for (lease, answer) in leases.iter().zip(answers) {
            let id = RunId { task: lease.id.clone(), token: lease.held.token };
            match answer {
                Ok(Extended::Live) => self.confirm(&id, sent),
                Ok(Extended::Revoking) => {
                    self.confirm(&id, sent);
                    self.revoke(&id, now, out);
                }
                Ok(Extended::Lost) => self.lost(&id),
                Err(error) if error.is_outage() => unanswered.get_or_insert((0, error)).0 += 1,
                Err(error) => {
                    warn!(event = "leases_not_extended", worker = %self.worker, task_id = %id.task.shown(), %error, "trying again");
                    self.extend_again(now);
                }
            }
        }
        if let Some((tasks, error)) = unanswered {
            debug!(event = "leases_not_extended", worker = %self.worker, tasks, %error, "trying again");
            self.extend_again(now);
        }
    }

    fn confirm(&mut self, id: &RunId, sent: Instant) {
        if let Some(run) = self.table.get_mut(id) {
            run.confirmed = sent;
        }
    }

    /// Asks a task to end, because another run has it. Not one that has ended and is about to be recorded.
    fn lost(&mut self, id: &RunId) {
        let Some(run) = self.table.get_mut(id).filter(|run| !run.phase.is_ending()) else { return };
        if run.stop.is_none() {
            debug!(event = "task_cancelled", worker = %self.worker, task_id = %id.task.shown(), why = "its lease is lost",
                "asked to end");
            run.ask_to_end(StopReason::LeaseLost);
        }
    }
}
