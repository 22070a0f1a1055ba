//! Records that are not valid tasks become dead letters with a reason, and do not disturb other tasks.

use std::{collections::HashMap, time::Duration};

use rdkafka::{
    ClientConfig, Message as _, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    producer::{FutureProducer, FutureRecord},
};
use yadtq::Error;
use yadtq_tests::{servers, tasks};

use super::{Bench, worker_with};

const BIG: usize = 10 * 1_024 * 1_024;

/// Bad records, each with the reason of its dead letter.
fn bad_records() -> Vec<(&'static str, Vec<u8>, &'static str, &'static str)> {
    let long_id = "x".repeat(129);
    let deep = format!(r#"{{"task-id":"deep","task":"echo","args":[{}1{}]}}"#, "[".repeat(1_000), "]".repeat(1_000));
    vec![
        ("broken json", b"{\"task-id\":".to_vec(), "unreadable", "EOF"),
        ("not json", b"hello".to_vec(), "unreadable", "not a task"),
        ("empty", Vec::new(), "unreadable", "no value"),
        ("no id", br#"{"task":"add","args":[1,2]}"#.to_vec(), "unreadable", "missing field `task-id`"),
        ("no name", br#"{"task-id":"a","args":[1,2]}"#.to_vec(), "unreadable", "missing field `task`"),
        ("no args", br#"{"task-id":"a","task":"add"}"#.to_vec(), "unreadable", "missing field `args`"),
        ("wrong type of id", br#"{"task-id":7,"task":"add","args":[1,2]}"#.to_vec(), "unreadable", "invalid type"),
        (
            "wrong type of args",
            br#"{"task-id":"a","task":"add","args":"1"}"#.to_vec(),
            "unreadable",
            "must be an array",
        ),
        ("empty id", br#"{"task-id":"","task":"add","args":[]}"#.to_vec(), "unreadable", "1 to 128 bytes"),
        (
            "long id",
            format!(r#"{{"task-id":"{long_id}","task":"add","args":[]}}"#).into_bytes(),
            "unreadable",
            "this one has 129",
        ),
        ("not utf-8", b"{\"task-id\":\"\xff\xfe\",\"task\":\"add\",\"args\":[]}".to_vec(), "unreadable", "not UTF-8"),
        ("ten megabytes", big(), "unreadable", "more than this worker's limit"),
        (
            "wrong argument",
            br#"{"task-id":"arg","task":"add","args":["s3cr3t",2]}"#.to_vec(),
            "arguments",
            "argument `a`: invalid type",
        ),
        ("1e999", br#"{"task-id":"huge","task":"echo","args":[1e999]}"#.to_vec(), "arguments", "number out of range"),
        ("deep nesting", deep.into_bytes(), "arguments", "recursion limit"),
        (
            "extra argument",
            br#"{"task-id":"extra","task":"add","args":[1,2,3]}"#.to_vec(),
            "arguments",
            "3 arguments for 2 parameters",
        ),
        (
            "missing argument",
            br#"{"task-id":"few","task":"add","args":[1]}"#.to_vec(),
            "arguments",
            "argument `b` is missing",
        ),
        (
            "unknown parameter",
            br#"{"task-id":"param","task":"add","args":{"a":1,"c":2}}"#.to_vec(),
            "arguments",
            "no parameter is named `c`",
        ),
        (
            "unknown task",
            br#"{"task-id":"who","task":"nobody-knows","args":[]}"#.to_vec(),
            "unknown-task",
            "nobody-knows",
        ),
        (
            "names that would forge lines of a log",
            br#"{"task-id":"a\n2027 ERROR b","task":"x\u001b[2J\r\ny","args":[]}"#.to_vec(),
            "unknown-task",
            r"a task named `x\u{1b}[2J\r\ny`",
        ),
    ]
}

fn big() -> Vec<u8> {
    let mut record = br#"{"task-id":"big","task":"echo","args":[""#.to_vec();
    record.resize(BIG, b'x');
    record.extend_from_slice(b"\"]}");
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_become_dead_letters_and_disturb_no_task() {
    let bench = Bench::new("bad").await;
    let topic = format!("{}.default", bench.namespace);
    let admin: AdminClient<DefaultClientContext> = config().create().expect("an admin client");
    let limit = (2 * BIG).to_string();
    let new =
        NewTopic::new(&topic, 3, TopicReplication::Fixed(1)).set("max.message.bytes", &limit).set("retention.ms", "-1");
    admin.create_topics([&new], &AdminOptions::new()).await.expect("kafka answers")[0].as_ref().expect("created");

    let producer: FutureProducer = config().set("message.max.bytes", &limit).create().expect("a producer");
    let bad = bad_records();
    for (name, record, ..) in &bad {
        let record = FutureRecord::to(&topic).key(*name).payload(record);
        producer.send(record, Duration::from_secs(30)).await.unwrap_or_else(|(e, _)| panic!("{name}: {e}"));
    }
    let neighbours = bench.client.send_many((0..100).map(|i| tasks::add.call(i, i))).await;

    let mut worker = worker_with(&bench.env.clone().with("TEST_UNKNOWN_MS", "0"));
    for (i, handle) in (0..).zip(neighbours) {
        let handle = handle.expect("acknowledged");
        assert_eq!(handle.wait(Duration::from_secs(60)).await.expect("a neighbour completes"), i + i);
    }
    let letters = dead_letters(&bench.namespace, bad.len()).await;
    for (name, record, reason, error) in &bad {
        let key = letters.iter().find(|letter| letter.payload == *record);
        let letter = key.unwrap_or_else(|| panic!("{name}: its bytes are among the dead letters"));
        assert_eq!(letter.headers["yadtq-reason"], *reason, "{name}");
        assert!(letter.headers["yadtq-error"].contains(error), "{name}: {}", letter.headers["yadtq-error"]);
        assert_eq!(letter.headers["yadtq-source-topic"], topic, "{name}");
        assert!(letter.headers["yadtq-source-offset"].parse::<i64>().is_ok(), "{name}");
    }
    let failed = bench.client.handle::<i64>("extra".parse().expect("an id")).wait(Duration::from_secs(10)).await;
    match failed {
        Err(Error::TaskFailed { kind, message, .. }) => {
            assert_eq!((kind.as_str(), message.as_str()), ("arguments", "3 arguments for 2 parameters"));
        }
        other => panic!("{other:?}"),
    }
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.end().await, "the worker lives to the end");
    let event = worker.event("task_dead_lettered", |event| event["task_id"] == "arg").await;
    assert_eq!((&event["reason"], &event["error"]), (&"arguments".into(), &"argument `a`".into()));
    assert!(!worker.output().join("\n").contains("s3cr3t"), "arguments are not logged");
    for event in worker.output().iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
        for field in ["task_id", "task", "error", "message"] {
            let text = event[field].as_str().unwrap_or_default();
            assert!(!text.contains(char::is_control), "it would forge a line of a log: {event}");
        }
    }
}

struct Letter {
    payload: Vec<u8>,
    headers: HashMap<String, String>,
}

async fn dead_letters(namespace: &str, count: usize) -> Vec<Letter> {
    let topic = format!("{namespace}.dead");
    let read = move || {
        let consumer: BaseConsumer = config()
            .set("group.id", "unused")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()
            .expect("a consumer");
        let mut letters = Vec::new();
        let deadline = std::time::Instant::now() + yadtq_tests::TEST_TIMEOUT;
        let partitions = loop {
            let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(10)).expect("kafka answers");
            let partitions = metadata.topics()[0].partitions().len();
            if partitions > 0 {
                break partitions;
            }
            assert!(std::time::Instant::now() < deadline, "the dead-letter topic exists");
        };
        let mut all = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions).expect("few") {
            all.add_partition_offset(&topic, partition, rdkafka::Offset::Beginning).expect("an offset");
        }
        consumer.assign(&all).expect("assigned");
        while letters.len() < count {
            assert!(std::time::Instant::now() < deadline, "{} of {count} dead letters", letters.len());
            let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
            let message = message.expect("a record");
            let headers = message.headers().expect("headers").iter();
            letters.push(Letter {
                payload: message.payload().unwrap_or_default().to_vec(),
                headers: headers
                    .map(|h| (h.key.to_owned(), String::from_utf8_lossy(h.value.unwrap_or_default()).into_owned()))
                    .collect(),
            });
        }
        letters
    };
    tokio::task::spawn_blocking(read).await.expect("read")
}

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers::kafka());
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_learns_every_kind_of_failure() {
    let bench = Bench::new("fail").await;
    let _worker = bench.ready_worker().await;
    let wait = Duration::from_secs(30);
    let failure = |result: Result<(), Error>| match result {
        Err(Error::TaskFailed { kind, message, attempts: 1, .. }) => (kind.to_string(), message),
        other => panic!("{other:?}"),
    };
    let client = &bench.client;
    let fail = tasks::fail.call("no luck".into()).send(client).await.expect("acknowledged").wait(wait).await;
    assert_eq!(failure(fail), ("error".into(), "no luck".into()));
    let panic = tasks::panic.call("oh".into()).send(client).await.expect("acknowledged").wait(wait).await;
    assert_eq!(failure(panic), ("panic".into(), "oh".into()));
    let late = tasks::dawdle.call().send(client).await.expect("acknowledged").wait(wait).await;
    assert_eq!(failure(late), ("timeout".into(), "not done after 200ms".into()));
    let late = tasks::doze
        .call(700)
        .timeout(Duration::from_millis(300))
        .max_retries(0)
        .send(client)
        .await
        .expect("acknowledged");
    let late = failure(late.wait(wait).await.map(|_| ()));
    assert!(late.0 == "timeout", "a blocking task that overruns: {late:?}");
    let state = tasks::stateless.call().send(client).await.expect("acknowledged").wait(wait).await.map(|_| ());
    assert!(failure(state).1.contains("no state of type u8"));
    let nested = tasks::nested.call(50).send(client).await.expect("acknowledged").wait(wait).await;
    assert_eq!(nested.expect("a task can await another"), 50);
}
