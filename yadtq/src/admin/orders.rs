//! Orders to all workers: pause, resume and purge a queue, disable and enable a task.
//!
//! Each is a record of the control topic. Workers read all of it when they start, and what is added from then on, so an order
//! holds whatever becomes of them and of Redis.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::timeout;

use super::Admin;
use crate::{
    broker::{BrokerError, Event},
    client::check_name,
    core::{
        names::Queue,
        orders::{Disabled, Order, Orders},
        priority::Priority,
    },
    error::Error,
    wire::control::{self, PARTITION},
};

/// Longest wait for what holds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The orders that hold. Times are in ms since the Unix epoch.
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
    /// Queues from which no tasks are taken, by name.
    pub paused: Vec<PausedQueue>,
    /// Task names that do not run, by name.
    pub disabled: Vec<DisabledTask>,
    /// Queues that were purged, by name, with the latest time.
    pub purged: Vec<PurgedQueue>,
}

/// A queue from which no tasks are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct PausedQueue {
    /// The queue.
    pub queue: String,
    /// When it was paused.
    pub since: u64,
}

/// A task name that does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DisabledTask {
    /// The name.
    pub task: String,
    /// What becomes of its tasks.
    pub then: Disabled,
    /// When it was disabled.
    pub since: u64,
}

/// A queue that was purged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct PurgedQueue {
    /// The queue.
    pub queue: String,
    /// When.
    pub at: u64,
}

impl Admin {
    /// Pauses a queue: workers take nothing more from it, of any priority, until it is resumed. What runs goes on to its end.
    /// Tasks can still be sent, and come from delays and retries; they wait in Kafka. Workers follow within 2 s, and when they
    /// start; the order outlives them, and Redis.
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
    /// It is no name of a queue. Kafka does not answer: it may or may not be paused, and can be paused again.
    pub async fn pause(&self, queue: &str) -> Result<(), Error> {
        let queue = checked(queue)?.to_string();
        self.order(Order::Pause { queue, at: self.now_ms() }).await
    }

    /// Lets workers take tasks from a paused queue again.
    ///
    /// # Errors
    /// As those of [`pause`](Self::pause).
    pub async fn resume(&self, queue: &str) -> Result<(), Error> {
        let queue = checked(queue)?.to_string();
        self.order(Order::Resume { queue, at: self.now_ms() }).await
    }

    /// Ends all tasks that wait in a queue, of any priority: they will not run, and whoever awaits one gets
    /// [`Error::Revoked`]. Tells how many waited or ran. Those that run are spared, and so are those that wait for their time
    /// or a retry, which are not in the queue yet. Tasks that are sent from now on run.
    ///
    /// The queue's workers end them, which takes them some seconds, also if the queue is paused; if none is up, it happens when
    /// one comes. A task whose sender's clock is ahead of this one's by more than 10 s may be spared.
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
    /// It is no name of a queue. Kafka does not answer: it may or may not be purged, and can be purged again.
    pub async fn purge(&self, queue: &str) -> Result<u64, Error> {
        let queue = checked(queue)?;
        let depths = self.queues().await?;
        let tasks = depths.iter().filter(|depth| depth.queue == queue.as_str()).map(|depth| depth.lag).sum();
        let mut below = BTreeMap::new();
        for priority in Priority::ALL {
            let extents = self.broker.extents(&self.namespace().topic_of(&queue, priority).into()).await?;
            let ends: Vec<_> = extents.iter().map(|extent| (extent.partition, extent.end)).collect();
            if !ends.is_empty() {
                below.insert(priority, ends);
            }
        }
        if !below.is_empty() {
            self.order(Order::Purge { queue: queue.to_string(), at: self.now_ms(), below }).await?;
        }
        Ok(tasks)
    }

    /// Runs no task of this name any more, in any queue, until it is enabled. What runs goes on to its end. Workers follow
    /// within 2 s, and when they start; the order outlives them, and Redis.
    ///
    /// Tasks that wait block nothing behind them: they are looked at again after as long as the name has been disabled, at
    /// least 5 s and at most 1 min, and so run within a minute after it is enabled.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use yadtq::Disabled;
    ///
    /// let admin = yadtq::Client::embedded().admin();
    /// admin.disable_task("send_email", Disabled::Wait).await?;
    /// assert_eq!(admin.controls().await?.disabled[0].task, "send_email");
    /// admin.enable_task("send_email").await?;
    /// # Ok::<(), yadtq::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// It is no name of a task. Kafka does not answer: it may or may not be disabled, and can be disabled again.
    pub async fn disable_task(&self, task: &str, then: Disabled) -> Result<(), Error> {
        check_name(task)?;
        let task = task.to_owned();
        self.order(Order::Disable { task, at: self.now_ms(), then }).await
    }

    /// Lets tasks of a disabled name run again. Those that became dead letters stay so until they are
    /// [replayed](crate::DeadLetters::replay).
    ///
    /// # Errors
    /// As those of [`disable_task`](Self::disable_task).
    pub async fn enable_task(&self, task: &str) -> Result<(), Error> {
        check_name(task)?;
        let task = task.to_owned();
        self.order(Order::Enable { task, at: self.now_ms() }).await
    }

    /// The orders that hold now.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn controls(&self) -> Result<Controls, Error> {
        let topic: Arc<str> = self.namespace().control_topic().into();
        if self.broker.exist(std::slice::from_ref(&topic)).await? != [true] {
            return Ok(Controls::default());
        }
        let orders = timeout(PATIENCE, self.read_orders(&topic)).await;
        let timed_out = |_| BrokerError::Timeout { after: PATIENCE, detail: format!("reading topic {topic}") };
        Ok(Controls::of(&orders.map_err(timed_out)??))
    }

    async fn read_orders(&self, topic: &Arc<str>) -> Result<Orders, BrokerError> {
        let (mut reader, mut orders) = (self.broker.read(topic, &[(PARTITION, 0)])?, Orders::default());
        loop {
            for event in reader.next().await {
                match event {
                    Event::Records(records) => {
                        let read = |record: &crate::broker::Incoming| {
                            control::read(record.key.as_deref().unwrap_or_default(), &record.value)
                        };
                        records.iter().filter_map(read).for_each(|order| orders.take(order));
                    }
                    Event::Ended(_) => return Ok(orders),
                    Event::Assigned(_) | Event::Revoked(_) => {}
                }
            }
        }
    }

    async fn order(&self, order: Order) -> Result<(), Error> {
        let record = control::record(self.namespace().control_topic().into(), &order);
        let mut answers = self.broker.publish(vec![record]).await;
        Ok(answers.pop().expect("one answer a record")?)
    }
}

fn checked(queue: &str) -> Result<Queue, Error> {
    queue.parse().map_err(|error| Error::config("queue", error))
}

impl Controls {
    fn of(orders: &Orders) -> Self {
        let paused = orders.paused().map(|(queue, since)| PausedQueue { queue: queue.to_owned(), since });
        let disabled =
            orders.all_disabled().map(|(task, then, since)| DisabledTask { task: task.to_owned(), then, since });
        let purged = orders.purged().map(|(queue, at)| PurgedQueue { queue: queue.to_owned(), at });
        Self { paused: paused.collect(), disabled: disabled.collect(), purged: purged.collect() }
    }
}
