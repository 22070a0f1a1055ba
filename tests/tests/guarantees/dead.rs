//! Dead letters are found and replayed, despite kills, and in large numbers.

use std::{collections::BTreeSet, path::Path, time::Duration};

use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use redis::AsyncCommands as _;
use rustix::process::Signal;
use yadtq::{Call, Error, Status, TaskHandle, Worker};
use yadtq_tests::{ms, process::Process, servers, tasks, until};

use super::Bench;

const WAIT: Duration = Duration::from_secs(30);

/// The version before the deploy: it takes numbers.
mod before {
    #[yadtq::task]
    pub async fn price(cents: i64) -> i64 {
        cents
    }
}

/// The version after the deploy: it takes strings.
mod after {
    #[yadtq::task]
    pub async fn price(cents: String) -> String {
        cents
    }
}

/// Writes dead letters of `add` tasks whose ids are numbers, as workers do.
fn write_dead_letters(namespace: &str, count: usize) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers::kafka()).set("linger.ms", "20").set("acks", "all");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer");
    let (topic, source) = (format!("{namespace}.dead"), format!("{namespace}.default"));
    for n in 0..count {
        let (key, value) = (n.to_string(), format!(r#"{{"task-id":"{n}","task":"add","args":[{n},7]}}"#));
        let headers = [("yadtq-reason", "deliveries"), ("yadtq-error", "no"), ("yadtq-source-topic", &source)];
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, &(key, value)| headers.insert(Header { key, value: Some(value) }));
        let mut record = BaseRecord::to(&topic).key(&key).payload(&value).headers(headers);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{error}");
            producer.flush(Duration::from_secs(10)).expect("kafka takes them");
            record = back;
        }
    }
    producer.flush(WAIT).expect("kafka takes them");
}

/// Creates the topic by writing one letter, and purges the letter.
async fn make_topic(bench: &Bench) {
    let mut worker = bench.ready_worker().await;
    let wrong: TaskHandle<i64> = Call::named("add", ("one", 2)).send(&bench.client).await.expect("acknowledged");
    wrong.await.expect_err("a text is no number");
    let letters = || bench.client.admin().dead_letters();
    until("the letter", async || (letters().count().await.expect("kafka answers") == 1).then_some(())).await;
    assert_eq!(letters().purge().await.expect("purged"), 1);
    // If the worker were killed, the next one would read the record again and write a second letter.
    worker.signal(Signal::TERM);
    assert!(worker.end().await);
}

fn letters_process(bench: &Bench, command: &str) -> Process {
    Process::start(Path::new(env!("CARGO_BIN_EXE_test-letters")), &[command], &bench.env)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_found_replayed_and_its_task_succeeds() {
    let bench = Bench::new("dead").await;
    let serve = async |task: Worker| task.start().await.expect("a worker");
    let old = serve(Worker::builder().client(&bench.client).register(before::price).build().expect("built")).await;
    let handle = after::price.call("12.50".to_owned()).send(&bench.client).await.expect("acknowledged");
    let id = handle.id().clone();
    assert!(matches!(handle.await, Err(Error::TaskFailed { .. })));
    let letters = || bench.client.admin().dead_letters();
    let found = until("the letter", async || {
        let mut page =
            letters().task("price").queue("default").reason("arguments").page().await.expect("kafka answers");
        page.letters.pop()
    })
    .await;
    old.stop().await.expect("it stops");
    assert_eq!((found.id.as_ref(), found.attempts, found.deliveries), (Some(&id), 1, 0));
    let at = ms(found.at.expect("kafka knows"));
    assert!(at.abs_diff(id.created_ms().expect("ours")) < 60_000);
    assert_eq!(letters().older_than(WAIT).count().await.expect("counted"), 0);
    assert_eq!(letters().id(found.place).newer_than(WAIT).count().await.expect("counted"), 1);

    let report = letters().id(&id).replay().await.expect("replayed");
    assert_eq!((report.replayed, report.gone_on, report.refused), (1, 0, 0));
    let handle = bench.client.handle::<String>(id);
    assert_eq!(handle.status().await.expect("redis answers"), Status::Queued);
    let new = serve(Worker::builder().client(&bench.client).register(after::price).build().expect("built")).await;
    assert_eq!(handle.wait(WAIT).await.expect("it runs"), "12.50");
    new.stop().await.expect("it stops");
    assert_eq!(letters().count().await.expect("counted"), 0);
    assert_eq!(letters().replay().await.expect("nothing to do").replayed, 0);
}

/// Tasks fail while their worker stops, and after it has given its partitions: the next owner reads their records again.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_has_one_dead_letter_through_rolling_restarts() {
    const ROUNDS: usize = 4;
    let bench = Bench::new("dead-once").await;
    let mut workers = [bench.ready_worker().await, bench.ready_worker().await];
    let mut failures = Vec::new();
    for round in 0..ROUNDS {
        let calls = (0..20).map(|n| tasks::fail_slowly.call(40 * n, 1).max_retries(0));
        failures.extend(bench.client.send_many(calls).await);
        let worker = &mut workers[round % 2];
        worker.event("task_started", |_| true).await;
        worker.signal(Signal::TERM);
        assert!(worker.end().await);
        *worker = bench.ready_worker().await;
    }
    for failure in failures {
        let failed = failure.expect("acknowledged").wait(WAIT).await;
        assert!(matches!(failed, Err(Error::TaskFailed { .. })), "{failed:?}");
    }
    let admin = bench.client.admin();
    let is_done = async || (admin.queues().await.ok()?.iter().all(|queue| queue.lag == 0)).then_some(());
    until("all is committed", is_done).await;
    assert_eq!(admin.dead_letters().count().await.expect("counted"), 20 * ROUNDS as u64);
}

/// A replay is killed at any moment and repeated: every task runs, none runs twice, no letter is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replay_can_be_repeated() {
    const COUNT: usize = 3_000;
    let bench = Bench::new("dead-kill").await;
    make_topic(&bench).await;
    write_dead_letters(&bench.namespace, COUNT);
    let record = tempfile::NamedTempFile::new().expect("a file");
    let path = record.path().to_str().expect("a path");
    let mut worker = super::worker_with(&bench.env.clone().with("TEST_RECORD", path));
    worker.event("partitions_assigned", |_| true).await;
    let mut kills = 0;
    for lines in [1, 300, 900] {
        let mut replayer = letters_process(&bench, "replay");
        let is_far = async || {
            (replayer.output().len() >= lines || replayer.output().iter().any(|l| l.starts_with("done"))).then_some(())
        };
        until("the replayer gets so far", is_far).await;
        kills += usize::from(!replayer.output().iter().any(|line| line.starts_with("done")));
        replayer.kill().await;
    }
    assert!(kills > 0, "it was never in the middle");
    let mut last = letters_process(&bench, "replay");
    assert!(last.end().await);
    for n in 0..COUNT {
        let handle = bench.client.handle::<i64>(n.to_string().parse().expect("an id"));
        assert_eq!(handle.wait(WAIT).await.expect("it ran"), i64::try_from(n).expect("small") + 7);
    }
    assert_eq!(bench.client.admin().dead_letters().count().await.expect("counted"), 0);
    worker.signal(Signal::TERM);
    assert!(worker.end().await);
    let ran = std::fs::read_to_string(path).expect("the record");
    let (all, once): (Vec<_>, BTreeSet<_>) = (ran.lines().collect(), ran.lines().collect());
    assert_eq!((all.len(), once.len()), (COUNT, COUNT), "each runs once");
}

/// A replay that died between Redis and Kafka: the task is as `replay.lua` leaves it, without a record in its queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_without_a_record_is_repaired() {
    let bench = Bench::new("dead-reset").await;
    make_topic(&bench).await;
    write_dead_letters(&bench.namespace, 2);
    let ids = ["0", "1"].map(|id| id.parse::<yadtq::TaskId>().expect("an id"));
    let mut redis = bench.redis().await;
    for id in &ids {
        let fields = [
            ("status", "queued"),
            ("seq", "2"),
            ("attempt", "1"),
            ("token", "1700000000000000"),
            ("hand-on", "next:1:0"),
            ("task", "add"),
            ("queue", "default"),
        ];
        let () = redis.hset_multiple(bench.key(id), &fields).await.expect("a hash");
    }
    let _worker = bench.ready_worker().await;
    // The operator repeats the replay.
    let report = bench.client.admin().dead_letters().id(&ids[0]).replay().await.expect("replayed");
    assert_eq!(report.replayed, 1);
    assert_eq!(bench.client.handle::<i64>(ids[0].clone()).wait(WAIT).await.expect("it runs"), 7);
    // Or a worker repairs it when it reads the old record again.
    let old: TaskHandle<i64> = Call::named("add", (1, 7)).id(ids[1].clone()).send(&bench.client).await.expect("sent");
    assert_eq!(old.wait(WAIT).await.expect("it runs"), 8);
    let seq: String = redis.hget(bench.key(&ids[1]), "seq").await.expect("a number");
    assert_eq!(seq, "2", "the next record ran, not the old one");
    let report = bench.client.admin().dead_letters().replay().await.expect("nothing to run");
    assert_eq!((report.replayed, report.gone_on), (0, 1));
}

/// `TEST_LETTERS` sets their number.
#[tokio::test(flavor = "multi_thread")]
async fn many_letters_are_read_once_each_in_bounded_memory() {
    let count = std::env::var("TEST_LETTERS").map_or(100_000, |text| text.parse().expect("a number"));
    let bench = Bench::new("dead-many").await;
    make_topic(&bench).await;
    write_dead_letters(&bench.namespace, count);
    // Some letters are purged: in the middle, where Kafka cannot delete records.
    let letters = || bench.client.admin().dead_letters();
    let purged = letters().id(17).id(count - 17).purge().await.expect("purged");
    assert_eq!(purged, 2);
    let begun = std::time::Instant::now();
    let mut walker = letters_process(&bench, "walk");
    assert!(walker.end().await);
    let took = begun.elapsed();
    let said = until("its line", async || walker.output().pop()).await;
    let numbers: Vec<usize> = said.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    eprintln!("{count} letters in pages of 10,000: {took:?}, at most {} MiB", numbers[2] / 1_024);
    assert_eq!(numbers[..2], [count - 2, count - 2], "each once");
    // The memory of a few readers' prefetching, for any number of letters: 130 MiB for 100,000, 320 MiB for a million.
    assert!(numbers[2] < 400 * 1_024, "{} KiB", numbers[2]);
    assert_eq!(letters().purge().await.expect("purged"), (count - 2) as u64);
    assert_eq!(letters().count().await.expect("counted"), 0);
}
