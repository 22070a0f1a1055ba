//! The scheduler, with parts of Kafka that take or return nothing, and after a panic.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::{
    broker::{
        Broker, BrokerError, BrokerInfo, Consumer, Event, Incoming, OffsetRange, Outgoing, QueueDepth, Reader,
        Subscription, memory::MemoryBroker, read_to_end,
    },
    clock::{Clock, SystemClock},
    core::names::Namespace,
    store::memory::MemoryStore,
    wire::envelope::Envelope,
    worker::{
        background::{scheduler, suspend::SuspendDetector},
        finish::too_large::TooLarge,
        options::Plan,
    },
};

/// A log in memory, of which parts do not work.
#[derive(Debug)]
struct Partly {
    log: MemoryBroker,
    /// This topic takes nothing.
    refused: Arc<str>,
    is_refusing: AtomicBool,
    /// Nobody can read this partition from somewhere.
    silent: Option<i32>,
}

/// A reader that waits for a leader.
struct Silent;

#[async_trait]
impl Reader for Silent {
    async fn next(&mut self) -> Vec<Event> {
        std::future::pending().await
    }
}

#[async_trait]
impl Broker for Partly {
    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<(), BrokerError>> {
        let is_refusing = self.is_refusing.load(Ordering::SeqCst);
        let mut answers = Vec::new();
        for record in records {
            let answer = match is_refusing && record.topic == self.refused {
                true => Err(BrokerError::Refused("by the test".to_owned())),
                false => self.log.publish(vec![record]).await.remove(0),
            };
            answers.push(answer);
        }
        answers
    }

    fn consumer(&self) -> Result<Arc<dyn Consumer>, BrokerError> {
        self.log.consumer()
    }

    async fn create(&self, topic: &Arc<str>) -> Result<(), BrokerError> {
        self.log.create(topic).await
    }

    fn read(&self, topic: &Arc<str>, from: &[(i32, i64)]) -> Result<Box<dyn Reader>, BrokerError> {
        match from.iter().any(|&(partition, _)| Some(partition) == self.silent) {
            true => Ok(Box::new(Silent)),
            false => self.log.read(topic, from),
        }
    }

    async fn offset_ranges(&self, topic: &Arc<str>) -> Result<Vec<OffsetRange>, BrokerError> {
        self.log.offset_ranges(topic).await
    }

    async fn truncate(&self, topic: &Arc<str>, below: &[(i32, i64)]) -> Result<(), BrokerError> {
        self.log.truncate(topic, below).await
    }

    async fn exist(&self, topics: &[Arc<str>]) -> Result<Vec<bool>, BrokerError> {
        self.log.exist(topics).await
    }

    async fn queues(&self) -> Result<Vec<QueueDepth>, BrokerError> {
        self.log.queues().await
    }

    async fn ping(&self) -> Result<BrokerInfo, BrokerError> {
        self.log.ping().await
    }
}

/// The machine's clock, which panics once.
#[derive(Debug)]
struct Panicking {
    clock: Arc<dyn Clock>,
    panics: AtomicBool,
}

impl Clock for Panicking {
    fn now_us(&self) -> u64 {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "as it is meant to");
        self.clock.now_us()
    }

    fn steady(&self) -> Duration {
        self.clock.steady()
    }
}

/// A scheduler that owns two partitions.
struct Rig {
    broker: Arc<Partly>,
    namespace: Namespace,
    _subscription: Arc<dyn Subscription>,
    _stop: DropGuard,
}

impl Rig {
    const PARTITIONS: [i32; 2] = [0, 1];

    /// `tasks`: by queue and partition, how many are due, and how many bytes each has.
    async fn start(silent: Option<i32>, clock: Arc<dyn Clock>, tasks: &[(&str, i32, usize, usize)]) -> Self {
        let namespace = Namespace::default();
        let (log, refused) = (MemoryBroker::new(namespace.clone()), "yadtq.bad".into());
        let broker = Arc::new(Partly { log, refused, is_refusing: AtomicBool::new(true), silent });
        let topic: Arc<str> = namespace.delayed_topic().into();
        for &(queue, partition, count, len) in tasks {
            broker.publish((0..count).map(|n| task(&topic, queue, partition, n, len)).collect()).await;
        }
        let subscription = broker.consumer().unwrap().subscribe(&topic);
        subscription.assign(&Self::PARTITIONS);
        let stop = CancellationToken::new();
        let context = scheduler::SchedulerContext {
            worker: "w".into(),
            namespace: namespace.clone(),
            broker: Arc::<Partly>::clone(&broker),
            too_large: Arc::new(TooLarge {
                worker: "w".into(),
                namespace: namespace.clone(),
                broker: Arc::<Partly>::clone(&broker),
                store: MemoryStore::new(SystemClock::shared()),
                options: Plan::for_test().options,
            }),
            suspend: SuspendDetector::new(Arc::clone(&clock)),
            clock,
        };
        tokio::spawn(scheduler::run(context, Arc::clone(&subscription), stop.clone()));
        Self { broker, namespace, _subscription: subscription, _stop: stop.drop_guard() }
    }

    async fn fired(&self, queue: &str, count: usize) {
        self.fired_of(queue, queue.as_bytes(), count).await;
    }

    /// Waits until a queue has this many tasks of which the ids begin so.
    async fn fired_of(&self, queue: &str, prefix: &[u8], count: usize) {
        let topic: Arc<str> = format!("{}.{queue}", self.namespace).into();
        let fired = until(async || {
            let ranges = self.broker.offset_ranges(&topic).await.unwrap();
            let from: Vec<_> = ranges.iter().map(|range| (range.partition, 0)).collect();
            let mut ids = BTreeMap::<_, usize>::new();
            let note = |record: Incoming| {
                let id = Envelope::read(&record.value).unwrap().id;
                if id.as_str().as_bytes().starts_with(prefix) {
                    *ids.entry(id).or_default() += 1;
                }
            };
            read_to_end(&self.broker.log, &topic, &from, note).await.unwrap();
            (ids.len() >= count).then_some(ids)
        });
        let fired = timeout(Duration::from_secs(30), fired).await.expect("fired in time");
        assert_eq!(fired.len(), count);
        assert!(fired.values().all(|&times| times == 1), "fired twice");
    }
}

fn task(topic: &Arc<str>, queue: &str, partition: i32, n: usize, len: usize) -> Outgoing {
    let (id, pad) = (format!("{queue}-{partition}-{n}"), "x".repeat(len));
    let value = format!(r#"{{"task-id":"{id}","task":"t","args":["{pad}"],"eta":1,"queue":"{queue}"}}"#);
    let key = format!("{id}/1").into();
    Outgoing { topic: Arc::clone(topic), key, value: value.into(), partition: Some(partition), headers: Vec::new() }
}

#[tokio::test]
async fn a_queue_that_takes_nothing_stops_no_other_and_loses_nothing() {
    // More than is kept of what a queue refuses.
    let rig = Rig::start(
        None,
        SystemClock::shared(),
        &[("bad", 0, 4_000, 1_024), ("good", 0, 100, 10), ("good", 1, 100, 10)],
    )
    .await;
    rig.fired("good", 200).await;
    rig.broker.is_refusing.store(false, Ordering::SeqCst);
    rig.fired("bad", 4_000).await;
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_blocks_no_other() {
    // More than fits into memory, so that scans are needed.
    let rig = Rig::start(Some(0), SystemClock::shared(), &[("good", 0, 150, 100_000), ("good", 1, 300, 100_000)]).await;
    rig.fired_of("good", b"good-1-", 300).await;
}

#[tokio::test]
async fn a_scheduler_that_panics_goes_on() {
    let clock = Arc::new(Panicking { clock: SystemClock::shared(), panics: AtomicBool::new(false) });
    let rig = Rig::start(None, Arc::<Panicking>::clone(&clock), &[("good", 0, 10, 10)]).await;
    rig.fired("good", 10).await;
    clock.panics.store(true, Ordering::SeqCst);
    let topic: Arc<str> = rig.namespace.delayed_topic().into();
    rig.broker.publish((10..20).map(|n| task(&topic, "good", 1, n, 10)).collect()).await;
    rig.fired("good", 20).await;
    assert!(!clock.panics.load(Ordering::SeqCst), "it has panicked");
}

#[tokio::test]
async fn what_has_ended_is_purged_up_to_the_oldest_task_that_waits() {
    let rig = Rig::start(None, SystemClock::shared(), &[("good", 0, 10, 10)]).await;
    let topic: Arc<str> = rig.namespace.delayed_topic().into();
    let mut far = task(&topic, "far", 0, 0, 10);
    far.value = String::from_utf8(far.value.to_vec()).unwrap().replace(r#""eta":1"#, r#""eta":4000000000000"#).into();
    rig.broker.publish(vec![far.clone()]).await;
    let mut waiting = None;
    let note = |record: Incoming| waiting = (record.value == far.value).then_some(record.offset).or(waiting);
    read_to_end(&rig.broker.log, &topic, &[(0, 0)], note).await.unwrap();
    assert!(waiting.is_some());
    until(async || {
        let ranges = rig.broker.offset_ranges(&topic).await.unwrap();
        let start = ranges.iter().find(|range| range.partition == 0).map(|range| range.start);
        (start == waiting).then_some(())
    })
    .await;
    rig.fired("good", 10).await;
}
