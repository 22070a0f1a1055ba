//! The periodic tasks that workers declare.

use serde::Serialize;

use super::Admin;
use crate::{core::ticks::Declared, error::Error, periodic};

/// A periodic task, as workers declare it. Times are in ms since the Unix epoch.
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
    /// What happens to missed ticks: `run-once` or `skip`.
    pub missed: String,
    /// The name of the task that runs.
    pub task: String,
    /// The queue to which the task is sent.
    pub queue: String,
    /// The next tick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// The latest tick that was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// The id of the task that was sent for that tick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_id: Option<String>,
    /// When a worker last declared it. Every worker does so every 10 s.
    pub declared_at: u64,
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
            missed: declared.missed.to_string(),
            task: declared.task.to_string(),
            queue: declared.queue.to_string(),
            next: declared.next,
            last: declared.last,
            last_id: declared.last.map(|tick| periodic::id(name, tick).to_string()),
            declared_at: declared.declared_at,
        }
    }
}
