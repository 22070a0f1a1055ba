//! What a worker reports about itself with every heartbeat, and which lost workers it learns of from the answer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::{
    clock::millis,
    core::names::WorkerId,
    store::{Beaten, RunningIn, StoreError, WorkerInfo},
    worker::{
        options::{CONNECTION_INTERVAL, Plan},
        runs::run::Run,
    },
};

/// The most running tasks that a heartbeat lists by id.
const MAX_LISTED_TASKS: usize = 100;
/// The most bytes of the names of tasks that it lists.
const MAX_NAME_BYTES: usize = 8 * 1_024;
/// After this time without a subscription the worker's channel is subscribed to again.
const DEAF_TIMEOUT: Duration = Duration::from_secs(3);

/// The heartbeat of a worker.
pub(in crate::worker) struct Heartbeat {
    worker: WorkerId,
    plan: Arc<Plan>,
    /// The names of the tasks that it knows.
    tasks: Vec<String>,
    /// When the worker started, in ms since the Unix epoch.
    started_ms: u64,
    /// Whether the latest heartbeat was answered.
    is_connected: bool,
    /// When the next heartbeat is due.
    pub(in crate::worker) due: Instant,
    /// The store's time, in ms, of the last heartbeat that was answered; 0: none was.
    pub(in crate::worker) answered_ms: u64,
    /// When that was, on the clock of this process.
    answered_at: Instant,
    /// Since when the store says that nobody listens on this worker's channel.
    deaf_since: Option<Instant>,
}

/// How much a worker runs and has run.
pub(in crate::worker) struct Counts {
    /// Number of tasks whose lease it holds.
    pub(in crate::worker) running: usize,
    /// Number of tasks that ended since it started.
    pub(in crate::worker) processed: u64,
    /// Number of tasks that failed since it started.
    pub(in crate::worker) failed: u64,
    /// Number of blocking tasks that went on beyond their timeout since it started.
    pub(in crate::worker) overrun: u64,
}

impl Heartbeat {
    /// `started_ms`: when the worker started, in ms since the Unix epoch.
    pub(in crate::worker) fn new(worker: &WorkerId, plan: &Arc<Plan>, started_ms: u64, now: Instant) -> Self {
        Self {
            worker: Arc::clone(worker),
            plan: Arc::clone(plan),
            tasks: listed(plan.tasks.keys().copied()),
            started_ms,
            is_connected: false,
            due: now,
            answered_ms: 0,
            answered_at: now,
            deaf_since: None,
        }
    }

    /// What the next heartbeat says of the tasks that run.
    pub(in crate::worker) fn info<'a>(
        &self, counts: &Counts, runs: impl Iterator<Item = &'a Run> + Clone,
    ) -> WorkerInfo {
        let options = &self.plan.options;
        let mut running_in = BTreeMap::<_, u64>::new();
        for job in runs.clone().map(|run| &run.job) {
            *running_in.entry((&*job.ask.queue, job.at.source.priority)).or_default() += 1;
        }
        let ids = runs.map(|run| run.id.task.to_string());
        WorkerInfo {
            id: self.worker.to_string(),
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            queues: self.plan.queues.iter().map(ToString::to_string).collect(),
            tasks: self.tasks.clone(),
            slots: options.slots(),
            running: counts.running,
            running_in: running_in
                .into_iter()
                .map(|((queue, priority), tasks)| RunningIn { queue: queue.to_owned(), priority, tasks })
                .collect(),
            running_ids: ids.take(MAX_LISTED_TASKS).collect(),
            processed: counts.processed,
            failed: counts.failed,
            overrun: counts.overrun,
            started_ms: self.started_ms,
            seen_ms: 0,
        }
    }

    /// There is no connection to the store: a heartbeat would be sent late. Whether it is back is looked at soon.
    pub(in crate::worker) fn disconnected(&mut self, now: Instant) {
        self.is_connected = false;
        self.due = now + CONNECTION_INTERVAL;
    }

    /// The store's time, in ms: that of the last heartbeat that was answered, and what has passed since. The clocks of this machine and
    /// of the store's may differ, so nothing that the store has written is compared with the clock of this machine. Before the
    /// first answer it is 0, so that no lease seems to be over.
    pub(in crate::worker) fn store_ms(&self, now: Instant) -> u64 {
        if self.answered_ms == 0 {
            0
        } else {
            self.answered_ms + millis(now.saturating_duration_since(self.answered_at))
        }
    }

    /// The store's answer to a heartbeat. `true`: nobody listens on this worker's channel, and it has to be subscribed to again.
    pub(in crate::worker) fn answered(
        &mut self, answer: &Result<Beaten, StoreError>, counts: &Counts, now: Instant,
    ) -> bool {
        let Beaten { now_us, is_subscribed, lost, look_again_ms, .. } = match answer {
            Ok(beaten) => beaten,
            Err(error) => {
                // Of a cluster, the master that has the registry may be away for long.
                match std::mem::replace(&mut self.is_connected, false) || !error.is_outage() {
                    true => warn!(event = "heartbeat_failed", worker = %self.worker, %error, "trying again"),
                    false => debug!(event = "heartbeat_failed", worker = %self.worker, %error, "trying again"),
                }
                return false;
            }
        };
        if !self.is_connected {
            self.is_connected = true;
            info!(event = "worker_connected", worker = %self.worker, "registered; ready for tasks");
        }
        (self.answered_ms, self.answered_at) = (now_us / 1_000, now);
        if let Some(ms) = look_again_ms {
            self.due = self.due.min(now + Duration::from_millis(*ms));
        }
        debug!(event = "heartbeat", worker = %self.worker, running = counts.running, processed = counts.processed,
            failed = counts.failed, "heartbeat");
        for WorkerInfo { id, host, pid, running, .. } in lost {
            warn!(event = "worker_lost", worker = %self.worker, lost_worker = %id, host, pid, running,
                "a worker is dead; its tasks run again elsewhere");
        }
        let deaf_since = *self.deaf_since.get_or_insert(now);
        let is_deaf = !is_subscribed && now.saturating_duration_since(deaf_since) >= DEAF_TIMEOUT;
        if *is_subscribed || is_deaf {
            self.deaf_since = None;
        }
        is_deaf
    }
}

/// The names in their order, as far as there is room.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let (mut names, mut room): (Vec<_>, _) = (names.collect(), MAX_NAME_BYTES);
    names.sort_unstable();
    let fits = |name: &&str| {
        room = room.saturating_sub(name.len());
        room > 0
    };
    names.into_iter().take_while(fits).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_store_goes_on_between_heartbeats() {
        let start = Instant::now();
        let after = |secs| start + Duration::from_secs(secs);
        let mut heartbeat = Heartbeat::new(&"w".into(), &Arc::new(Plan::for_test()), 99_000, start);
        assert_eq!(heartbeat.store_ms(after(1)), 0);
        let counts = Counts { running: 0, processed: 0, failed: 0, overrun: 0 };
        let beaten = |now_us| Ok(Beaten { now_us, ..Beaten::default() });
        heartbeat.answered(&beaten(5_000_000), &counts, after(1));
        assert_eq!(heartbeat.store_ms(after(3)), 7_000);
        heartbeat.answered(&beaten(6_500_000), &counts, after(3));
        assert_eq!(heartbeat.store_ms(after(3)), 6_500);
    }
}
