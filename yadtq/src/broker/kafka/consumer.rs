//! A subscription: a member of the group that is replaced when it breaks, and whose topic is created when it is
//! missing.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{sleep, timeout};
use tracing::{error, warn};

use super::{
    super::{BrokerError, Event, Subscription},
    Cluster,
    apart::apart,
    connection::Ears,
    member::{Member, Polled},
    purge::{self, Purge},
};

/// Longest wait for the last commit and for leaving the group. Kafka notices a member that is gone anyway.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const LAST_BACKOFF: Duration = Duration::from_secs(5);

pub(super) struct KafkaSubscription {
    cluster: Arc<Cluster>,
    topic: Arc<str>,
    purge: Arc<Purge>,
    /// `None` once closed.
    member: RwLock<Option<Arc<Member>>>,
}

impl fmt::Debug for KafkaSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSubscription").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl KafkaSubscription {
    /// Returns at once; joins in the background. Needs a Tokio runtime.
    pub(super) fn start(cluster: Arc<Cluster>, topic: Arc<str>) -> Result<Self, BrokerError> {
        let purge = Arc::new(Purge::new(Arc::clone(&topic)));
        tokio::spawn(purge::run(Arc::downgrade(&purge), Arc::clone(&cluster)));
        let subscription = Self { cluster, topic, purge, member: RwLock::new(None) };
        let member = subscription.new_member()?;
        subscription.replace(Some(member));
        Ok(subscription)
    }

    fn new_member(&self) -> Result<Arc<Member>, BrokerError> {
        let config = self.cluster.config.consumer(&self.topic);
        let ears = Ears(Arc::clone(&self.cluster.connection));
        let member = Member::new(&config, Arc::clone(&self.topic), ears, Arc::clone(&self.purge))
            .map_err(|error| BrokerError::Refused(error.to_string()))?;
        let member = Arc::new(member);
        self.join(&member);
        Ok(member)
    }

    /// Sees to it in the background that the topic exists and is subscribed to.
    fn join(&self, member: &Arc<Member>) {
        if member.begin_joining() {
            tokio::spawn(join(Arc::clone(&self.cluster), Arc::downgrade(member), Arc::clone(&self.topic)));
        }
    }

    /// A new member in the place of a broken one. Until there is one, the broken one stays.
    async fn rebuild(&self, broken: &Member, reason: &str) -> Vec<Event> {
        let lost = broken.take_assigned();
        if !lost.is_empty() {
            return vec![Event::Revoked(lost)];
        }
        match self.new_member() {
            Ok(member) => {
                error!(
                    event = "consumer_rebuilt",
                    topic = &*self.topic,
                    error = reason,
                    "the kafka consumer had to be rebuilt"
                );
                self.replace(Some(member));
            }
            Err(error) => {
                error!(event = "consumer_rebuild_failed", topic = &*self.topic, %error, "the kafka consumer could not be rebuilt");
                sleep(FIRST_BACKOFF).await;
            }
        }
        Vec::new()
    }

    fn member(&self) -> Option<Arc<Member>> {
        self.member.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, member: Option<Arc<Member>>) -> Option<Arc<Member>> {
        std::mem::replace(&mut *self.member.write().unwrap_or_else(PoisonError::into_inner), member)
    }
}

#[cfg(test)]
impl KafkaSubscription {
    pub(super) fn native_ptr(&self) -> *mut rdkafka::bindings::rd_kafka_t {
        self.member().map_or(std::ptr::null_mut(), |member| member.native_ptr())
    }
}

#[async_trait]
impl Subscription for KafkaSubscription {
    async fn next(&self) -> Vec<Event> {
        loop {
            let Some(member) = self.member() else { return std::future::pending().await };
            match member.poll().await {
                Polled::Events(events) => return events,
                Polled::NoTopic => {
                    self.cluster.forget_topic(&self.topic);
                    self.join(&member);
                }
                Polled::Fatal(reason) => {
                    let events = self.rebuild(&member, &reason).await;
                    if !events.is_empty() {
                        return events;
                    }
                }
            }
        }
    }

    fn store(&self, partition: i32, next: i64) {
        self.purge.keep_from(partition, next);
        if let Some(member) = self.member() {
            member.store(partition, next);
        }
    }

    fn pause(&self, partition: i32) {
        if let Some(member) = self.member() {
            member.pause(partition);
        }
    }

    fn resume(&self, partition: i32) {
        if let Some(member) = self.member() {
            member.resume(partition);
        }
    }

    async fn close(&self) {
        // If somebody else still has it, it closes when he is done with it.
        if let Some(member) = self.replace(None).and_then(Arc::into_inner)
            && timeout(CLOSE_TIMEOUT, member.close()).await.is_err()
        {
            warn!(event = "consumer_close_timeout", topic = &*self.topic, "kafka did not acknowledge the last commit");
        }
        self.purge.run(&self.cluster).await;
    }
}

/// Creates the topic if it is missing, and subscribes to it. Goes on until that is done, or nobody needs it any more.
async fn join(cluster: Arc<Cluster>, member: Weak<Member>, topic: Arc<str>) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let problem = match cluster.ensure_topic(&topic, cluster.config.send_timeout).await {
            Err(error) => error.to_string(),
            Ok(()) => {
                let Some(member) = member.upgrade() else { return };
                match apart(move || member.subscribe()).await {
                    Some(Ok(())) => return,
                    Some(Err(error)) => error.to_string(),
                    None => "no thread could be started".to_owned(),
                }
            }
        };
        if member.strong_count() == 0 {
            return;
        }
        warn!(event = "topic_unavailable", topic = &*topic, error = problem, "will try again in {backoff:?}");
        sleep(backoff).await;
        backoff = (backoff * 2).min(LAST_BACKOFF);
    }
}
