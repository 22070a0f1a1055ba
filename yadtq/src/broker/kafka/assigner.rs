//! The thread of a consumer: makes the calls of librdkafka that can block, in the order in which they were asked for.
//!
//! ```text
//!  assign ──► committed offsets ──► queue of the partition ──► incremental assign ──► read
//!     ▲ 250 ms, while Kafka does not answer │
//!     └──────────────────────────────────────┘
//!  revoke ──► incremental unassign        commit ──► acknowledged ──► purger
//! ```
//! An assignment that was revoked before it worked is dropped. Commits that were asked for before an assignment are made before
//! it asks for its committed offset.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Weak,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer as _},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
};
use tracing::{debug, error, warn};

use super::{
    super::{BrokerError, Committed},
    command::Command,
    commits::{self, Commit},
    shared::{Client, Shared},
    slot::Slot,
    topics::code,
};

/// The wait before what has failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Longest wait for the committed offsets. While Kafka is away, everything else waits for that long too; and for
/// `session.timeout.ms`, if there is something to commit.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(2);

struct Assigner {
    shared: Arc<Shared>,
    client: Arc<Client>,
    /// What librdkafka reads.
    assigned: HashSet<(Arc<str>, i32)>,
}

/// What has to be tried again, and when.
#[derive(Default)]
struct Retries {
    pending: Vec<(Arc<str>, Arc<Slot>)>,
    assigned: HashSet<(Arc<str>, i32)>,
    rebuild: Option<String>,
    at: Option<Instant>,
}

/// Follows the commands until the consumer is closed or dropped.
pub(super) fn run(shared: &Weak<Shared>, commands: &Receiver<Command>) {
    let mut retries = Retries::default();
    loop {
        let command = match retries.at {
            None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => commands.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        if matches!(command, Err(RecvTimeoutError::Disconnected)) {
            return;
        }
        let Some(shared) = shared.upgrade() else { return };
        let Some(client) = shared.client() else { return };
        let mut assigner = Assigner { client, shared, assigned: std::mem::take(&mut retries.assigned) };
        // Commands that are there already are followed together, so that a topic's partitions cost one request.
        for command in command.ok().into_iter().chain(std::iter::from_fn(|| commands.try_recv().ok())) {
            assigner.follow(command, &mut retries);
        }
        if let Some(reason) = retries.rebuild.take() {
            assigner.rebuild(reason, &mut retries);
        }
        retries.pending.retain(|(topic, slot)| assigner.shared.subscription(topic).is_some_and(|sub| sub.has(slot)));
        if !retries.pending.is_empty() {
            assigner.assign(&mut retries.pending);
        }
        let has_more = !retries.pending.is_empty() || retries.rebuild.is_some();
        retries.at = has_more.then(|| Instant::now() + RETRY_DELAY);
        retries.assigned = assigner.assigned;
    }
}

impl Assigner {
    fn follow(&mut self, command: Command, retries: &mut Retries) {
        match command {
            Command::Assign(topic, slots) => {
                retries.pending.extend(slots.into_iter().map(|slot| (Arc::clone(&topic), slot)));
            }
            Command::Unassign(topic, partitions) => self.unassign(&topic, partitions),
            Command::Commit(commits, reply) => {
                let answer = self.commit(&commits);
                if let Some(reply) = reply {
                    // Whoever asked may have given up.
                    let _ = reply.send(answer);
                }
            }
            Command::Rebuild(reason) => retries.rebuild = Some(reason),
        }
    }

    /// Assigns what is pending, one topic after the other, those that need no committed offsets first. What does not work stays
    /// pending.
    fn assign(&mut self, pending: &mut Vec<(Arc<str>, Arc<Slot>)>) {
        let mut by_topic = BTreeMap::<(bool, Arc<str>), Vec<_>>::new();
        for (topic, slot) in pending.drain(..) {
            let is_committed = !self.shared.cluster.config.namespace.is_compacted(&topic);
            by_topic.entry((is_committed, Arc::clone(&topic))).or_default().push((topic, slot));
        }
        let mut is_away = false;
        for ((_, topic), mut slots) in by_topic {
            if !is_away && let Err(error) = self.try_assign(&mut slots) {
                is_away = matches!(
                    code(&error),
                    Code::OperationTimedOut | Code::AllBrokersDown | Code::BrokerTransportFailure
                );
                debug!(event = "assignment_waits", %topic, %error, "trying again");
            }
            pending.append(&mut slots);
        }
    }

    fn try_assign(&mut self, pending: &mut Vec<(Arc<str>, Arc<Slot>)>) -> KafkaResult<()> {
        let namespace = &self.shared.cluster.config.namespace;
        let mut asked = TopicPartitionList::new();
        for (topic, slot) in pending.iter().filter(|(topic, _)| !namespace.is_compacted(topic)) {
            asked.add_partition(topic, slot.partition);
        }
        let found = match asked.count() {
            0 => asked,
            _ => self.client.consumer.committed_offsets(asked, COMMITTED_TIMEOUT)?,
        };
        let mut list = TopicPartitionList::with_capacity(pending.len());
        let mut begun = Vec::with_capacity(pending.len());
        for (topic, slot) in pending.iter() {
            let committed = match found.find_partition(topic, slot.partition) {
                None => None,
                Some(element) => {
                    element.error()?;
                    let next = if let Offset::Offset(next) = element.offset() { Some(next) } else { None };
                    next.map(|next| Committed { next, metadata: element.metadata().to_owned() })
                }
            };
            // An earlier assignment may be there still: of a partition that was revoked and assigned again.
            let key = (Arc::clone(topic), slot.partition);
            let queue = self.client.queue(topic, slot.partition);
            let queue = queue.ok_or(KafkaError::Subscription(format!("no queue for a partition of {topic}")))?;
            let from = committed.as_ref().map_or(Offset::Beginning, |committed| Offset::Offset(committed.next));
            list.add_partition_offset(topic, slot.partition, from)?;
            begun.push((key, Arc::clone(slot), committed, queue));
        }
        self.client.consumer.incremental_assign(&list)?;
        for (key, slot, committed, queue) in begun {
            if let Some(subscription) = self.shared.subscription(&key.0) {
                subscription.begin(&slot, committed, queue, &self.shared.runtime);
            }
            self.assigned.insert(key);
        }
        pending.clear();
        Ok(())
    }

    fn unassign(&mut self, topic: &Arc<str>, partitions: Vec<i32>) {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            if self.assigned.remove(&(Arc::clone(topic), partition)) {
                list.add_partition(topic, partition);
            }
        }
        if list.count() > 0
            && let Err(error) = self.client.consumer.incremental_unassign(&list)
        {
            warn!(event = "consumer_error", %topic, %error, "partitions could not be unassigned");
        }
    }

    fn commit(&self, commits: &[Commit]) -> Result<(), BrokerError> {
        let answer = self.commit_together(commits);
        let topics: HashSet<_> = commits.iter().map(|commit| &commit.topic).collect();
        if answer.is_ok() || topics.len() < 2 {
            return answer;
        }
        // A topic that was deleted must not hold the others back.
        let mut answer = Ok(());
        for topic in topics {
            let of_topic: Vec<_> = commits.iter().filter(|commit| &commit.topic == topic).cloned().collect();
            answer = self.commit_together(&of_topic).and(answer);
        }
        answer
    }

    fn commit_together(&self, commits: &[Commit]) -> Result<(), BrokerError> {
        let committed = commits::list(commits).and_then(|list| self.client.consumer.commit(&list, CommitMode::Sync));
        match committed {
            Ok(()) => {
                for commit in commits {
                    if let Some(subscription) = self.shared.subscription(&commit.topic) {
                        subscription.purger.committed(commit.partition, commit.next);
                    }
                }
                self.shared.commands.commits.acknowledged(commits);
                Ok(())
            }
            Err(error) => {
                debug!(event = "commit_failed", %error, "trying again");
                Err(self.shared.cluster.connection.error(code(&error), "committing offsets", COMMITTED_TIMEOUT))
            }
        }
    }

    fn rebuild(&mut self, reason: String, retries: &mut Retries) {
        match self.shared.replace_client() {
            Ok(client) => {
                error!(event = "consumer_rebuilt", error = reason, "the kafka consumer had to be rebuilt");
                self.client = client;
                self.assigned.clear();
                retries.pending = self.shared.begin_again();
            }
            Err(error) => {
                error!(event = "consumer_rebuild_failed", %error, "the kafka consumer could not be rebuilt");
                retries.rebuild = Some(reason);
            }
        }
    }
}
