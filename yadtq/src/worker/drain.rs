//! The end of a worker: lets what runs finish, and hands back what does not.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    control::{Control, EXTEND, FINISHES},
    execute::{Finish, LONGEST},
    job::{Job, Lane, Run},
    run::Stop,
    step::{Due, PAUSE, Step},
};
use crate::{
    core::{lifecycle::Token, names::TaskId},
    store::{Lease, StoreError},
};

/// How long a task that was given back is left to others, before this worker asks for it again.
const BREATH: Duration = Duration::from_millis(100);
/// How often a hand-back is tried.
const RELEASES: usize = 5;
/// How long the last words to tasks and servers may take.
const GOODBYE: Duration = Duration::from_secs(5);

impl Control {
    /// Leaves the group at once, so that others get what waits, and watch what still runs here. Then waits.
    pub(super) async fn drain(&mut self, finishes: &mut mpsc::UnboundedReceiver<Finish>, stop: &Stop) {
        let limit = self.plan.options.drain_timeout;
        info!(event = "worker_draining", worker = %self.id, running = self.runs.len(), ?limit, "takes no new tasks");
        self.end_polling().await;
        self.sources.iter_mut().for_each(super::source::Source::clear);
        let closing = tokio::spawn(self.close());
        self.give_back_waiting(|_| true);
        let limit = limit.min(LONGEST);
        self.finish_until(Instant::now() + limit, &stop.now, finishes, Self::is_idle).await;
        self.runs.values().for_each(Run::stop);
        self.finish_until(Instant::now() + GOODBYE, &CancellationToken::new(), finishes, Self::is_rid).await;
        for run in self.runs.values() {
            warn!(event = "task_abandoned", worker = %self.id, task_id = %run.job.envelope.id, task = %run.job.ask.task,
                "it does not end; its lease does, in a few seconds");
        }
        // Only a panic could make the closing fail, and that is logged where it happens.
        let goodbye = async { tokio::join!(closing, self.store.leave(&self.id)).1 };
        match timeout(GOODBYE, goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(event = "goodbye_failed", worker = %self.id, %error, "the others will notice"),
            Err(_) => warn!(event = "goodbye_failed", worker = %self.id, "no answer; the others will notice"),
        }
        info!(event = "worker_disconnected", worker = %self.id, processed = self.processed, failed = self.failed, "worker ends");
    }

    /// Drops everything: by now it may have been finished elsewhere, and forgotten.
    pub(super) async fn forget(&mut self) {
        warn!(event = "worker_stood_still", worker = %self.id, running = self.runs.len(),
            "this machine stood still for too long; everything is dropped, and a new worker goes on");
        // No call may go out any more: an extension would take a lease back that nobody holds.
        self.calls.clear();
        self.runs.values().for_each(Run::stop);
        if timeout(GOODBYE, self.close()).await.is_err() {
            warn!(event = "goodbye_failed", worker = %self.id, "no answer; the others will notice");
        }
    }

    fn close(&self) -> impl Future<Output = ()> + Send + 'static {
        let subscriptions: Vec<_> = self.sources.iter().filter_map(|source| source.subscription().cloned()).collect();
        async move {
            join_all(subscriptions.iter().map(|subscription| subscription.close())).await;
        }
    }

    /// Goes on, without taking tasks, until it is done, told to hurry, or the time is over.
    async fn finish_until(
        &mut self, deadline: Instant, hurry: &CancellationToken, finishes: &mut mpsc::UnboundedReceiver<Finish>,
        done: fn(&Self) -> bool,
    ) {
        let mut extend = interval(EXTEND);
        extend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        while !done(self) {
            self.pump_limits();
            self.pump_settling();
            tokio::select! {
                Some(step) = self.calls.next() => self.take(step),
                _ = finishes.recv_many(&mut batch, FINISHES) => self.finished(&mut batch),
                Some(due) = self.later.next() => self.due(due.into_inner()),
                _ = extend.tick() => {
                    self.extend();
                    self.beat();
                }
                () = sleep_until(deadline) => return,
                () = hurry.cancelled() => return,
            }
        }
    }

    /// Nothing runs, and all is said.
    fn is_idle(&self) -> bool {
        let has_said = self.releasing == 0 && self.publishing == 0 && self.limits.is_quiet();
        self.runs.is_empty() && has_said && !self.claims.asking && !self.ticking
    }

    /// Nothing is left that could be handed back: what still runs cannot be stopped.
    fn is_rid(&self) -> bool {
        let stuck = self.runs.values().all(|run| run.job.lane() == Lane::Blocking);
        stuck
            && self.releasing == 0
            && self.publishing == 0
            && self.endings.is_empty()
            && !self.settling
            && !self.claims.asking
    }

    /// Gives tasks back, so that anybody may run them at once. These jobs are asked for again, a moment
    /// after that is done.
    pub(super) fn give_back(&mut self, runs: &[Run], again: Vec<Arc<Job>>) {
        if runs.is_empty() {
            return;
        }
        info!(event = "tasks_handed_back", worker = %self.id, tasks = runs.len(), "handed back");
        let leases: Vec<Lease> = runs.iter().map(Run::lease).collect();
        let store = Arc::clone(&self.store);
        self.releasing += 1;
        self.calls.push(Box::pin(async move {
            // Worth a few tries: a lease that merely ends counts as a crash.
            let mut error = None;
            for _ in 0..RELEASES {
                error = store.release(&leases).await.err();
                if error.is_none() {
                    break;
                }
                sleep(PAUSE).await;
            }
            Step::Released { again, error }
        }));
    }

    /// Gives granted tasks back that have not started.
    pub(super) fn give_back_waiting(&mut self, which: impl Fn(&Run) -> bool) {
        let waiting = |(id, token): &(TaskId, Token)| self.runs.get(id).filter(|run| run.token == *token && which(run));
        let ids: HashSet<TaskId> =
            self.slots.granted().filter_map(waiting).map(|run| run.job.envelope.id.clone()).collect();
        self.slots.retain_granted(|id| !ids.contains(id));
        let runs: Vec<Run> = ids.iter().filter_map(|id| self.runs.remove(id)).collect();
        let again = runs.iter().flat_map(Run::jobs).cloned().collect();
        self.give_back(&runs, again);
    }

    pub(super) fn released(&mut self, again: Vec<Arc<Job>>, error: Option<StoreError>) {
        self.releasing -= 1;
        if let Some(error) = error {
            warn!(event = "hand_back_failed", worker = %self.id, %error, "their leases end in a few seconds");
        }
        for job in again {
            self.later.insert(Due::Ask(job), BREATH);
        }
    }
}
