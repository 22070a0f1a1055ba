//! Replays and purges that end in the middle, and are begun again.

#![allow(clippy::unwrap_used)]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::{
    broker::{Broker, BrokerError, BrokerInfo, Extent, QueueDepth, Reader, Subscription, memory::MemoryBroker},
    client::Client,
    clock::SystemClock,
    core::{
        lifecycle::{Ask, Claim, Claimer},
        names::{Namespace, TaskId},
    },
    store::memory::MemoryStore,
    wire::dead::{Epitaph, Reason, Source},
};

/// Fails the publish of this number, counted from 1, after the records are there or before.
#[derive(Debug)]
struct Brittle {
    broker: MemoryBroker,
    fails_at: AtomicUsize,
    is_lost: bool,
}

#[async_trait]
impl Broker for Brittle {
    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<(), BrokerError>> {
        let fails = self.fails_at.fetch_sub(1, Ordering::Relaxed) == 1;
        let count = records.len();
        if !(fails && self.is_lost) {
            let answers = self.broker.publish(records).await;
            if !fails {
                return answers;
            }
        }
        let error = BrokerError::Timeout { after: Duration::ZERO, detail: "on purpose".to_owned() };
        vec![Err(error); count]
    }

    fn subscribe(&self, topic: &Arc<str>) -> Result<Arc<dyn Subscription>, BrokerError> {
        self.broker.subscribe(topic)
    }

    fn read(&self, topic: &Arc<str>, from: &[(i32, i64)]) -> Result<Box<dyn Reader>, BrokerError> {
        self.broker.read(topic, from)
    }

    async fn extents(&self, topic: &Arc<str>) -> Result<Vec<Extent>, BrokerError> {
        self.broker.extents(topic).await
    }

    async fn truncate(&self, topic: &Arc<str>, below: &[(i32, i64)]) -> Result<(), BrokerError> {
        self.broker.truncate(topic, below).await
    }

    async fn exist(&self, topics: &[Arc<str>]) -> Result<Vec<bool>, BrokerError> {
        self.broker.exist(topics).await
    }

    async fn queues(&self) -> Result<Vec<QueueDepth>, BrokerError> {
        self.broker.queues().await
    }

    async fn ping(&self) -> Result<BrokerInfo, BrokerError> {
        self.broker.ping().await
    }
}

struct Rig {
    broker: Arc<dyn Broker>,
    memory: MemoryBroker,
    store: Arc<MemoryStore>,
}

impl Rig {
    /// `fails_at` 0: nothing fails.
    fn new(fails_at: usize, is_lost: bool) -> Self {
        let memory = MemoryBroker::new(Namespace::default());
        let broker = Brittle { broker: memory.clone(), fails_at: AtomicUsize::new(fails_at), is_lost };
        Self { broker: Arc::new(broker), memory, store: MemoryStore::new(SystemClock::shared()) }
    }

    fn letters(&self) -> DeadLetters {
        let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&self.store);
        DeadLetters::new(Arc::clone(&self.broker), store, Client::embedded().config().clone())
    }

    async fn bury(&self, value: &str, reason: Reason) {
        let source = Source { topic: "yadtq.mail", partition: 0, offset: 7 };
        let epitaph = Epitaph { reason, error: "no".to_owned(), attempts: 3, deliveries: 1 };
        let own = vec![("traceparent".to_owned(), "00".into()), ("yadtq-spoof".to_owned(), "x".into())];
        let headers = epitaph.headers(&source, &own);
        let value = Bytes::from(value.to_owned());
        let key = Envelope::read(&value).map_or_else(|_| Bytes::new(), |task| task.id.to_string().into());
        let letter = Outgoing { topic: "yadtq.dead".into(), key, value, partition: None, headers };
        self.memory.publish(vec![letter]).await.pop().unwrap().unwrap();
    }

    async fn bury_task(&self, id: &str) {
        let value = format!(r#"{{"task-id":"{id}","task":"send","args":[],"seq":2,"attempt":3,"kept":true}}"#);
        self.bury(&value, Reason::Arguments).await;
    }

    /// All records of a topic.
    async fn records(&self, topic: &str) -> Vec<crate::broker::Incoming> {
        let mut walk = super::super::walk::Walk::start(&self.memory, &topic.into(), &Default::default()).await.unwrap();
        let mut records = Vec::new();
        while let Some(record) = walk.next().await.unwrap() {
            records.push(record);
        }
        records
    }

    async fn status(&self, id: &str) -> Option<(Status, u64)> {
        let state = self.store.read(&[id.parse().unwrap()], None).await.unwrap().remove(0).unwrap();
        state.map(|state| (state.status, state.seq))
    }
}

#[tokio::test]
async fn a_replay_publishes_the_record_anew_and_settles_the_letter() {
    let rig = Rig::new(0, false);
    rig.bury_task("a").await;
    let report = rig.letters().id("a").replay().await.unwrap();
    assert_eq!(report, ReplayReport { replayed: 1, ..ReplayReport::default() });
    let records = rig.records("yadtq.mail").await;
    let value: serde_json::Value = serde_json::from_slice(&records[0].value).unwrap();
    let expected =
        serde_json::json!({"task-id": "a", "task": "send", "args": [], "seq": 3, "attempt": 1, "kept": true});
    assert_eq!((records.len(), value), (1, expected));
    assert_eq!(records[0].key.as_deref(), Some(&b"a"[..]));
    assert_eq!(records[0].headers, [("traceparent".to_owned(), Bytes::from("00"))]);
    assert_eq!(rig.status("a").await, Some((Status::Queued, 3)));
    assert_eq!(rig.letters().count().await.unwrap(), 0);
    assert_eq!(rig.letters().replay().await.unwrap(), ReplayReport::default());
    assert_eq!(rig.records("yadtq.dead").await.len(), 0, "its bytes are deleted");
    assert_eq!(rig.records("yadtq.dead.settled").await.len(), 0, "and so is what was said of it");
}

#[tokio::test]
async fn an_interrupted_replay_is_begun_again() {
    for is_lost in [true, false] {
        // The first publish is that of the record, the second one settles the letter.
        for fails_at in [1, 2] {
            let rig = Rig::new(fails_at, is_lost);
            rig.bury_task("a").await;
            rig.letters().replay().await.unwrap_err();
            assert_eq!(rig.status("a").await, Some((Status::Queued, 3)));
            let was_settled = fails_at == 2 && !is_lost;
            let report = rig.letters().replay().await.unwrap();
            assert_eq!(report.replayed, u64::from(!was_settled), "{fails_at} {is_lost}");
            let records = rig.records("yadtq.mail").await;
            assert!(!records.is_empty() && records.iter().all(|record| record.value == records[0].value));
            assert_eq!(rig.letters().count().await.unwrap(), 0);
        }
    }
}

#[tokio::test]
async fn a_replay_that_was_not_settled_before_its_task_ran_is_history() {
    let rig = Rig::new(2, true);
    rig.bury_task("a").await;
    rig.letters().replay().await.unwrap_err();
    let ask = Ask { seq: 3, attempt: 1, nonce: 1, task: "send".into(), queue: "mail".into() };
    let by = Claimer { worker: "w".into(), lease_ms: 9_000, take_over: true, quarantine: 1, max_deliveries: 5 };
    let id: TaskId = "a".parse().unwrap();
    let claim = rig.store.claim(&by, &[(id, Arc::new(ask))]).await.unwrap().remove(0).unwrap();
    assert!(matches!(claim, Claim::Granted { deliveries: 0, .. }));
    let mut told = Vec::new();
    rig.letters().replay_each(|_, outcome| told.push(outcome.clone().ok())).await.unwrap();
    assert_eq!(told, [Some(Replayed::GoneOn(Status::Running))]);
    assert_eq!(rig.letters().count().await.unwrap(), 0);
    assert_eq!(rig.records("yadtq.mail").await.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_replayed_stays_and_says_why() {
    let rig = Rig::new(0, false);
    rig.bury("[]", Reason::Unreadable).await;
    rig.bury(r#"{"task-id":"late","task":"send","args":[],"expires":5}"#, Reason::Arguments).await;
    rig.bury_task("fine").await;
    rig.store
        .submit(&[crate::store::Submission {
            id: "busy".parse().unwrap(),
            task: "send".into(),
            queue: "mail".into(),
            reply_to: None,
            eta: None,
        }])
        .await
        .unwrap();
    rig.bury_task("busy").await;
    let mut told = Vec::new();
    let each = |letter: &DeadLetter, outcome: &Result<Replayed, NotReplayed>| {
        let id = letter.id.as_ref().map_or("none", TaskId::as_str);
        told.extend(outcome.as_ref().err().map(|why| format!("{id}: {why}")));
    };
    let report = rig.letters().replay_each(each).await.unwrap();
    assert_eq!((report.replayed, report.gone_on, report.refused), (1, 0, 3));
    told.sort();
    assert_eq!(
        told,
        [
            "busy: its task has not failed, it is queued",
            "late: it expired, and would not be run; send the task anew",
            "none: its record is not a task, so there is nothing to run",
        ]
    );
    assert_eq!(rig.letters().count().await.unwrap(), 3);
}

#[tokio::test]
async fn a_purge_takes_what_fits_and_nothing_else() {
    let rig = Rig::new(0, false);
    for n in 0..100 {
        rig.bury_task(&format!("t{n}")).await;
    }
    rig.bury("[]", Reason::Unreadable).await;
    assert_eq!(rig.letters().reason("unreadable").purge().await.unwrap(), 1);
    assert_eq!(rig.letters().reason("unreadable").purge().await.unwrap(), 0, "gone is gone");
    assert_eq!(rig.letters().id("t3").id("t4").purge().await.unwrap(), 2);
    assert_eq!(rig.letters().count().await.unwrap(), 98);
    assert_eq!(rig.letters().id("t4").replay().await.unwrap(), ReplayReport::default());
    assert_eq!(rig.letters().id("t5").replay().await.unwrap().replayed, 1);
    let mut counts = Vec::new();
    assert_eq!(rig.letters().purge_each(|done| counts.push(done)).await.unwrap(), 97);
    assert_eq!(counts, [97]);
    assert_eq!((rig.letters().count().await.unwrap(), rig.records("yadtq.dead").await.len()), (0, 0));
    rig.bury_task("new").await;
    assert_eq!(rig.letters().count().await.unwrap(), 1);
    // What was said of earlier letters is of no use any more.
    rig.letters().id("none").purge().await.unwrap();
    assert_eq!(rig.records("yadtq.dead.settled").await.len(), 0);
}

#[tokio::test]
async fn letters_of_a_topic_that_was_made_again_are_not_taken_for_settled() {
    let rig = Rig::new(0, false);
    for n in 0..5 {
        rig.bury_task(&format!("t{n}")).await;
    }
    let letters = rig.letters().page().await.unwrap().letters;
    let earlier = letters.iter().cloned().map(|mut letter| {
        letter.at = letter.at.map(|at| at - 1);
        letter
    });
    let earlier: Vec<_> = earlier.collect();
    settle(&*rig.broker, &Namespace::default(), earlier.iter(), "purged").await.unwrap();
    assert_eq!(rig.letters().count().await.unwrap(), 5);
    settle(&*rig.broker, &Namespace::default(), letters.iter(), "purged").await.unwrap();
    assert_eq!(rig.letters().count().await.unwrap(), 0);
}

#[tokio::test]
async fn its_futures_can_be_spawned() {
    fn spawnable<T: Send + 'static>(_: T) {}
    let letters = || Client::embedded().admin().dead_letters();
    spawnable(letters().page());
    spawnable(letters().replay());
    spawnable(letters().purge());
}
