//! A million delayed tasks: their cost for a worker, how soon it is ready, and how punctual it is with them. The test is
//! alone in its binary, so that no other test slows it down.

use std::{path::Path, time::Duration};

use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use yadtq::{Client, TaskId};
use yadtq_tests::{
    namespace, now_ms,
    process::{Env, Process},
    servers, tasks,
};

const TASKS: u64 = 1_000_000;
const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// Largest memory that a million delayed tasks may cost a worker, in kB.
const COST_KB: u64 = 100 * 1_024;

async fn start(env: &Env) -> Process {
    let worker = Process::start(Path::new(env!("CARGO_BIN_EXE_test-worker")), &[], env);
    worker.event("worker_connected", |_| true).await;
    worker.event("partitions_assigned", |_| true).await;
    worker.event("scheduler_ready", |_| true).await;
    worker
}

/// Resident memory of a process, in kB.
fn resident(worker: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

/// Sends as a producer without this library would: Redis has nothing about these tasks.
fn fill(topic: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers::kafka()).set("partitioner", "murmur2_random").set("acks", "all");
    config.set("linger.ms", "20").set("queue.buffering.max.messages", "200000");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer");
    let first = now_ms() + DAY_MS / 24;
    for n in 0..TASKS {
        let id = TaskId::new();
        let eta = first + n * (DAY_MS / TASKS);
        let record = format!(
            r#"{{"task-id":"{id}","task":"remind","args":["customer {n}","as usual"],"eta":{eta},"queue":"default"}}"#
        );
        let key = format!("{id}/1");
        let mut next = BaseRecord::to(topic).key(&key).payload(&record);
        while let Err((_, back)) = producer.send(next) {
            next = back;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    producer.flush(Duration::from_secs(60)).expect("kafka has them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_delayed_tasks_cost_little_and_delay_no_other_task() {
    let namespace = namespace("million");
    let env = Env::new(&servers::kafka(), &servers::redis(), &namespace);
    let builder = Client::builder().kafka(servers::kafka()).redis(servers::redis()).namespace(&namespace);
    let client = builder.build().await.expect("a client");
    let mut first = start(&env).await;
    let warm = client.send_many((0..2_000).map(|_| tasks::nap.call(1))).await;
    for handle in warm {
        handle.expect("acknowledged").await.expect("it runs");
    }
    let idle = resident(&first);

    let topic = format!("{namespace}.delayed");
    tokio::task::spawn_blocking(move || fill(&topic)).await.expect("filled");
    let punctual = punctuality(&client).await;
    let cost = resident(&first).saturating_sub(idle);
    println!("a million delayed tasks cost {} MB above {} MB", cost / 1_024, idle / 1_024);
    assert!(cost < COST_KB, "{cost} kB");
    println!("together with them: {punctual}");

    first.kill().await;
    let begun = std::time::Instant::now();
    let second = start(&env).await;
    let ready = &second.events("scheduler_ready")[0];
    println!("a new worker was ready after {:?}: {ready}", begun.elapsed());
    assert!(ready["records"].as_u64() >= Some(TASKS), "it has read them all: {ready}");
    let reports = second.events("scheduler_loading").len();
    println!("and reported its progress {reports} times; it has {} MB", resident(&second) / 1_024);
    assert!(resident(&second) < idle + COST_KB);
    let punctual = punctuality(&client).await;
    println!("after that: {punctual}");
    let begun = std::time::Instant::now();
    let waiting = client.admin().scheduled(10).await.expect("kafka answers");
    println!("listed {} in {:?}", waiting.total, begun.elapsed());
    assert_eq!((waiting.total, waiting.tasks.len()), (TASKS, 10));
}

/// How late tasks start if 1,000 of them are due per second, measured in the function's first line.
async fn punctuality(client: &Client) -> String {
    let first = now_ms() + 3_000;
    let at = |ms: u64| std::time::UNIX_EPOCH + Duration::from_millis(ms);
    let calls = (0..10_000).map(|n| tasks::punctual.call(first + n).eta(at(first + n)));
    let mut late = Vec::new();
    for handle in client.send_many(calls).await {
        late.push(handle.expect("acknowledged").wait(Duration::from_secs(60)).await.expect("it runs"));
    }
    late.sort_unstable();
    assert!(late[0] >= 0, "none runs early: {}", late[0]);
    let at = |percent: usize| late[(late.len() - 1) * percent / 100];
    format!("10,000 tasks at 1,000/s are late by p50 {} ms, p99 {} ms, at most {} ms", at(50), at(99), at(100))
}
