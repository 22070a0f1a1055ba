//! A task as a worker registers it.

use std::{fmt, time::Duration};

use super::{Body, Limits, TaskOptions, state::NeededState};
use crate::core::{limits::Rate, priority::Priority, retry::Retry};

/// A task's name, options and body, as a worker registers it. Made by `#[yadtq::task]`, which sets its fields.
#[derive(Clone)]
pub struct Definition {
    pub(crate) name: &'static str,
    #[doc(hidden)]
    pub queue: Option<&'static str>,
    #[doc(hidden)]
    pub expires: Option<Duration>,
    #[doc(hidden)]
    pub unique: Option<Duration>,
    #[doc(hidden)]
    pub priority: Priority,
    #[doc(hidden)]
    pub limits: Limits,
    #[doc(hidden)]
    pub options: TaskOptions,
    #[doc(hidden)]
    pub states: Vec<NeededState>,
    pub(crate) body: Body,
}

impl Definition {
    /// A definition without options.
    #[doc(hidden)]
    #[must_use]
    pub fn new(name: &'static str, body: Body) -> Self {
        Self {
            name,
            queue: None,
            expires: None,
            unique: None,
            priority: Priority::Normal,
            limits: Limits::default(),
            options: TaskOptions::default(),
            states: Vec::new(),
            body,
        }
    }

    /// The task's name in records.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The queue to which the task is sent, unless the sender chooses another. `None`: `default`.
    #[must_use]
    pub fn queue(&self) -> Option<&'static str> {
        self.queue
    }

    /// How soon the task starts, compared with other tasks of its queue, unless the sender chooses a priority.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// How long results are kept after the task has ended; zero keeps none. `None`: the worker decides.
    #[must_use]
    pub fn result_ttl(&self) -> Option<Duration> {
        self.options.result_ttl
    }

    /// For how long a later call with the same arguments makes no second task. `None`: every call makes one.
    #[must_use]
    pub fn unique(&self) -> Option<Duration> {
        self.unique
    }

    /// The time after a call within which the task must start; later it is revoked. `None`: no limit.
    #[must_use]
    pub fn expires(&self) -> Option<Duration> {
        self.expires
    }

    /// The largest rate at which tasks start, over all workers. `None`: no limit.
    #[must_use]
    pub fn rate_limit(&self) -> Option<Rate> {
        self.limits.rate
    }

    /// The largest number of tasks that run at once, over all workers. `None`: no limit.
    #[must_use]
    pub fn max_running(&self) -> Option<u32> {
        self.limits.max_running
    }

    /// The parameter by whose value tasks are limited: every value has limits of its own. `None`: all tasks share the limits.
    #[must_use]
    pub fn limit_key(&self) -> Option<&'static str> {
        self.limits.key.map(|(parameter, _)| parameter)
    }

    /// The number of retries and the delays between them. The worker decides what it leaves out.
    pub fn retry(&self) -> Retry {
        self.options.retry
    }

    /// The longest time that one run may take. `None`: no limit.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.options.timeout
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocking = matches!(self.body, Body::Blocking(_));
        f.debug_struct("Definition").field("name", &self.name).field("blocking", &blocking).finish_non_exhaustive()
    }
}
