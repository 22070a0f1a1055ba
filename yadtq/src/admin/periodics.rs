//! The periodic tasks that workers declare.

use std::time::SystemTime;

use serde::Serialize;

use super::{Admin, times};
use crate::{
    core::{
        names::TaskId,
        ticks::{Declared, Missed},
    },
    error::Error,
    periodic,
};

/// A periodic task, as workers declare it. In its JSON, times are in ms since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct PeriodicInfo {
    /// The name of the periodic task.
    pub name: String,
    /// The cron expression, or `every` and the interval.
    pub schedule: String,
    /// The time zone of the cron expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What happens to missed ticks.
    pub missed: Missed,
    /// The name of the task that runs.
    pub task: String,
    /// The queue to which the task is sent.
    pub queue: String,
    /// The next tick.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "times::write_some")]
    pub next: Option<SystemTime>,
    /// The latest tick that was sent.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "times::write_some")]
    pub last: Option<SystemTime>,
    /// The id of the task that was sent for that tick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_id: Option<TaskId>,
    /// When a worker last declared it. Every worker does so every 10 s.
    #[serde(serialize_with = "times::write")]
    pub declared_at: SystemTime,
}

impl Admin {
    /// The periodic tasks that workers declare, sorted by name. A task that no worker declares any more stays in the list
    /// until 7 days after its next tick.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let client = yadtq::Client::embedded();
    /// for periodic in client.admin().periodics().await? {
    ///     println!("{} runs {} next at {:?}", periodic.name, periodic.task, periodic.next);
    /// }
    /// # Ok::<(), yadtq::Error>(()) });
    /// ```
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn periodics(&self) -> Result<Vec<PeriodicInfo>, Error> {
        let all = self.store.periodics().await?;
        Ok(all.into_iter().map(|(name, declared)| PeriodicInfo::new(&name, declared)).collect())
    }
}

impl PeriodicInfo {
    fn new(name: &str, declared: Declared) -> Self {
        Self {
            name: name.to_owned(),
            schedule: declared.schedule.to_string(),
            time_zone: declared.zone.map(|zone| zone.to_string()),
            missed: declared.missed,
            task: declared.task.to_string(),
            queue: declared.queue.to_string(),
            next: declared.next.map(times::at),
            last: declared.last.map(times::at),
            last_id: declared.last.map(|tick| periodic::id(name, tick)),
            declared_at: times::at(declared.declared_at),
        }
    }
}
