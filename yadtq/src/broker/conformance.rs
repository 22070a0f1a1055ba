//! The tests that every broker must pass.
//!
//! A [`Reader`] checks the order of events in every test, whatever else the test is about.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use super::{
    Assigned, Broker, BrokerError, Committed, Consumer, Event, Incoming, OffsetRange, Outgoing, QueueDepth,
    Subscription, TopicState, memory::MemoryBroker,
};
use crate::{
    clock::SystemClock,
    core::{
        names::{Namespace, Queue},
        priority::Priority,
    },
};

/// A broker with nothing in it.
pub(super) struct Rig {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) namespace: Namespace,
}

macro_rules! conformance_tests {
    ($backend:ident, $rig:expr) => {
        mod $backend {
            use super::*;
            conformance_tests!(@each $rig;
                records_come_back_byte_for_byte,
                records_of_a_key_keep_their_order,
                answers_come_in_the_order_of_the_records,
                dead_letters_and_delayed_tasks_may_be_larger,
                what_is_committed_stays_done,
                what_is_not_committed_comes_again,
                what_is_committed_is_deleted,
                what_is_stored_with_a_commit_comes_with_the_assignment,
                a_partition_moves_without_a_gap,
                only_a_reader_of_a_partition_commits_for_it,
                a_pause_loses_and_doubles_nothing,
                a_pause_ends_with_the_assignment,
                a_burst_comes_whole_and_in_pieces,
                a_cancelled_next_loses_nothing,
                queues_report_what_waits,
                each_priority_is_reported_by_itself,
                asking_for_a_topic_creates_none,
                a_reader_sees_all_and_leaves_no_trace,
                records_know_when_they_were_written,
                a_truncated_topic_begins_later,
                a_compacted_topic_reports_its_ends_and_keeps_the_latest_of_each_key,
            );
        }
    };
    (@each $rig:expr; $($test:ident,)+) => {
        $(#[tokio::test]
        async fn $test() {
            timeout(Duration::from_secs(60), super::$test($rig)).await.expect("the broker did not do it in time");
        })+
    };
}

conformance_tests!(memory, {
    let namespace = Namespace::default();
    Rig { broker: Arc::new(MemoryBroker::new(namespace.clone())), namespace }
});
#[cfg(feature = "kafka")]
conformance_tests!(kafka, crate::broker::kafka::tests::rig(""));

async fn records_come_back_byte_for_byte(rig: Rig) {
    let mut sent = vec![rig.record("plain", "{}"), rig.record("empty", ""), rig.record("", "no key to speak of")];
    sent[0].value = Bytes::from_static(&[0, 159, 146, 150, 255]);
    sent[1].headers = vec![
        ("twice".to_owned(), Bytes::from_static(b"one")),
        ("twice".to_owned(), Bytes::from_static(&[0, 255])),
        ("empty".to_owned(), Bytes::new()),
    ];
    rig.publish_all(sent.clone()).await;
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() == 3).await;
    for expected in sent {
        let got = reader.records.iter().find(|record| record.key.as_ref() == Some(&expected.key));
        let got = got.unwrap_or_else(|| panic!("{:?} did not come", expected.key));
        assert_eq!((&got.value, &got.headers), (&expected.value, &expected.headers));
    }
}

async fn records_of_a_key_keep_their_order(rig: Rig) {
    for batch in 0..4 {
        let records = (0..50).map(|n| rig.record("same", &format!("{}", batch * 50 + n))).collect();
        rig.publish_all(records).await;
    }
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() == 200).await;
    let partition = reader.records[0].partition;
    for (index, record) in reader.records.iter().enumerate() {
        assert_eq!((record.partition, record.value.to_vec()), (partition, index.to_string().into_bytes()));
    }
}

async fn answers_come_in_the_order_of_the_records(rig: Rig) {
    let huge = "x".repeat(2_000_000);
    let records = vec![rig.record("k", "first"), rig.record("k", &huge), rig.record("k", "last")];
    let answers = rig.broker.publish(records).await;
    match &answers[..] {
        [Ok(()), Err(BrokerError::TooLarge { topic, len }), Ok(())] => {
            assert_eq!((&**topic, *len), (&*rig.topic(), 2_000_001));
        }
        other => panic!("{other:?}"),
    }
    assert!(rig.broker.publish(Vec::new()).await.is_empty());
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() == 2).await;
    assert_eq!(reader.values(), ["first", "last"]);
}

async fn dead_letters_and_delayed_tasks_may_be_larger(rig: Rig) {
    let letter =
        |len: usize| Outgoing { topic: rig.namespace.dead_topic().into(), ..rig.record("k", &"x".repeat(len)) };
    rig.publish_all(vec![rig.record("k", &"x".repeat(1_048_000))]).await;
    let too_large = rig.broker.publish(vec![rig.record("k", &"x".repeat(1_049_000))]).await;
    assert!(matches!(too_large[..], [Err(BrokerError::TooLarge { .. })]), "{too_large:?}");
    rig.publish_all(vec![letter(1_048_588 + 65_000)]).await;
    let delayed = Outgoing { topic: rig.namespace.delayed_topic().into(), ..letter(1_048_588 + 65_000) };
    rig.publish_all(vec![delayed]).await;
    let too_large = rig.broker.publish(vec![letter(1_048_588 + 66_000)]).await;
    assert!(matches!(too_large[..], [Err(BrokerError::TooLarge { .. })]), "{too_large:?}");
}

async fn what_is_committed_stays_done(rig: Rig) {
    rig.publish_numbers(0..20).await;
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() == 20).await;
    let eighth = &reader.records[7];
    reader.subscription.store(eighth.partition, eighth.offset + 1, "");
    reader.consumer.close().await;

    let mut next = rig.reader().await;
    next.until(|reader| reader.records.len() >= 12).await;
    rig.publish_numbers(20..21).await;
    next.until(|reader| reader.values().last().is_some_and(|last| last == "20")).await;
    let expected: Vec<_> = (8..21).map(|n| n.to_string()).collect();
    assert_eq!(next.values(), expected);
}

async fn what_is_not_committed_comes_again(rig: Rig) {
    rig.publish_numbers(0..20).await;
    for _ in 0..2 {
        let mut reader = rig.reader().await;
        reader.until(|reader| reader.records.len() == 20).await;
        reader.consumer.close().await;
    }
    // The same after a consumer that was not closed.
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() == 20).await;
    drop(reader);
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() == 20).await;
}

async fn what_is_committed_is_deleted(rig: Rig) {
    rig.publish_numbers(0..20).await;
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() == 20).await;
    reader.store_all();
    reader.consumer.close().await;
    let depth = rig.depth().await;
    assert_eq!((depth.records(), depth.lag()), (0, 0));
}

async fn what_is_stored_with_a_commit_comes_with_the_assignment(rig: Rig) {
    rig.publish_numbers(0..5).await;
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() == 5).await;
    let (partition, next) = (reader.records[2].partition, reader.records[2].offset);
    assert_eq!(rig.look_up(&reader).await.map(|state| state.has_commits), Some(false));
    reader.subscription.store(partition, next, "aside");
    reader.subscription.commit(&[partition]).await.expect("committed");
    reader.subscription.revoke(&[partition]);
    reader.until(|reader| !reader.assigned.contains(&partition)).await;
    reader.subscription.assign(&[partition]);
    reader.until(|reader| reader.assigned.contains(&partition)).await;
    assert_eq!(reader.committed.get(&partition), Some(&Committed { next, metadata: "aside".to_owned() }));
    // A consumer that looks for the first time learns of the commits.
    let other = rig.reader().await;
    assert_eq!(rig.look_up(&other).await.map(|state| state.has_commits), Some(true));
}

async fn a_partition_moves_without_a_gap(rig: Rig) {
    let publish = async |value: &str| {
        rig.publish_all((0..100).map(|n| rig.record(&format!("key {n}"), value)).collect()).await;
    };
    publish("before").await;
    let mut first = rig.reader().await;
    first.until(|first| first.records.len() == 100).await;
    first.store_all();
    let moved: Vec<i32> = first.assigned.iter().copied().skip(1).collect();
    first.subscription.revoke(&moved);
    first.until(|first| first.assigned.len() == 1).await;
    first.subscription.commit(&moved).await.expect("committed");

    let mut second = rig.reader_of(&moved);
    publish("between").await;
    // The first has kept a partition, so it gets no record again. The second starts at what the first has committed.
    until_both(&mut first, &mut second, |first, second| first.records.len() + second.records.len() >= 200).await;
    assert!(!second.records.is_empty());
    assert!(second.values().iter().all(|value| value == "between"), "a committed record came again");
    second.store_all();
    second.consumer.close().await;

    first.subscription.assign(&moved);
    first.until(|first| first.assigned.len() == moved.len() + 1).await;
    publish("after").await;
    let after = |first: &Reader| first.values().iter().filter(|value| *value == "after").count();
    first.until(|first| after(first) == 100).await;
    let kept = second.assigned.len();
    assert_eq!(kept, moved.len());
    assert_eq!(first.values().iter().filter(|value| *value == "before").count(), 100);
}

async fn only_a_reader_of_a_partition_commits_for_it(rig: Rig) {
    let records = (0..100).map(|n| rig.record(&format!("key {n}"), "x")).collect();
    rig.publish_all(records).await;
    let mut first = rig.reader().await;
    first.until(|first| first.records.len() == 100).await;
    let all: Vec<i32> = first.assigned.iter().copied().collect();
    first.subscription.revoke(&all);
    all.iter().for_each(|&partition| first.subscription.store(partition, 1_000, ""));
    first.consumer.close().await;
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() == 100).await;
}

async fn a_pause_loses_and_doubles_nothing(rig: Rig) {
    let mut reader = rig.reader().await;
    let mut sent = 0;
    for round in 1..=3 {
        rig.publish_numbers(sent..sent + 50).await;
        sent += 50;
        reader.until(|reader| reader.of_key("same").len() == 50 * (2 * round - 1)).await;
        let paused = reader.of_key("same")[0].partition;
        reader.subscription.pause(paused);
        rig.publish_numbers(sent..sent + 50).await;
        sent += 50;
        // Another partition is read, so the paused one would have been read too.
        let others = (0..50).map(|n| rig.record(&format!("other {n}"), "x")).collect();
        rig.publish_all(others).await;
        let elsewhere = |reader: &Reader| reader.records.iter().filter(|record| record.partition != paused).count();
        let before = elsewhere(&reader);
        reader.until(|reader| elsewhere(reader) > before).await;
        assert_eq!(reader.of_key("same").len(), 50 * (2 * round - 1), "a paused partition was read");
        reader.subscription.resume(paused);
        reader.until(|reader| reader.of_key("same").len() == 100 * round).await;
    }
    let got: Vec<_> = reader.of_key("same").iter().map(|record| text(&record.value)).collect();
    let expected: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    assert_eq!(got, expected);
}

async fn a_pause_ends_with_the_assignment(rig: Rig) {
    let records = || (0..100).map(|n| rig.record(&format!("key {n}"), "x")).collect();
    let mut reader = rig.reader().await;
    rig.publish_all(records()).await;
    reader.until(|reader| reader.records.len() == 100).await;
    reader.store_all();
    let all: Vec<i32> = reader.assigned.iter().copied().collect();
    all.iter().for_each(|&partition| reader.subscription.pause(partition));
    let moved = &all[1..];
    reader.subscription.revoke(moved);
    reader.until(|reader| reader.assigned.len() == 1).await;
    reader.subscription.commit(moved).await.expect("committed");
    reader.subscription.assign(moved);
    reader.until(|reader| reader.assigned.len() == all.len()).await;

    let expected = reader.records.iter().filter(|record| moved.contains(&record.partition)).count();
    reader.records.clear();
    rig.publish_all(records()).await;
    reader.until(|reader| reader.records.len() >= expected).await;
    assert!(reader.records.iter().all(|record| moved.contains(&record.partition)), "a paused partition was read");
}

async fn a_burst_comes_whole_and_in_pieces(rig: Rig) {
    let records = (0..5_000).map(|n| rig.record(&format!("key {n}"), &n.to_string())).collect();
    rig.publish_all(records).await;
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() >= 5_000).await;
    let distinct: BTreeSet<_> = reader.values().into_iter().collect();
    assert_eq!((distinct.len(), reader.records.len()), (5_000, 5_000));
    assert!(reader.largest_batch <= 1_000, "{} at once", reader.largest_batch);
}

async fn a_cancelled_next_loses_nothing(rig: Rig) {
    let mut reader = rig.reader().await;
    let publish = async {
        for n in 0..200 {
            rig.publish_numbers(n..n + 1).await;
        }
    };
    let read = async {
        while reader.records.len() < 200 {
            tokio::select! {
                biased;
                events = reader.subscription.next() => reader.note(events),
                () = yield_now() => {}
            }
        }
    };
    tokio::join!(publish, read);
    let expected: Vec<_> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(reader.values(), expected);
}

async fn queues_report_what_waits(rig: Rig) {
    assert_eq!(rig.broker.queues().await.expect("queues"), []);
    rig.publish_numbers(0..10).await;
    let dead = Outgoing { topic: rig.namespace.dead_topic().into(), ..rig.record("k", "a dead letter") };
    rig.publish_all(vec![dead]).await;
    let depth = rig.depth().await;
    assert_eq!((&*depth.queue, depth.priority, depth.records(), depth.lag()), ("q", Priority::Normal, 10, 10));
    assert!(depth.partitions.len() > 1 && depth.leaderless == 0);

    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() == 10).await;
    reader.subscription.store(reader.records[0].partition, reader.records[3].offset + 1, "");
    reader.consumer.close().await;
    assert_eq!(rig.depth().await.lag(), 6);
    let info = rig.broker.ping().await.expect("ping");
    assert_eq!(info.warnings, Vec::<String>::new());
}

async fn each_priority_is_reported_by_itself(rig: Rig) {
    let record = |priority| {
        let topic = rig.namespace.topic_of(&Rig::queue(), priority).into();
        Outgoing { topic, ..rig.record("k", "x") }
    };
    rig.publish_all(vec![record(Priority::Low), record(Priority::High), record(Priority::Low)]).await;
    let depths = rig.broker.queues().await.expect("queues");
    let reported: Vec<_> = depths.iter().map(|depth| (&*depth.queue, depth.priority, depth.lag())).collect();
    assert_eq!(reported, [("q", Priority::High, 1), ("q", Priority::Low, 2)]);
}

async fn asking_for_a_topic_creates_none(rig: Rig) {
    let low: Arc<str> = rig.namespace.topic_of(&Rig::queue(), Priority::Low).into();
    let asked = [rig.topic(), Arc::clone(&low)];
    for _ in 0..3 {
        assert_eq!(rig.broker.exist(&asked).await.expect("an answer"), [false, false]);
    }
    assert_eq!(rig.broker.queues().await.expect("queues"), []);
    rig.publish_all(vec![Outgoing { topic: low, ..rig.record("k", "x") }]).await;
    assert_eq!(rig.broker.exist(&asked).await.expect("an answer"), [false, true]);
}

async fn a_reader_sees_all_and_leaves_no_trace(rig: Rig) {
    let topic = rig.topic();
    assert_eq!(rig.broker.offset_ranges(&topic).await.expect("extents"), [], "there is no such topic");
    rig.publish_all((0..2_500).map(|n| rig.record(&format!("key {n}"), &n.to_string())).collect()).await;
    let offset_ranges = rig.broker.offset_ranges(&topic).await.expect("extents");
    assert_eq!(offset_ranges.iter().map(|offsets| offsets.end - offsets.start).sum::<i64>(), 2_500);
    let from: Vec<_> = offset_ranges.iter().map(|offsets| (offsets.partition, offsets.start)).collect();
    let mut reader = rig.broker.read(&topic, &from).expect("a reader");
    let (seen, ended) = read_to_ends(&mut *reader, offset_ranges.len()).await;
    assert_eq!(seen.iter().map(|record| text(&record.value)).collect::<BTreeSet<_>>().len(), 2_500);
    assert_eq!(seen.len(), 2_500);
    assert_eq!(ended.len(), offset_ranges.len());
    // Later records are read too, and the end is reported again.
    let given = Outgoing { partition: Some(offset_ranges[1].partition), ..rig.record("k", "later") };
    rig.publish_all(vec![given]).await;
    let (seen, ended) = read_to_ends(&mut *reader, 1).await;
    assert_eq!(
        (text(&seen[0].value), seen[0].partition, seen.len()),
        ("later".to_owned(), offset_ranges[1].partition, 1)
    );
    assert_eq!(ended.into_iter().collect::<Vec<_>>(), [offset_ranges[1].partition]);
    // A reader may start in the middle of a partition.
    let middle = offset_ranges[0].end - 3;
    let mut reader = rig.broker.read(&topic, &[(offset_ranges[0].partition, middle)]).expect("a reader");
    let (seen, _) = read_to_ends(&mut *reader, 1).await;
    assert_eq!(seen.iter().map(|record| record.offset).collect::<Vec<_>>(), [middle, middle + 1, middle + 2]);
    assert_eq!(rig.depth().await.lag(), 2_501, "nothing was committed");
}

async fn records_know_when_they_were_written(rig: Rig) {
    let now_ms = || SystemClock::shared().now_ms();
    let before = now_ms();
    rig.publish_numbers(0..1).await;
    let after = now_ms();
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() == 1).await;
    let at = reader.records[0].timestamp_ms.expect("a time");
    assert!((before..=after).contains(&at), "{before} {at} {after}");
}

async fn a_truncated_topic_begins_later(rig: Rig) {
    rig.publish_numbers(0..10).await;
    let topic = rig.topic();
    let offset_ranges = rig.broker.offset_ranges(&topic).await.expect("extents");
    let full = offset_ranges.iter().find(|offsets| offsets.end == 10).expect("one key, one partition").partition;
    let read = async || {
        let mut reader = rig.broker.read(&topic, &[(full, 0)]).expect("a reader");
        read_to_ends(&mut *reader, 1).await.0.len()
    };
    // The request is sent twice, and once more with an older offset.
    for below in [4, 4, 2] {
        rig.broker.truncate(&topic, &[(full, below)]).await.expect("truncated");
        let offset_ranges = rig.broker.offset_ranges(&topic).await.expect("extents");
        let offsets = offset_ranges.iter().find(|offsets| offsets.partition == full).copied();
        assert_eq!(offsets, Some(OffsetRange { partition: full, start: 4, end: 10 }));
        assert_eq!(read().await, 6);
    }
    let all: Vec<_> = offset_ranges.iter().map(|offsets| (offsets.partition, offsets.end)).collect();
    rig.broker.truncate(&topic, &all).await.expect("truncated");
    assert_eq!(read().await, 0);
    rig.publish_numbers(10..11).await;
    assert_eq!(read().await, 1);
    let missing = rig.namespace.dead_topic().into();
    rig.broker.truncate(&missing, &[(0, 1)]).await.expect("nothing to do");
    assert_eq!(rig.broker.offset_ranges(&missing).await.expect("extents"), []);
}

async fn a_compacted_topic_reports_its_ends_and_keeps_the_latest_of_each_key(rig: Rig) {
    let topic: Arc<str> = rig.namespace.delayed_topic().into();
    let record = |key: &str, value: &str| Outgoing { topic: Arc::clone(&topic), ..rig.record(key, value) };
    rig.publish_all((0..100).map(|n| record(&format!("key {n}"), "first")).collect()).await;
    let mut owner = rig.reader_of_all(&topic).await;
    owner.until(|owner| !owner.assigned.is_empty() && owner.ended == owner.assigned).await;
    assert_eq!(owner.records.len(), 100);
    let gone: Vec<_> = owner.records.iter().take(50).cloned().collect();
    owner.records.clear();
    owner.ended.clear();
    // A scheduler writes the deletion to the partition in which it found the record.
    let deletion = |record: &Incoming| Outgoing {
        key: record.key.clone().expect("a key"),
        partition: Some(record.partition),
        topic: Arc::clone(&topic),
        ..rig.record("", "")
    };
    rig.publish_all(gone.iter().map(deletion).collect()).await;
    owner.until(|owner| owner.records.len() == 50).await;
    assert!(owner.records.iter().all(|record| record.value.is_empty()), "{:?}", owner.records[0]);
    let places: BTreeSet<_> = gone.iter().map(|record| (record.key.clone(), record.partition)).collect();
    assert_eq!(
        owner.records.iter().map(|record| (record.key.clone(), record.partition)).collect::<BTreeSet<_>>(),
        places
    );
    owner.until(|owner| !owner.ended.is_empty()).await;
    owner.consumer.close().await;

    // The next owner reads from the start, because nobody commits offsets of this topic.
    let mut owner = rig.reader_of_all(&topic).await;
    owner.until(|owner| !owner.assigned.is_empty() && owner.ended == owner.assigned).await;
    let mut left = BTreeMap::new();
    for record in &owner.records {
        left.insert(record.key.clone(), record.value.clone());
    }
    left.retain(|_, value| !value.is_empty());
    assert_eq!(left.len(), 50);
    assert!(places.iter().all(|(key, _)| !left.contains_key(key)));
    assert_eq!(rig.broker.queues().await.expect("queues"), [], "it is no queue");
}

/// Reads until this number of partitions have ended.
async fn read_to_ends(reader: &mut dyn super::Reader, ends: usize) -> (Vec<Incoming>, BTreeSet<i32>) {
    let (mut seen, mut ended) = (Vec::new(), BTreeSet::new());
    while ended.len() < ends {
        for event in reader.next().await {
            match event {
                Event::Records(records) => seen.extend(records),
                Event::EndReached(partitions) => ended.extend(partitions),
                other => panic!("{other:?}"),
            }
        }
    }
    (seen, ended)
}

impl Rig {
    fn queue() -> Queue {
        "q".parse().expect("a queue")
    }

    pub(super) fn topic(&self) -> Arc<str> {
        self.namespace.topic(&Self::queue()).into()
    }

    pub(super) fn record(&self, key: &str, value: &str) -> Outgoing {
        let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
        Outgoing { topic: self.topic(), key, value, partition: None, headers: Vec::new() }
    }

    pub(super) async fn publish_all(&self, records: Vec<Outgoing>) {
        for answer in self.broker.publish(records).await {
            answer.expect("published");
        }
    }

    /// Publishes one record per number, with the number as value and all with the same key.
    pub(super) async fn publish_numbers(&self, numbers: std::ops::Range<usize>) {
        self.publish_all(numbers.map(|n| self.record("same", &n.to_string())).collect()).await;
    }

    /// Reads all partitions of the queue.
    pub(super) async fn reader(&self) -> Reader {
        self.reader_of_all(&self.topic()).await
    }

    async fn reader_of_all(&self, topic: &Arc<str>) -> Reader {
        self.broker.create(topic).await.expect("created");
        let reader = Reader::new(self.broker.consumer().expect("a consumer"), topic);
        let state = self.look_up_topic(&reader, topic).await.expect("the topic exists");
        let all: Vec<i32> = (0..state.partitions).map(|partition| partition.try_into().expect("few")).collect();
        reader.subscription.assign(&all);
        reader
    }

    /// Reads these partitions of the queue.
    pub(super) fn reader_of(&self, partitions: &[i32]) -> Reader {
        let reader = Reader::new(self.broker.consumer().expect("a consumer"), &self.topic());
        reader.subscription.assign(partitions);
        reader
    }

    /// What a reader's consumer knows of the queue's topic.
    async fn look_up(&self, reader: &Reader) -> Option<TopicState> {
        self.look_up_topic(reader, &self.topic()).await
    }

    async fn look_up_topic(&self, reader: &Reader, topic: &Arc<str>) -> Option<TopicState> {
        loop {
            // A new Kafka needs a moment before it answers for offsets.
            match reader.consumer.look_up(std::slice::from_ref(topic)).await {
                Ok(mut states) => return states.remove(0),
                Err(error) => assert!(matches!(error, BrokerError::Timeout { .. }), "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn depth(&self) -> QueueDepth {
        let mut depths = self.broker.queues().await.expect("queues");
        assert_eq!(depths.len(), 1, "{depths:?}");
        depths.remove(0)
    }
}

/// A consumer that follows the events of one subscription, and checks that they fit together.
pub(super) struct Reader {
    pub(super) consumer: Arc<dyn Consumer>,
    pub(super) subscription: Arc<dyn Subscription>,
    pub(super) assigned: BTreeSet<i32>,
    pub(super) records: Vec<Incoming>,
    /// What was committed for the partitions, as of their last assignments.
    committed: BTreeMap<i32, Committed>,
    ended: BTreeSet<i32>,
    largest_batch: usize,
}

impl Reader {
    pub(super) fn new(consumer: Arc<dyn Consumer>, topic: &Arc<str>) -> Self {
        Self {
            subscription: consumer.subscribe(topic),
            consumer,
            assigned: BTreeSet::new(),
            records: Vec::new(),
            committed: BTreeMap::new(),
            ended: BTreeSet::new(),
            largest_batch: 0,
        }
    }

    pub(super) async fn step(&mut self) {
        let events = self.subscription.next().await;
        self.note(events);
    }

    fn note(&mut self, events: Vec<Event>) {
        assert!(!events.is_empty(), "`next` returned nothing");
        let mut batch = 0;
        for event in events {
            match event {
                Event::Assigned(assigned) => {
                    for Assigned { partition, committed } in assigned {
                        assert!(self.assigned.insert(partition), "partition {partition} was assigned twice");
                        self.committed.extend(committed.map(|committed| (partition, committed)));
                    }
                }
                Event::Revoked(partitions) => {
                    for partition in partitions {
                        assert!(self.assigned.remove(&partition), "partition {partition} was not ours to revoke");
                    }
                }
                Event::Records(records) => {
                    for record in records {
                        assert!(self.assigned.contains(&record.partition), "a record of {}", record.partition);
                        batch += 1;
                        self.records.push(record);
                    }
                }
                Event::EndReached(partitions) => {
                    assert!(partitions.iter().all(|partition| self.assigned.contains(partition)), "{partitions:?}");
                    self.ended.extend(partitions);
                }
            }
        }
        self.largest_batch = self.largest_batch.max(batch);
    }

    pub(super) async fn until(&mut self, reached: impl Fn(&Self) -> bool) {
        while !reached(self) {
            self.step().await;
        }
    }

    pub(super) fn values(&self) -> Vec<String> {
        self.records.iter().map(|record| text(&record.value)).collect()
    }

    fn of_key(&self, key: &str) -> Vec<&Incoming> {
        self.records.iter().filter(|record| record.key.as_deref() == Some(key.as_bytes())).collect()
    }

    /// Stores the offset after the last record of each partition.
    fn store_all(&self) {
        let mut next = BTreeMap::new();
        for record in &self.records {
            next.insert(record.partition, record.offset + 1);
        }
        next.into_iter().for_each(|(partition, next)| self.subscription.store(partition, next, ""));
    }
}

/// Polls two readers until `reached` holds, and checks that no partition is ever assigned to both.
async fn until_both(a: &mut Reader, b: &mut Reader, reached: impl Fn(&Reader, &Reader) -> bool) {
    while !reached(a, b) {
        tokio::select! {
            () = a.step() => {}
            () = b.step() => {}
        }
        let both: Vec<_> = a.assigned.intersection(&b.assigned).collect();
        assert!(both.is_empty(), "{both:?} are assigned to both");
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
