//! Replays and purges, also such that are interrupted and repeated.

#![allow(clippy::unwrap_used)]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    broker::{
        Broker, BrokerError, BrokerInfo, Consumer, Incoming, OffsetRange, QueueDepth, Reader, memory::MemoryBroker,
    },
    client::Client,
    clock::SystemClock,
    core::{
        lifecycle::{Claim, ClaimRequest, Claimer},
        names::{Namespace, TaskId},
    },
    store::{Tasks, memory::MemoryStore},
    wire::{
        dead::{Cause, Reason, Source},
        strange,
    },
};

/// A broker that fails one publish: the one with the number `fails_at`, counted from 1. If `is_lost`, its records are lost.
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

    fn consumer(&self) -> Result<Arc<dyn Consumer>, BrokerError> {
        self.broker.consumer()
    }

    async fn create(&self, topic: &Arc<str>) -> Result<(), BrokerError> {
        self.broker.create(topic).await
    }

    fn read(&self, topic: &Arc<str>, from: &[(i32, i64)]) -> Result<Box<dyn Reader>, BrokerError> {
        self.broker.read(topic, from)
    }

    async fn offset_ranges(&self, topic: &Arc<str>) -> Result<Vec<OffsetRange>, BrokerError> {
        self.broker.offset_ranges(topic).await
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
    /// With `fails_at` 0 nothing fails.
    fn new(fails_at: usize, is_lost: bool) -> Self {
        let memory = MemoryBroker::new(Namespace::default());
        let broker = Brittle { broker: memory.clone(), fails_at: AtomicUsize::new(fails_at), is_lost };
        Self { broker: Arc::new(broker), memory, store: MemoryStore::new(SystemClock::shared()) }
    }

    fn letters(&self) -> DeadLetters {
        let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&self.store);
        DeadLetters::new(Arc::clone(&self.broker), store, Client::embedded().config().clone())
    }

    async fn add(&self, value: &str, reason: Reason) {
        self.add_from("yadtq.mail", value, reason).await;
    }

    async fn add_from(&self, topic: &str, value: &str, reason: Reason) {
        let source = Source { topic, partition: 0, offset: 7 };
        let cause = Cause { reason, error: "no".to_owned(), attempts: 3, deliveries: 1 };
        let own = vec![("traceparent".to_owned(), "00".into()), ("yadtq-spoof".to_owned(), "x".into())];
        let headers = cause.headers(&source, &own);
        let value = Bytes::from(value.to_owned());
        let key = Envelope::read(&value).map_or_else(|_| Bytes::new(), |task| task.id.to_string().into());
        let letter = Outgoing { topic: "yadtq.dead".into(), key, value, partition: None, headers };
        self.memory.publish(vec![letter]).await.pop().unwrap().unwrap();
    }

    async fn add_task(&self, id: &str) {
        let value = format!(r#"{{"task-id":"{id}","task":"send","args":[],"seq":2,"attempt":3,"kept":true}}"#);
        self.add(&value, Reason::Arguments).await;
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
    rig.add_task("a").await;
    let report = rig.letters().id("a").replay().await.unwrap();
    assert_eq!(report, ReplayReport { replayed: 1, ..ReplayReport::default() });
    let records = rig.records("yadtq.mail").await;
    let mut value: serde_json::Value = serde_json::from_slice(&records[0].value).unwrap();
    assert!(value.as_object_mut().unwrap().remove("replayed").unwrap().as_u64().unwrap() > 0);
    let expected =
        serde_json::json!({"task-id": "a", "task": "send", "args": [], "seq": 3, "attempt": 1, "kept": true});
    assert_eq!((records.len(), value), (1, expected));
    assert_eq!(records[0].key.as_deref(), Some(&b"a"[..]));
    assert_eq!(records[0].headers, [("traceparent".to_owned(), Bytes::from("00"))]);
    assert_eq!(rig.status("a").await, Some((Status::Queued, 3)));
    assert_eq!(rig.letters().count().await.unwrap(), 0);
    assert_eq!(rig.letters().replay().await.unwrap(), ReplayReport::default());
    assert_eq!(rig.records("yadtq.dead").await.len(), 0, "the letter is deleted");
    assert_eq!(rig.records("yadtq.dead.settled").await.len(), 0, "and so is its entry in the ledger");
}

#[tokio::test]
async fn an_interrupted_replay_can_be_repeated() {
    for is_lost in [true, false] {
        // The first publish is that of the record, the second one settles the letter.
        for fails_at in [1, 2] {
            let rig = Rig::new(fails_at, is_lost);
            rig.add_task("a").await;
            rig.letters().replay().await.unwrap_err();
            assert_eq!(rig.status("a").await, Some((Status::Queued, 3)));
            let was_settled = fails_at == 2 && !is_lost;
            let report = rig.letters().replay().await.unwrap();
            assert_eq!(report.replayed, u64::from(!was_settled), "{fails_at} {is_lost}");
            let records = rig.records("yadtq.mail").await;
            let but_its_time = |record: &Incoming| envelope::replayed(&record.value, 0).unwrap();
            let first = but_its_time(&records[0]);
            assert!(records.iter().all(|record| but_its_time(record) == first));
            assert_eq!(rig.letters().count().await.unwrap(), 0);
        }
    }
}

#[tokio::test]
async fn a_letter_whose_task_ran_after_an_interrupted_replay_is_settled() {
    let rig = Rig::new(2, true);
    rig.add_task("a").await;
    rig.letters().replay().await.unwrap_err();
    let ask = ClaimRequest { seq: 3, attempt: 1, nonce: 1, task: "send".into(), queue: "mail".into() };
    let by = Claimer { worker: "w".into(), lease_ms: 9_000, take_over: true, quarantine: 1, max_deliveries: 5 };
    let id: TaskId = "a".parse().unwrap();
    let claim = rig.store.claim(&by, &[(id, Arc::new(ask))]).await.unwrap().remove(0).unwrap();
    assert!(matches!(claim, Claim::Granted { deliveries: 0, .. }));
    let mut outcomes = Vec::new();
    rig.letters().replay_each(|_, outcome| outcomes.push(outcome.clone().ok())).await.unwrap();
    assert_eq!(outcomes, [Some(Replayed::GoneOn(Status::Running))]);
    assert_eq!(rig.letters().count().await.unwrap(), 0);
    assert_eq!(rig.records("yadtq.mail").await.len(), 1);
}

#[tokio::test]
async fn letters_that_cannot_be_replayed_are_kept_with_a_reason() {
    let rig = Rig::new(0, false);
    rig.add("[]", Reason::Unreadable).await;
    rig.add(r#"{"task-id":"late","task":"send","args":[],"expires":5}"#, Reason::Arguments).await;
    rig.add_task("fine").await;
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
    rig.add_task("busy").await;
    let mut outcomes = Vec::new();
    let each = |letter: &DeadLetter, outcome: &Result<Replayed, NotReplayed>| {
        let id = letter.id.as_ref().map_or("none", TaskId::as_str);
        outcomes.extend(outcome.as_ref().err().map(|why| format!("{id}: {why}")));
    };
    let report = rig.letters().replay_each(each).await.unwrap();
    assert_eq!((report.replayed, report.gone_on, report.refused), (1, 0, 3));
    outcomes.sort();
    assert_eq!(
        outcomes,
        [
            "busy: its task has not failed, it is queued",
            "late: its task has expired and would not run; send a new task instead",
            "none: its record is not a task, so there is nothing to run",
        ]
    );
    assert_eq!(rig.letters().count().await.unwrap(), 3);
}

#[tokio::test]
async fn a_purge_deletes_only_the_selected_letters() {
    let rig = Rig::new(0, false);
    for n in 0..100 {
        rig.add_task(&format!("t{n}")).await;
    }
    rig.add("[]", Reason::Unreadable).await;
    assert_eq!(rig.letters().reason("unreadable").purge().await.unwrap(), 1);
    assert_eq!(rig.letters().reason("unreadable").purge().await.unwrap(), 0, "they are already purged");
    assert_eq!(rig.letters().id("t3").id("t4").purge().await.unwrap(), 2);
    assert_eq!(rig.letters().count().await.unwrap(), 98);
    assert_eq!(rig.letters().id("t4").replay().await.unwrap(), ReplayReport::default());
    assert_eq!(rig.letters().id("t5").replay().await.unwrap().replayed, 1);
    let mut counts = Vec::new();
    assert_eq!(rig.letters().purge_each(|done| counts.push(done)).await.unwrap(), 97);
    assert_eq!(counts, [97]);
    assert_eq!((rig.letters().count().await.unwrap(), rig.records("yadtq.dead").await.len()), (0, 0));
    rig.add_task("new").await;
    assert_eq!(rig.letters().count().await.unwrap(), 1);
    // The entries of deleted letters are not needed any more.
    rig.letters().id("none").purge().await.unwrap();
    assert_eq!(rig.records("yadtq.dead.settled").await.len(), 0);
}

#[tokio::test]
async fn letters_of_a_topic_that_was_created_again_are_not_settled() {
    let rig = Rig::new(0, false);
    for n in 0..5 {
        rig.add_task(&format!("t{n}")).await;
    }
    let letters = rig.letters().page().await.unwrap().letters;
    // Every letter of the deleted topic is older than the first letter of the new one.
    let before = letters.iter().filter_map(|letter| letter.at).min().unwrap() - Duration::from_millis(1);
    let mut earlier = letters.clone();
    earlier.iter_mut().for_each(|letter| letter.at = Some(before));
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

#[tokio::test]
async fn a_delayed_task_is_replayed_to_its_queue() {
    let rig = Rig::new(0, false);
    let value = r#"{"task-id":"a","task":"send","args":[],"eta":7,"queue":"mail","priority":"low"}"#;
    rig.add_from("yadtq.delayed", value, Reason::Unpublishable).await;
    assert_eq!(rig.letters().queue("mail").reason("unpublishable").replay().await.unwrap().replayed, 1);
    let records = rig.records("yadtq.mail.low").await;
    let task = Envelope::read(&records[0].value).unwrap();
    assert_eq!((records.len(), task.seq, task.eta), (1, 2, None));
}

#[tokio::test]
async fn a_letter_that_its_queue_does_not_take_stops_no_other() {
    let rig = Rig::new(0, false);
    let args = "x".repeat(1_048_500);
    rig.add(&format!(r#"{{"task-id":"big","task":"send","args":["{args}"]}}"#), Reason::Unpublishable).await;
    rig.add_task("fine").await;
    for replayed in [1, 0] {
        let mut refused = Vec::new();
        let each = |letter: &DeadLetter, outcome: &Result<Replayed, NotReplayed>| {
            if let Err(why) = outcome {
                refused.push((letter.id.clone().unwrap().to_string(), matches!(why, NotReplayed::TooLarge(_))));
            }
        };
        let report = rig.letters().replay_each(each).await.unwrap();
        assert_eq!((report.replayed, report.refused, refused), (replayed, 1, vec![("big".to_owned(), true)]));
    }
}

proptest! {
    /// Whatever can be read as a task can be replayed.
    #[test]
    fn every_task_can_be_replayed(record in strange::records()) {
        let Ok(task) = Envelope::read(&record) else { return Ok(()) };
        let source = Source { topic: "yadtq.mail", partition: 0, offset: 7 };
        let cause = Cause { reason: Reason::Fatal, error: "no".to_owned(), attempts: 1, deliveries: 0 };
        let headers = cause.headers(&source, &Vec::new());
        let value = record;
        let letter = crate::broker::Incoming { partition: 0, offset: 0, timestamp_ms: None, key: None, value, headers };
        match check(&DeadLetter::read(letter, &Namespace::default()), 1) {
            Ok((dead, next)) => {
                let read = Envelope::read(&next.value).unwrap();
                prop_assert_eq!((&read.id, read.seq, read.attempt), (&task.id, task.seq + 1, 1));
                prop_assert_eq!((dead.seq, &*next.topic), (task.seq, "yadtq.mail"));
            }
            Err(NotReplayed::Seq) => prop_assert_eq!(task.seq, MAX_SEQ),
            Err(NotReplayed::Expired) => prop_assert!(task.expires <= Some(1)),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
