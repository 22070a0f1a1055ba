//! Failures that only Kafka has. The conformance suite tests everything else.

#![allow(clippy::unwrap_used)]

use std::ffi::CString;

use rdkafka::{
    admin::{AdminOptions, NewTopic, TopicReplication},
    bindings,
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;
use crate::{
    broker::conformance::{Reader, Rig},
    core::names::Namespace,
};

const TOPIC_TIMEOUT: Duration = Duration::from_secs(10);

/// A real Kafka, with a new namespace.
pub(in crate::broker) fn rig(extra: &str) -> Rig {
    let config = config(extra);
    let namespace = config.namespace.clone();
    Rig { broker: KafkaBroker::connect(config).unwrap(), namespace }
}

fn config(extra: &str) -> KafkaConfig {
    let namespace: Namespace = format!("t{}", uuid::Uuid::now_v7().simple()).parse().unwrap();
    let extra = KafkaConfig::parse_extra(extra).unwrap();
    // Fewer partitions than by default, to go easy on a small server.
    KafkaConfig { extra, partitions: 4, ..KafkaConfig::new(server(), namespace) }
}

fn server() -> String {
    std::env::var("YADTQ_KAFKA")
        .expect("YADTQ_KAFKA is not set: run `cargo xtask test`, which starts Kafka and Redis and sets it")
}

/// A rig, and its broker with access to all parts.
fn open_rig(config: KafkaConfig) -> (Rig, Arc<KafkaBroker>) {
    let namespace = config.namespace.clone();
    let kafka = KafkaBroker::connect(config).unwrap();
    let broker: Arc<dyn Broker> = Arc::<KafkaBroker>::clone(&kafka);
    (Rig { broker, namespace }, kafka)
}

#[tokio::test]
async fn ping_reports_what_it_reached_and_which_settings_lose_tasks() {
    let (rig, kafka) = open_rig(config(""));
    rig.publish_numbers(0..1).await;
    let foreign = format!("{}.foreign", rig.namespace);
    let topic = NewTopic::new(&foreign, 1, TopicReplication::Fixed(1))
        .set("retention.ms", "3600000")
        .set("cleanup.policy", "compact,delete");
    kafka.cluster.admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    // Waits until the broker knows what the controller has done.
    kafka.cluster.ensure_topic(&foreign.as_str().into(), TOPIC_TIMEOUT).await.unwrap();

    let info = rig.broker.ping().await.unwrap();
    assert!(info.summary.contains(&server()) && info.summary.contains("librdkafka 2."), "{}", info.summary);
    let [retention, policy] = &info.warnings[..] else { panic!("{:?}", info.warnings) };
    let remedy = format!("--bootstrap-server {} --alter --entity-type topics --entity-name {foreign}", server());
    assert!(retention.contains("retention.ms=3600000") && retention.contains(&remedy), "{retention}");
    assert!(policy.contains("--add-config cleanup.policy=delete"), "{policy}");
}

#[tokio::test]
async fn the_topic_of_delayed_tasks_keeps_deletions_for_minutes_and_can_be_purged() {
    let (rig, kafka) = open_rig(config(""));
    let topic: Arc<str> = rig.namespace.delayed_topic().into();
    let record =
        |n: usize| Outgoing { topic: Arc::clone(&topic), partition: Some(0), ..rig.record(&n.to_string(), "x") };
    rig.publish_all((0..3).map(record).collect()).await;
    let settings = kafka.cluster.describe_topics(&[&topic], TOPIC_TIMEOUT).await.unwrap().remove(0).unwrap();
    let value = |name| settings.get(name).unwrap().value.clone().unwrap();
    let names = ["delete.retention.ms", "max.compaction.lag.ms", "retention.ms", "retention.bytes"];
    assert_eq!(names.map(value), ["600000", "600000", "-1", "-1"]);
    rig.broker.truncate(&topic, &[(0, 2)]).await.unwrap();
    let ranges = rig.broker.offset_ranges(&topic).await.unwrap();
    assert_eq!((ranges[0].start, ranges[0].end), (2, 3));
}

#[tokio::test]
async fn an_unreachable_kafka_is_reported_in_time_and_by_its_address() {
    // One port refuses connections, the other accepts and never answers.
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for bootstrap in [refusing, silent.local_addr().unwrap().to_string()] {
        let config = KafkaConfig { bootstrap: bootstrap.clone(), send_timeout: Duration::from_secs(1), ..config("") };
        let (rig, _) = open_rig(config);
        let publish = async { rig.broker.publish(vec![rig.record("k", "v")]).await.remove(0) };
        let published = timeout(Duration::from_secs(3), publish).await.expect("publish gave up in time");
        let pinged = timeout(Duration::from_secs(6), rig.broker.ping()).await.expect("ping gave up in time");
        for error in [published.unwrap_err(), pinged.unwrap_err()] {
            assert!(matches!(error, BrokerError::Timeout { .. }), "{error:?}");
            assert!(error.to_string().contains(&bootstrap), "{error}");
        }
        // Reading does not fail, and closing does not hang.
        let reader = rig.reader_of(&[0]);
        timeout(Duration::from_secs(10), reader.consumer.close()).await.expect("closed in time");
    }
}

#[tokio::test]
async fn a_subscription_made_while_kafka_is_unreachable_works_once_it_is_back() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (away, _) = open_rig(KafkaConfig { bootstrap: address.to_string(), ..config("") });
    let mut reader = away.reader_of(&[0, 1, 2, 3]);
    let unreachable = timeout(Duration::from_millis(500), reader.step()).await;
    assert!(unreachable.is_err(), "an event without Kafka");

    let listener = TcpListener::bind(address).await.unwrap();
    let forward = async {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut kafka = TcpStream::connect(server()).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut kafka).await });
        }
    };
    let work = async {
        away.publish_numbers(0..5).await;
        reader.until(|reader| reader.records.len() == 5).await;
    };
    tokio::select! {
        () = forward => {}
        done = timeout(Duration::from_secs(30), work) => done.expect("read once Kafka was reachable"),
    }
}

#[tokio::test]
async fn a_producer_in_a_fatal_state_is_replaced() {
    let (rig, kafka) = open_rig(config(""));
    rig.publish_numbers(0..1).await;
    kafka.cluster.producer.with_client(|client| break_client(client.native_ptr()));
    rig.publish_numbers(1..3).await;
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.records.len() == 3).await;
    assert_eq!(reader.values(), ["0", "1", "2"]);
}

#[tokio::test]
async fn a_consumer_in_a_fatal_state_is_replaced_and_its_partitions_come_as_revoked() {
    let (rig, kafka) = open_rig(config(""));
    rig.publish_numbers(0..1).await;
    let consumer = KafkaConsumer::start(&kafka.cluster).unwrap();
    let mut reader = Reader::new(Arc::<KafkaConsumer>::clone(&consumer), &rig.topic());
    reader.subscription.assign(&[0, 1, 2, 3]);
    reader.until(|reader| reader.records.len() == 1).await;

    consumer.with_native(break_client);
    reader.until(|reader| reader.assigned.is_empty()).await;
    rig.publish_numbers(1..2).await;
    // Nothing was committed, so the first record comes again.
    reader.until(|reader| reader.records.len() == 3).await;
    assert_eq!(reader.values(), ["0", "0", "1"]);
}

#[tokio::test]
async fn a_partition_can_be_read_again_even_if_it_was_revoked_before_kafka_said_anything_of_it() {
    let (rig, _) = open_rig(config(""));
    rig.publish_all((0..40).map(|n| rig.record(&format!("key {n}"), "x")).collect()).await;
    for _ in 0..5 {
        let mut reader = rig.reader_of(&[0, 1, 2, 3]);
        reader.until(|reader| reader.assigned.len() == 4).await;
        reader.subscription.revoke(&[1, 2, 3]);
        reader.until(|reader| reader.assigned.len() == 1).await;
        reader.subscription.assign(&[1, 2, 3]);
        reader.until(|reader| reader.assigned.len() == 4).await;
        let read = |reader: &Reader| {
            reader
                .records
                .iter()
                .map(|record| (record.partition, record.offset))
                .collect::<std::collections::BTreeSet<_>>()
        };
        let all = reader.until(|reader| read(reader).len() == 40);
        timeout(Duration::from_secs(20), all).await.expect("every partition is read");
    }
}

#[tokio::test]
async fn a_deleted_topic_is_created_again() {
    let (rig, kafka) = open_rig(KafkaConfig { send_timeout: Duration::from_secs(2), ..config("") });
    let mut reader = rig.reader().await;
    reader.until(|reader| reader.assigned.len() == 4).await;
    kafka.cluster.admin.delete_topics(&[&rig.topic()], &AdminOptions::new()).await.unwrap();
    while kafka.cluster.topic_names(TOPIC_TIMEOUT).await.unwrap().contains(&rig.topic().to_string()) {}

    // The first publish may fail, because it finds out that the topic is gone. The next one creates the topic.
    while rig.broker.publish(vec![rig.record("k", "again")]).await[0].is_err() {}
    let read = reader.until(|reader| reader.values() == ["again"]);
    timeout(Duration::from_secs(60), read).await.expect("the new topic was read");
}

#[tokio::test]
async fn a_record_is_not_acknowledged_because_a_later_one_is() {
    let kafka = MockCluster::new(1).unwrap();
    let (rig, _) = open_rig(KafkaConfig { bootstrap: kafka.bootstrap_servers(), ..config("") });
    kafka.create_topic(&rig.topic(), 1, 1).unwrap();
    rig.publish_numbers(0..1).await;
    // These records are too large for one batch, so there are three batches, and Kafka accepts only the last.
    let not_leader = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    kafka.request_errors(RDKafkaApiKey::Produce, &[not_leader; 2]);
    let records = ["a", "b", "c"].map(|letter| rig.record("k", &letter.repeat(600_000)));
    rig.publish_all(records.to_vec()).await;

    let mut reader = rig.reader().await;
    let has = |reader: &Reader, letter: &str| reader.values().iter().any(|value| value.starts_with(letter));
    let read = reader.until(|reader| ["a", "b", "c"].iter().all(|letter| has(reader, letter)));
    timeout(Duration::from_secs(30), read).await.expect("every acknowledged record can be read");
}

#[tokio::test]
async fn a_setting_that_librdkafka_does_not_know_is_refused_by_name() {
    let error = KafkaBroker::connect(config("no.such.setting=1")).unwrap_err();
    assert!(error.to_string().contains("no.such.setting"), "{error}");
    let (rig, _) = open_rig(config("max.poll.interval.ms=1000,session.timeout.ms=9000"));
    let error = rig.broker.consumer().unwrap_err();
    assert!(error.to_string().contains("session.timeout.ms"), "{error}");
}

/// Puts a client into the fatal state.
#[allow(unsafe_code, reason = "librdkafka has this function for tests, rdkafka does not wrap it")]
fn break_client(client: *mut bindings::rd_kafka_t) {
    let reason = CString::new("broken by a test").unwrap();
    let code = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    // SAFETY: the client outlives this call, because the caller borrows it, and librdkafka copies the reason.
    unsafe { bindings::rd_kafka_test_fatal_error(client, code, reason.as_ptr()) };
}

#[tokio::test]
async fn what_is_too_large_as_a_batch_is_sent_record_by_record() {
    let (rig, kafka) = open_rig(config(""));
    let small = NewTopic::new("", 1, TopicReplication::Fixed(1)).set("max.message.bytes", "1000");
    let topic: Arc<str> = rig.topic();
    let small = NewTopic { name: &topic, ..small };
    kafka.cluster.admin.create_topics([&small], &AdminOptions::new()).await.unwrap();
    let sizes = [500, 2_000, 600, 700, 3_000, 800];
    let answers = rig.broker.publish(sizes.map(|size| rig.record("k", &"x".repeat(size))).to_vec()).await;
    for (size, answer) in sizes.into_iter().zip(answers) {
        let is_too_large = matches!(answer, Err(BrokerError::TooLarge { .. }));
        assert_eq!((answer.is_ok(), is_too_large), (size < 1_000, size > 1_000), "{size}: {answer:?}");
    }
}
