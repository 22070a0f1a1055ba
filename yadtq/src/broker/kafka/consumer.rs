//! The one consumer of a worker: a client of librdkafka for all topics, without membership in a group.
//!
//! ```text
//!  KafkaConsumer ─┬─ assigner: a thread for what can block
//!                 ├─ a task that serves librdkafka's main queue: errors
//!                 ├─ a task that commits what was stored, every second
//!                 └─ subscriptions, one for each topic
//! ```

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak, mpsc::channel},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use rdkafka::{consumer::Consumer as _, error::RDKafkaErrorCode as Code};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::warn;

use super::{
    super::{BrokerError, Consumer, Subscription, TopicState},
    Cluster, assigner,
    blocking::{run_blocking, spawn_thread},
    command::{Command, Commands},
    purger::{self, Purger},
    shared::{LOOK_UP_TIMEOUT, Shared},
    subscription::KafkaSubscription,
};
use crate::restart;

/// Time from one commit to the next.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for the last commit.
const LAST_COMMIT_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct KafkaConsumer {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl KafkaConsumer {
    /// Returns immediately, and connects in the background. Needs a Tokio runtime.
    pub(super) fn start(cluster: &Arc<Cluster>) -> Result<Arc<Self>, BrokerError> {
        let (sender, receiver) = channel();
        let shared = Arc::new(Shared::new(cluster, Commands::new(sender))?);
        let weak = Arc::downgrade(&shared);
        let rebuild = {
            let weak = Weak::clone(&weak);
            // What was under way is unknown.
            move || {
                if let Some(shared) = weak.upgrade() {
                    shared.commands.send(Command::Rebuild("its thread has panicked".to_owned()));
                }
            }
        };
        spawn_thread(move || restart::run_blocking("kafka assigner", || assigner::run(&weak, &receiver), rebuild))
            .map_err(|error| BrokerError::Refused(format!("could not start a thread for the consumer: {error}")))?;
        let (serving, committing) = (Arc::downgrade(&shared), Arc::downgrade(&shared));
        let tasks = vec![
            tokio::spawn(restart::run("kafka consumer", move || serve(Weak::clone(&serving)))),
            tokio::spawn(restart::run("commits", move || commit(Weak::clone(&committing)))),
        ];
        Ok(Arc::new(Self { shared, tasks: Mutex::new(tasks) }))
    }

    /// Passes the client of librdkafka to `act`.
    #[cfg(test)]
    pub(super) fn with_native(&self, act: impl FnOnce(*mut rdkafka::bindings::rd_kafka_t)) {
        act(self.shared.client().expect("it is open").consumer.client().native_ptr());
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    fn subscribe(&self, topic: &Arc<str>) -> Arc<dyn Subscription> {
        let (topic, shared) = (Arc::clone(topic), Arc::clone(&self.shared));
        let purger = Arc::new(Purger::new(Arc::clone(&topic)));
        let (purged, cluster) = (Arc::downgrade(&purger), Arc::clone(&shared.cluster));
        tokio::spawn(restart::run("purge", move || purger::run(Weak::clone(&purged), Arc::clone(&cluster))));
        let reports_end = shared.cluster.config.namespace.is_compacted(&topic);
        let commands = Arc::clone(&shared.commands);
        let subscription = Arc::new(KafkaSubscription::new(Arc::clone(&topic), reports_end, commands, purger));
        self.shared.subscriptions().insert(topic, Arc::clone(&subscription));
        subscription
    }

    async fn look_up(&self, topics: &[Arc<str>]) -> Result<Vec<Option<TopicState>>, BrokerError> {
        let (shared, asked) = (Arc::clone(&self.shared), topics.to_vec());
        let found = run_blocking(move || shared.look_up(&asked)).await.unwrap_or(Err(Code::CriticalSystemResource));
        found.map_err(|code| self.shared.cluster.connection.error(code, "looking for topics", LOOK_UP_TIMEOUT))
    }

    async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        let commands = &self.shared.commands;
        commands.send(Command::Commit(commands.commits.due(Instant::now()), Some(reply)));
        if !matches!(timeout(LAST_COMMIT_TIMEOUT, answer).await, Ok(Ok(Ok(())))) {
            warn!(event = "consumer_close_timeout", "kafka did not acknowledge the last commit");
        }
        let subscriptions = std::mem::take(&mut *self.shared.subscriptions());
        // Ends the reading tasks, which hold on to the client.
        subscriptions.values().for_each(|subscription| drop(subscription.begin_again()));
        join_all(subscriptions.values().map(|subscription| subscription.purger.run(&self.shared.cluster))).await;
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(JoinHandle::abort);
        join_all(tasks).await;
        let client = self.shared.take_client();
        run_blocking(move || drop(client)).await;
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner).iter().for_each(JoinHandle::abort);
        // The subscriptions hold on to what is shared.
        let subscriptions = std::mem::take(&mut *self.shared.subscriptions());
        subscriptions.values().for_each(|subscription| drop(subscription.begin_again()));
    }
}

impl fmt::Debug for KafkaConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConsumer").finish_non_exhaustive()
    }
}

/// Serves librdkafka's main queue, where errors of the client come, until the consumer is dropped.
async fn serve(weak: Weak<Shared>) {
    loop {
        let Some(client) = weak.upgrade().and_then(|shared| shared.client()) else { return };
        let received = client.consumer.recv().await.map(drop);
        let fatal = client.consumer.client().fatal_error();
        let Some(shared) = weak.upgrade() else { return };
        let reason = match (fatal, received) {
            (Some((_, reason)), _) => Some(reason),
            // The connection reports outages.
            (None, Err(error)) => {
                shared.cluster.connection.note_refusal(error.rdkafka_error_code().unwrap_or(Code::Fail));
                tracing::debug!(event = "consumer_error", %error, "will retry");
                None
            }
            // Nobody would take it, so it must be read again.
            (None, Ok(())) => Some("a record came outside the queue of its partition".to_owned()),
        };
        if let Some(reason) = reason {
            shared.commands.send(Command::Rebuild(reason));
            drop(shared);
            while let Some(shared) = weak.upgrade()
                && shared.client().is_some_and(|current| Arc::ptr_eq(&current, &client))
            {
                drop(shared);
                sleep(COMMIT_INTERVAL / 4).await;
            }
        }
    }
}

/// Commits what was stored, every second, until the consumer is dropped.
async fn commit(shared: Weak<Shared>) {
    loop {
        sleep(COMMIT_INTERVAL).await;
        let answer = {
            let Some(shared) = shared.upgrade() else { return };
            let due = shared.commands.commits.due(Instant::now());
            if due.is_empty() {
                continue;
            }
            let (reply, answer) = oneshot::channel();
            shared.commands.send(Command::Commit(due, Some(reply)));
            answer
        };
        // One at a time. A failure was logged, and what failed is still due.
        let _ = answer.await;
    }
}
