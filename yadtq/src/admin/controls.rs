//! Controls for all workers: pause, resume and purge a queue, disable and enable a task.
//!
//! Each control is a record of the control topic. Workers read the whole topic when they start, and every record that is added
//! later. So a control stays in effect when workers restart and when Redis loses its data.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use serde::Serialize;

use super::{Admin, queues::backlog, times};
use crate::{
    broker::{Incoming, Outgoing, read_to_end},
    client::check_name,
    core::{
        controls::{ControlRecord, ControlState, Disabled},
        names::Queue,
        priority::Priority,
    },
    error::Error,
    wire::control::{self, CONTROL_PARTITION},
};

/// The controls in effect. In their JSON, times are in ms since the Unix epoch.
///
/// ```no_run
/// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
/// for disabled in client.admin().controls().await?.disabled {
///     println!("{} does not run: {}", disabled.task, disabled.then);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Controls {
    /// Queues from which workers take no tasks, sorted by name.
    pub paused: Vec<PausedQueue>,
    /// Tasks that do not run, sorted by name.
    pub disabled: Vec<DisabledTask>,
    /// Queues that were purged, sorted by name, each with its latest purge.
    pub purged: Vec<PurgedQueue>,
}

/// A queue from which workers take no tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct PausedQueue {
    /// The queue.
    pub queue: String,
    /// When it was paused.
    #[serde(serialize_with = "times::write")]
    pub since: SystemTime,
}

/// A task that does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DisabledTask {
    /// The task's name.
    pub task: String,
    /// What happens to tasks of this name.
    pub then: Disabled,
    /// When it was disabled.
    #[serde(serialize_with = "times::write")]
    pub since: SystemTime,
}

/// A queue that was purged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct PurgedQueue {
    /// The queue.
    pub queue: String,
    /// When it was last purged.
    #[serde(serialize_with = "times::write")]
    pub at: SystemTime,
}

impl Admin {
    /// Pauses a queue: workers take no tasks from it, of any priority, until it is resumed. Running tasks continue to their
    /// end. Tasks can still be sent to the queue, and delayed tasks and retries still come to it; they wait in Kafka. Workers
    /// apply the pause within 2 s. It stays in effect when workers restart and when Redis loses its data.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let admin = yadtq::Client::embedded().admin();
    /// admin.pause("mail").await?;
    /// assert_eq!(admin.controls().await?.paused[0].queue, "mail");
    /// admin.resume("mail").await?;
    /// assert!(admin.controls().await?.paused.is_empty());
    /// # Ok::<(), yadtq::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The name is not a valid queue name. Kafka does not answer: the queue may or may not be paused, and can be paused again.
    pub async fn pause(&self, queue: &str) -> Result<(), Error> {
        let queue = checked(queue)?.to_string();
        self.publish(ControlRecord::Pause { queue, at: self.now_ms() }).await
    }

    /// Lets workers take tasks from a paused queue again.
    ///
    /// # Errors
    /// The same as those of [`pause`](Self::pause).
    pub async fn resume(&self, queue: &str) -> Result<(), Error> {
        let queue = checked(queue)?.to_string();
        self.publish(ControlRecord::Resume { queue, at: self.now_ms() }).await
    }

    /// Revokes all tasks that wait in a queue, of any priority: they will not run, and whoever awaits one gets
    /// [`Error::Purged`]. Returns how many tasks waited or ran. Running tasks continue. Delayed tasks and retries are not in
    /// the queue yet, and stay. Tasks that are sent after the purge run.
    ///
    /// The queue's workers revoke the tasks, within some seconds, even if the queue is paused. If no worker runs, the next one
    /// does it. A task may be missed if its sender's clock is ahead of this machine's clock by more than 10 s.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let client = yadtq::Client::embedded();
    /// let purged = client.admin().purge("mail").await?;
    /// # assert_eq!(purged, 0);
    /// # Ok::<(), yadtq::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The name is not a valid queue name. Kafka does not answer: the queue may or may not be purged, and can be purged again.
    pub async fn purge(&self, queue: &str) -> Result<u64, Error> {
        let queue = checked(queue)?;
        let depths = self.broker.queues().await?;
        let tasks = depths.iter().filter(|depth| depth.queue == queue.as_str()).map(backlog).sum();
        let mut below = BTreeMap::new();
        for priority in Priority::ALL {
            let offset_ranges = self.broker.offset_ranges(&self.namespace().topic_of(&queue, priority).into()).await?;
            let ends: Vec<_> = offset_ranges.iter().map(|offsets| (offsets.partition, offsets.end)).collect();
            if !ends.is_empty() {
                below.insert(priority, ends);
            }
        }
        if !below.is_empty() {
            self.publish(ControlRecord::Purge { queue: queue.to_string(), at: self.now_ms(), below }).await?;
        }
        Ok(tasks)
    }

    /// Disables a task: workers start no task of this name, in any queue, until it is enabled. `then` says what happens to
    /// tasks of this name in the meantime. Running tasks continue to their end. Workers apply this within 2 s. It stays in
    /// effect when workers restart and when Redis loses its data.
    ///
    /// Tasks that wait do not block the tasks behind them. A worker checks a waiting task again after as much time as the
    /// name has been disabled, at least 5 s and at most 1 min, so it runs within a minute after it is enabled.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use yadtq::admin::Disabled;
    ///
    /// let admin = yadtq::Client::embedded().admin();
    /// admin.disable_task("send_email", Disabled::Wait).await?;
    /// assert_eq!(admin.controls().await?.disabled[0].task, "send_email");
    /// admin.enable_task("send_email").await?;
    /// # Ok::<(), yadtq::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The name is not a valid task name. Kafka does not answer: the task may or may not be disabled, and can be disabled
    /// again.
    pub async fn disable_task(&self, task: &str, then: Disabled) -> Result<(), Error> {
        check_name(task)?;
        let task = task.to_owned();
        self.publish(ControlRecord::Disable { task, at: self.now_ms(), then }).await
    }

    /// Enables a disabled task: tasks of this name run again. Those that became dead letters remain so until they are
    /// [replayed](crate::admin::DeadLetters::replay).
    ///
    /// # Errors
    /// The same as those of [`disable_task`](Self::disable_task).
    pub async fn enable_task(&self, task: &str) -> Result<(), Error> {
        check_name(task)?;
        let task = task.to_owned();
        self.publish(ControlRecord::Enable { task, at: self.now_ms() }).await
    }

    /// The controls that are in effect now.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn controls(&self) -> Result<Controls, Error> {
        let topic: Arc<str> = self.namespace().control_topic().into();
        if self.broker.exist(std::slice::from_ref(&topic)).await? != [true] {
            return Ok(Controls::default());
        }
        let mut controls = ControlState::default();
        let take = |record: Incoming| {
            let control = control::read(record.key.as_deref().unwrap_or_default(), &record.value);
            control.into_iter().for_each(|control| controls.take(control));
        };
        read_to_end(&*self.broker, &topic, &[(CONTROL_PARTITION, 0)], take).await?;
        Ok(Controls::of(&controls))
    }

    async fn publish(&self, control: ControlRecord) -> Result<(), Error> {
        let topic = self.namespace().control_topic().into();
        let (key, value) = control::record(&control);
        let record = Outgoing { topic, key, value, partition: Some(CONTROL_PARTITION), headers: Vec::new() };
        let mut answers = self.broker.publish(vec![record]).await;
        Ok(answers.pop().expect("one answer for each record")?)
    }
}

fn checked(queue: &str) -> Result<Queue, Error> {
    queue.parse().map_err(|error| Error::config("queue", error))
}

impl Controls {
    fn of(controls: &ControlState) -> Self {
        let paused =
            controls.paused().map(|(queue, since)| PausedQueue { queue: queue.to_owned(), since: times::at(since) });
        let disabled = controls.all_disabled().map(|(task, then, since)| DisabledTask {
            task: task.to_owned(),
            then,
            since: times::at(since),
        });
        let purged = controls.purged().map(|(queue, at)| PurgedQueue { queue: queue.to_owned(), at: times::at(at) });
        Self { paused: paused.collect(), disabled: disabled.collect(), purged: purged.collect() }
    }
}
