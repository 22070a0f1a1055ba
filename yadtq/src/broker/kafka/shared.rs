//! What the parts of a consumer share: the client of librdkafka, its subscriptions, and what is known of their topics.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicUsize},
    thread,
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{Consumer as _, StreamConsumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
};
use tokio::{runtime::Handle, time::Instant};

use super::{
    super::{BrokerError, TopicState},
    Cluster,
    blocking::DropOnThread,
    command::Commands,
    connection::ConnectionListener,
    slot::{PartitionQueue, Slot},
    subscription::KafkaSubscription,
    topics::{Found, code, find_topics},
};

/// How often, and after which time, it is looked whether an earlier reading task has let go of its queue.
const QUEUE_ATTEMPTS: usize = 50;
const QUEUE_ATTEMPT_DELAY: Duration = Duration::from_millis(1);
/// Longest wait for an answer about topics.
pub(super) const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// What the parts of a consumer share.
pub(super) struct Shared {
    pub(super) cluster: Arc<Cluster>,
    pub(super) runtime: Handle,
    pub(super) commands: Arc<Commands>,
    /// `None` once the consumer is closed.
    client: RwLock<Option<Arc<Client>>>,
    subscriptions: Mutex<BTreeMap<Arc<str>, Arc<KafkaSubscription>>>,
    /// What was found of each topic last.
    known: Mutex<HashMap<Arc<str>, TopicState>>,
    /// Number of topics of the cluster when all were looked up last.
    total_topics: AtomicUsize,
}

type Queues = HashMap<(Arc<str>, i32), Arc<PartitionQueue>>;

/// A client of librdkafka.
pub(super) struct Client {
    /// Dropped before the consumer that they belong to.
    queues: Mutex<Queues>,
    pub(super) consumer: DropOnThread<Arc<StreamConsumer<ConnectionListener>>>,
}

impl Client {
    fn new(cluster: &Cluster) -> Result<Arc<Self>, BrokerError> {
        let refused = |error: KafkaError| super::KafkaConfig::refused(&error);
        let context = ConnectionListener(Arc::clone(&cluster.connection));
        let consumer = cluster.config.consumer().create_with_context(context).map_err(refused)?;
        Ok(Arc::new(Self { queues: Mutex::default(), consumer: DropOnThread::new(Arc::new(consumer)) }))
    }

    /// The queue of a partition, apart from the others since before the partition is assigned. Asked for anew before each
    /// assignment: librdkafka forgets a partition that is revoked before it has learned of its topic, and then the earlier queue
    /// belongs to nothing. Blocks for a moment. `None`: the task of an earlier assignment still holds on to its queue.
    pub(super) fn queue(&self, topic: &Arc<str>, partition: i32) -> Option<Arc<PartitionQueue>> {
        let key = (Arc::clone(topic), partition);
        let mut earlier = self.queues().remove(&key);
        // The drop of a queue silences all of the same partition, so that the earlier one has to go first.
        for _ in 0..QUEUE_ATTEMPTS {
            match earlier.map(Arc::try_unwrap) {
                Some(Err(queue)) => earlier = Some(queue),
                let_go => {
                    drop(let_go);
                    let queue = Arc::new(self.consumer.split_partition_queue(topic, partition)?);
                    self.queues().insert(key, Arc::clone(&queue));
                    return Some(queue);
                }
            }
            thread::sleep(QUEUE_ATTEMPT_DELAY);
        }
        self.queues().extend(earlier.map(|queue| (key, queue)));
        None
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(super) fn new(cluster: &Arc<Cluster>, commands: Commands) -> Result<Self, BrokerError> {
        Ok(Self {
            cluster: Arc::clone(cluster),
            runtime: Handle::current(),
            commands: Arc::new(commands),
            client: RwLock::new(Some(Client::new(cluster)?)),
            subscriptions: Mutex::default(),
            known: Mutex::default(),
            total_topics: AtomicUsize::new(0),
        })
    }

    pub(super) fn client(&self) -> Option<Arc<Client>> {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn subscription(&self, topic: &str) -> Option<Arc<KafkaSubscription>> {
        self.subscriptions().get(topic).cloned()
    }

    /// Puts a new client in the place of a broken one. Blocks.
    pub(super) fn replace_client(&self) -> Result<Arc<Client>, BrokerError> {
        // rdkafka starts a task of its own.
        let _runtime = self.runtime.enter();
        let client = Client::new(&self.cluster)?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&client));
        Ok(client)
    }

    /// Takes the client away for good.
    pub(super) fn take_client(&self) -> Option<Arc<Client>> {
        self.client.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends all assignments, and begins them anew.
    pub(super) fn begin_again(&self) -> Vec<(Arc<str>, Arc<Slot>)> {
        let subscriptions: Vec<_> = self.subscriptions().values().cloned().collect();
        let again = |subscription: Arc<KafkaSubscription>| {
            let topic = Arc::clone(&subscription.topic);
            subscription.begin_again().into_iter().map(move |slot| (Arc::clone(&topic), slot))
        };
        subscriptions.into_iter().flat_map(again).collect()
    }

    /// The states of topics. Blocks.
    pub(super) fn look_up(&self, topics: &[Arc<str>]) -> Result<Vec<Option<TopicState>>, Code> {
        let deadline = Instant::now() + LOOK_UP_TIMEOUT;
        // Not by the client that reads: its requests wait behind the fetches that it has sent.
        let found =
            self.cluster.producer.with_client(|client| find_topics(client, topics, &self.total_topics, deadline))?;
        let state = |(topic, found)| self.state(topic, found).map_err(|error| code(&error));
        topics.iter().zip(found).map(state).collect()
    }

    /// The state of a topic of which this was found. Blocks the first time that the topic is found.
    fn state(&self, topic: &Arc<str>, found: Found) -> KafkaResult<Option<TopicState>> {
        let known = self.known().get(topic).copied();
        let state = match (found, known) {
            // Kafka would not say: the topic is as it was.
            (Found::Unsure, known) => return Ok(known),
            (Found::Missing, _) => None,
            (Found::Partitions(partitions), Some(known)) => Some(TopicState { partitions, ..known }),
            (Found::Partitions(partitions), None) => {
                let client = self.client().ok_or(KafkaError::MetadataFetch(Code::State))?;
                // The client that reads learns of the topic too, so that it finds the leaders at once.
                client.consumer.client().fetch_metadata(Some(topic), LOOK_UP_TIMEOUT)?;
                let is_compacted = self.cluster.config.namespace.is_compacted(topic);
                Some(TopicState { partitions, has_commits: !is_compacted && self.has_commits(topic, partitions)? })
            }
        };
        match state {
            Some(state) => self.known().insert(Arc::clone(topic), state),
            None => self.known().remove(topic),
        };
        Ok(state)
    }

    /// Whether offsets were ever committed for a topic. Blocks.
    fn has_commits(&self, topic: &Arc<str>, partitions: u32) -> KafkaResult<bool> {
        let client = self.client().ok_or(KafkaError::OffsetFetch(Code::State))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, i32::try_from(partitions).unwrap_or(i32::MAX) - 1);
        let committed = client.consumer.committed_offsets(list, LOOK_UP_TIMEOUT)?;
        let is_offset = |offset| matches!(offset, Offset::Offset(_));
        Ok(committed.elements().iter().any(|element| is_offset(element.offset())))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, TopicState>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscriptions(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<KafkaSubscription>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
