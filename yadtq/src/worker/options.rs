//! How a worker works, and what it runs.

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc, thread::available_parallelism, time::Duration};

use crate::{
    core::{limits::Rate, names::Queue, retry::Retry},
    periodic,
    task::{Definition, States},
};

/// The time after which it is looked whether the store is connected again.
pub(crate) const CONNECTION_INTERVAL: Duration = Duration::from_millis(50);
/// How long a lease lasts by default: of a task, and of a partition.
pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(6);

/// How a worker works; the builder documents each.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) concurrency: usize,
    pub(crate) blocking_concurrency: usize,
    pub(crate) drain_timeout: Duration,
    pub(crate) lease: Duration,
    pub(crate) max_deliveries: u32,
    pub(crate) max_record_bytes: usize,
    pub(crate) max_result_bytes: usize,
    /// `None`: that of the outcome.
    pub(crate) result_ttl: Option<Duration>,
    pub(crate) revoke_grace: Duration,
    pub(crate) unknown_task_grace: Duration,
    pub(crate) unknown_task_window: Duration,
    pub(crate) strict_priority: bool,
    pub(crate) retry: Retry,
    pub(crate) scheduler: bool,
}

impl Options {
    /// How many tasks run at once, of both kinds.
    pub(crate) fn slots(&self) -> usize {
        self.concurrency.saturating_add(self.blocking_concurrency)
    }
}

impl Default for Options {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            concurrency: 10 * cores,
            blocking_concurrency: cores,
            drain_timeout: Duration::from_secs(30),
            lease: DEFAULT_LEASE,
            max_deliveries: 5,
            max_record_bytes: 8 * 1_024 * 1_024,
            max_result_bytes: 1_024 * 1_024,
            result_ttl: None,
            revoke_grace: Duration::from_secs(5),
            unknown_task_grace: Duration::from_secs(5),
            unknown_task_window: Duration::from_secs(3_600),
            strict_priority: false,
            retry: Retry::new(),
            scheduler: true,
        }
    }
}

/// What a worker runs, checked.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) tasks: HashMap<&'static str, Definition>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) state: States,
    pub(crate) periodics: Arc<[periodic::Plan]>,
    pub(crate) queue_rates: HashMap<String, Rate>,
    pub(crate) options: Options,
}

#[cfg(test)]
impl Plan {
    /// One queue, and the task `noop`.
    pub(crate) fn for_test() -> Self {
        let noop = crate::task::Task::definition(&super::job::noop);
        Self {
            tasks: [(noop.name(), noop)].into(),
            queues: vec![Queue::default()],
            state: States::default(),
            periodics: Arc::from([]),
            queue_rates: HashMap::new(),
            options: Options::default(),
        }
    }
}
