//! The names of everything that is kept in Redis.
//!
//! The braces are the cluster's hash tag: all that belongs to one task lies in one slot.

use crate::core::{
    names::{Namespace, TaskId},
    unique::UniqueKey,
};

/// Makes keys of one namespace.
#[derive(Debug)]
pub(super) struct Keys {
    namespace: String,
    task_prefix: String,
}

impl Keys {
    pub(super) fn new(namespace: &Namespace) -> Self {
        Self { namespace: namespace.to_string(), task_prefix: format!("{namespace}:task:{{") }
    }

    #[cfg(test)]
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The hash of a task.
    pub(super) fn task(&self, id: &TaskId) -> String {
        format!("{}{id}}}", self.task_prefix)
    }

    /// What stands before the id in a task's key; after it stands one brace.
    pub(super) fn task_prefix(&self) -> &str {
        &self.task_prefix
    }

    /// The reservation of a unique key. The first colon within the braces ends the task's name.
    pub(super) fn unique(&self, UniqueKey { task, key }: &UniqueKey) -> String {
        let task = task.replace('%', "%25").replace(':', "%3A");
        format!("{}:unique:{{{task}:{key}}}", self.namespace)
    }

    /// The hash of a worker.
    pub(super) fn worker(&self, id: &str) -> String {
        format!("{}:worker:{{{id}}}", self.namespace)
    }

    /// The sorted set of workers by last heartbeat.
    pub(super) fn workers(&self) -> String {
        format!("{}:workers", self.namespace)
    }

    /// What belongs to the set of workers and lies in its slot: `ring`, `suspects`, `dead`.
    pub(super) fn workers_part(&self, part: &str) -> String {
        format!("{{{}}}:{part}", self.workers())
    }

    /// What is known of the owners of a topic's partitions; other keys start with it.
    pub(super) fn owners(&self, topic: &str) -> String {
        format!("{}:owners:{{{topic}}}", self.namespace)
    }

    /// The free slots that are announced for a queue; other keys start with it.
    pub(super) fn idle(&self, queue: &str) -> String {
        format!("{}:idle:{{{queue}}}", self.namespace)
    }

    /// The hash of a periodic task.
    pub(super) fn tick(&self, name: &str) -> String {
        format!("{}:tick:{{{name}}}", self.namespace)
    }

    /// The sorted set of the names of periodic tasks, by when they are forgotten.
    pub(super) fn ticks(&self) -> String {
        format!("{}:ticks", self.namespace)
    }

    /// How far the starts under a rate have got.
    pub(super) fn rate(&self, limit: &str) -> String {
        format!("{}:rate:{{{limit}}}", self.namespace)
    }

    /// Who runs under a limit of tasks at once.
    pub(super) fn permits(&self, limit: &str) -> String {
        format!("{}:places:{{{limit}}}", self.namespace)
    }

    /// Written, for a moment, to see whether Redis takes writes.
    pub(super) fn probe(&self) -> String {
        format!("{}:probe", self.namespace)
    }

    /// The channel on which a client is notified of results.
    pub(super) fn reply(&self, client: &str) -> String {
        format!("{}{client}", self.reply_prefix())
    }

    /// The channel on which a worker is asked to end runs.
    pub(super) fn control(&self, worker: &str) -> String {
        format!("{}{worker}", self.control_prefix())
    }

    /// What stands before the worker in the name of its channel.
    pub(super) fn control_prefix(&self) -> String {
        format!("{}:control:", self.namespace)
    }

    /// What stands before the client in the name of its channel.
    pub(super) fn reply_prefix(&self) -> String {
        format!("{}:reply:", self.namespace)
    }
}
