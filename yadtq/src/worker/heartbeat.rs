//! Says that the worker lives, hears of workers that do not, and notices when it did not itself.

use std::{sync::Arc, time::Duration};

use tracing::{debug, error, info, warn};

use super::{
    control::{Control, LEASE},
    execute::millis,
    step::Step,
};
use crate::{
    clock::Clock,
    store::{StoreError, WorkerInfo},
};

/// Standing still for longer than this, a worker drops what it holds. Half of [`Held::MEMORY_MS`], for which a
/// worker's memory may stand in for a record that the store has lost.
///
/// [`Held::MEMORY_MS`]: crate::core::lifecycle::Held::MEMORY_MS
const TOO_LONG: Duration = Duration::from_secs(15 * 60);
/// Running tasks that are listed by id.
const LISTED: usize = 100;

/// A heartbeat's answer.
pub(super) struct Beaten {
    lost: Result<(Vec<WorkerInfo>, u64), StoreError>,
}

/// Notices a machine that was suspended: by its own clock, which goes on while it sleeps, and by the store's,
/// since the clocks of a paused virtual machine stand still.
pub(super) struct Stillness {
    clock: Arc<dyn Clock>,
    last_turn: Duration,
    last_beat: Option<(Duration, u64)>,
    too_long: bool,
}

impl Stillness {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { last_turn: clock.steady(), clock, last_beat: None, too_long: false }
    }

    /// Called once in every turn of the loop.
    pub(super) fn stood_still(&mut self) -> bool {
        let now = self.clock.steady();
        self.too_long |= now.saturating_sub(self.last_turn) > TOO_LONG;
        self.last_turn = now;
        self.too_long
    }

    /// Called with the store's time, in µs, of every heartbeat.
    fn compare(&mut self, store_us: u64) {
        let now = self.clock.steady();
        if let Some((steady, us)) = self.last_beat {
            let theirs = Duration::from_micros(store_us.saturating_sub(us));
            self.too_long |= theirs.saturating_sub(now.saturating_sub(steady)) > TOO_LONG;
        }
        self.last_beat = Some((now, store_us));
    }
}

impl Control {
    pub(super) fn beat(&mut self) {
        if self.beating {
            return;
        }
        let ids = self.runs.keys().take(LISTED).map(ToString::to_string);
        let info = WorkerInfo {
            id: self.id.to_string(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            queues: self.plan.queues.iter().map(ToString::to_string).collect(),
            slots: self.plan.options.concurrency.saturating_add(self.plan.options.blocking_concurrency),
            running: self.runs.len(),
            running_ids: ids.collect(),
            processed: self.processed,
            failed: self.failed,
            overrun: self.overrun,
            started_at: self.started_at,
            seen_at: 0,
        };
        let store = Arc::clone(&self.store);
        // After an outage everybody's last heartbeat is old.
        let settled = store.connected_for().is_some_and(|up| up >= LEASE);
        let lost_after = settled.then(|| millis(LEASE));
        self.beating = true;
        self.calls.push(Box::pin(async move {
            let lost = async { Ok((store.beat(&info, lost_after).await?, store.now_us().await?)) };
            Step::Beaten(Beaten { lost: lost.await })
        }));
    }

    pub(super) fn beaten(&mut self, Beaten { lost }: Beaten) {
        self.beating = false;
        match lost {
            Ok((lost, store_us)) => {
                if !self.connected {
                    self.connected = true;
                    info!(event = "worker_connected", worker = %self.id, "registered; ready for tasks");
                }
                debug!(event = "heartbeat", worker = %self.id, running = self.runs.len(), processed = self.processed,
                    failed = self.failed, "heartbeat");
                self.stillness.compare(store_us);
                for WorkerInfo { id, host, pid, running, .. } in lost {
                    warn!(event = "worker_lost", worker = %self.id, lost_worker = %id, host, pid, running,
                        "a worker has stopped sending heartbeats; its tasks run again elsewhere");
                }
            }
            Err(error) => {
                warn!(event = "heartbeat_failed", worker = %self.id, %error, "trying again");
                self.connected = false;
            }
        }
    }

    /// Looks once for settings of the servers that endanger tasks or results.
    pub(super) fn inspect(&mut self) {
        let (broker, store) = (Arc::clone(&self.broker), Arc::clone(&self.store));
        self.calls.push(Box::pin(async move {
            match broker.ping().await {
                Ok(info) => warn_all("broker_warning", &info.summary, &info.warnings),
                Err(error) => warn!(event = "broker_unreachable", %error, "kafka cannot be reached yet; trying on"),
            }
            match store.ping().await {
                Ok(info) => warn_all("backend_warning", &info.summary, &info.warnings),
                Err(error) => warn!(event = "backend_unreachable", %error, "redis cannot be reached yet; trying on"),
            }
            Step::Inspected
        }));
    }
}

fn warn_all(event: &'static str, server: &str, warnings: &[String]) {
    for warning in warnings {
        error!(event, server, "{warning}");
    }
}
