//! What an operator asks: tasks, workers, queues, servers, dead letters.

pub(crate) mod dead_letters;
pub(crate) mod letter;
pub(crate) mod orders;
mod purge;
pub(crate) mod replay;
mod settled;
mod walk;

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::value::RawValue;

use self::dead_letters::DeadLetters;
use crate::{
    broker::{Broker, QueueDepth},
    config::Config,
    core::{
        lifecycle::{Status, TaskState},
        names::{Namespace, TaskId},
        ticks::Declared,
    },
    error::Error,
    periodic,
    store::{Store, WorkerInfo},
    wire::failure::Failure,
};

/// The operator's view; see [`Client::admin`](crate::Client::admin).
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let client = yadtq::Client::embedded();
/// let report = client.admin().ping().await;
/// assert!(report.kafka.is_ok() && report.redis.is_ok());
/// # });
/// ```
#[derive(Debug)]
pub struct Admin {
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    config: Config,
}

/// A task as the result backend has it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct TaskInfo {
    /// The task's id.
    pub id: String,
    /// `queued`, `scheduled`, `running`, `retrying`, `success`, `failure` or `revoked`.
    pub status: String,
    /// The task's name.
    pub task: String,
    /// Its queue.
    pub queue: String,
    /// The latest attempt, from 1.
    pub attempt: u32,
    /// How many workers died while they ran it.
    pub deliveries: u32,
    /// The worker that runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The result, if it succeeded and its result is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// The error, if it failed, or its latest attempt did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// What the running task has last told of how far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Box<RawValue>>,
    /// When it may run, if it waits for its time or a retry, in ms since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<u64>,
    /// When it was submitted, in ms since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<u64>,
    /// When its latest run started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<u64>,
}

/// A periodic task as its workers have declared it. Times are in ms since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct PeriodicInfo {
    /// The name.
    pub name: String,
    /// The cron expression, or `every` and the interval.
    pub schedule: String,
    /// The time zone of the cron expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What becomes of missed ticks: `run-once` or `skip`.
    pub missed: String,
    /// The name of the task.
    pub task: String,
    /// The queue that it is sent to.
    pub queue: String,
    /// The next tick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// The latest tick that was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// The id of the task of that tick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_id: Option<String>,
    /// When a worker has declared it last; each does so every 10 s.
    pub declared_at: u64,
}

/// What [`Admin::ping`] found of one server.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerReport {
    /// Product, version and address, in one line.
    pub summary: String,
    /// How long the answer took.
    #[serde(skip)]
    pub took: Duration,
    /// Settings that endanger tasks or results, each with its remedy.
    pub warnings: Vec<String>,
}

/// What [`Admin::ping`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PingReport {
    /// Where the client looked, without passwords.
    pub servers: String,
    /// Kafka's answer.
    pub kafka: Result<ServerReport, Error>,
    /// Redis's answer.
    pub redis: Result<ServerReport, Error>,
}

impl Admin {
    pub(crate) fn new(broker: Arc<dyn Broker>, store: Arc<dyn Store>, config: Config) -> Self {
        Self { broker, store, config }
    }

    pub(crate) fn broker(&self) -> &dyn Broker {
        &*self.broker
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.config.clock.now_ms()
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.config.namespace
    }

    /// A task by its id; `None` if the result backend has nothing of it.
    ///
    /// # Errors
    /// Redis does not answer, or another program uses the task's key.
    pub async fn task(&self, id: &TaskId) -> Result<Option<TaskInfo>, Error> {
        let mut states = self.store.read(std::slice::from_ref(id), None).await?;
        let state = states.pop().expect("one answer an id")?;
        Ok(state.map(|state| TaskInfo::new(id, state)))
    }

    /// Workers that have sent a heartbeat lately.
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        Ok(self.store.workers().await?)
    }

    /// Depth and lag of every queue.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn queues(&self) -> Result<Vec<QueueDepth>, Error> {
        Ok(self.broker.queues().await?)
    }

    /// The dead letters: tasks that failed for good, and records that could not be run.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(Arc::clone(&self.broker), Arc::clone(&self.store), self.config.clone())
    }

    /// Periodic tasks that workers have declared, by name. One that no worker declares any more is listed until 7 days
    /// after its next tick.
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

    /// Asks both servers who they are, and looks for settings that endanger tasks or results.
    pub async fn ping(&self) -> PingReport {
        let start = tokio::time::Instant::now();
        let kafka = async {
            let info = self.broker.ping().await?;
            Ok(ServerReport { summary: info.summary, took: start.elapsed(), warnings: info.warnings })
        };
        let redis = async {
            let info = self.store.ping().await?;
            Ok(ServerReport { summary: info.summary, took: start.elapsed(), warnings: info.warnings })
        };
        let (kafka, redis) = tokio::join!(kafka, redis);
        PingReport { servers: self.config.servers(), kafka, redis }
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

impl TaskInfo {
    fn new(id: &TaskId, state: TaskState) -> Self {
        let json = |text: Arc<str>| RawValue::from_string(text.to_string()).ok();
        Self {
            id: id.to_string(),
            status: state.status.to_string(),
            task: state.task.to_string(),
            queue: state.queue.to_string(),
            attempt: state.attempt,
            deliveries: state.deliveries,
            worker: state.worker.map(|worker| worker.to_string()),
            result: state.result.and_then(json),
            error: state.error.and_then(|text| serde_json::from_str(&text).ok()),
            progress: state.progress.and_then(|progress| json(progress.value)),
            eta: state.eta.filter(|_| matches!(state.status, Status::Scheduled | Status::Retrying)),
            queued_at: state.queued_at,
            started_at: state.started_at,
            finished_at: state.finished_at,
        }
    }
}
