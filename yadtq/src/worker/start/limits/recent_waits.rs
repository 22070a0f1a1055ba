//! Which limits made tasks wait lately: others under the same limit will have to wait too.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

/// For this long after a task had to wait for a limit, others under this limit take no room when they are claimed, since they
/// will have to wait too.
pub(super) const WILL_WAIT_PERIOD: Duration = Duration::from_secs(1);

/// For limits: when a task last had to wait for this one.
#[derive(Default)]
pub(super) struct RecentWaits {
    at: HashMap<Arc<str>, Instant>,
    latest: Option<Instant>,
    /// Number of limits above which old ones are forgotten.
    sweep_at: usize,
}

impl RecentWaits {
    /// A task had to wait for this limit.
    pub(super) fn note(&mut self, limit: Arc<str>, now: Instant) {
        const MIN_SWEEP: usize = 1_024;
        if self.at.len() > self.sweep_at.max(MIN_SWEEP) {
            self.at.retain(|_, at| is_recent(*at, now));
            self.sweep_at = 2 * self.at.len();
        }
        self.at.insert(limit, now);
        self.latest = Some(now);
    }

    /// Whether any limit made a task wait lately.
    pub(super) fn has_any(&self, now: Instant) -> bool {
        self.latest.is_some_and(|at| is_recent(at, now))
    }

    /// Whether this limit did.
    pub(super) fn has(&self, limit: &str, now: Instant) -> bool {
        self.at.get(limit).is_some_and(|at| is_recent(*at, now))
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < WILL_WAIT_PERIOD
}
