//! Controls of operators take effect within seconds, and stay in effect whatever dies.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rdkafka::producer::{FutureProducer, FutureRecord};
use yadtq::{Error, ErrorKind, Priority, Status, TaskHandle, admin::Disabled};
use yadtq_tests::{
    now_ms,
    process::Process,
    servers::{self, Redis},
    tasks, until,
};

use super::{Bench, worker_with};

const WAIT: Duration = Duration::from_secs(90);
/// Longest time until workers apply a control.
const CONTROL_LIMIT: Duration = Duration::from_secs(10);

/// Starts a worker for the queues `default` and `mail`, and waits until it takes tasks.
async fn ready(bench: &Bench) -> Process {
    let worker = worker_with(&bench.env.clone().with("TEST_QUEUES", "default,mail"));
    worker.event("worker_connected", |_| true).await;
    worker.event("orders_loaded", |_| true).await;
    worker
}

/// Sends naps to the queue `mail`.
async fn send(bench: &Bench, count: u64, priority: Priority) -> Vec<TaskHandle<u64>> {
    let calls = (0..count).map(|_| tasks::nap.call(0).queue("mail").priority(priority));
    let handles = bench.client.send_many(calls).await;
    handles.into_iter().map(|handle| handle.expect("acknowledged")).collect()
}

/// How often each task of the queue was started, over all workers.
fn starts<'a>(workers: impl IntoIterator<Item = &'a Process>) -> HashMap<String, usize> {
    let mut starts = HashMap::new();
    for event in workers.into_iter().flat_map(|worker| worker.events("task_started")) {
        if event["queue"] == "mail" {
            *starts.entry(event["task_id"].as_str().expect("an id").to_owned()).or_default() += 1;
        }
    }
    starts
}

/// Checks that `count` tasks of the queue were started, each once. Log lines arrive a little later than results.
async fn assert_once(workers: &[Process], count: usize) {
    let starts = until("all starts are in the logs", async || {
        let starts = starts(workers);
        (starts.len() >= count).then_some(starts)
    })
    .await;
    assert_eq!(starts.len(), count);
    assert!(starts.values().all(|&count| count == 1), "none was started twice");
}

/// Waits until the workers have applied a control, and checks how long that took.
async fn applied(begun: Instant, workers: &[Process], control: &str) {
    for worker in workers {
        worker.event("order_taken", |event| event["order"].as_str().is_some_and(|taken| taken.contains(control))).await;
    }
    let took = begun.elapsed();
    println!("{control}: applied after {took:?}");
    assert!(took < CONTROL_LIMIT, "{control}: applied after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_stays_paused_whatever_dies() {
    let redis = Redis::start(&[]);
    let bench = Bench::on("pause", &redis.url()).await;
    let admin = bench.client.admin();
    let mut workers = vec![ready(&bench).await, ready(&bench).await];
    let begun = Instant::now();
    admin.pause("mail").await.expect("kafka answers");
    applied(begun, &workers, r#""pause""#).await;

    let handles = send(&bench, 500, Priority::Normal).await;
    tasks::nap.call(0).send(&bench.client).await.expect("acknowledged").wait(WAIT).await.expect("others run");
    for worker in &mut workers {
        worker.kill().await;
    }
    let () = redis::cmd("FLUSHALL").query_async(&mut bench.redis().await).await.expect("flushed");
    let late = [ready(&bench).await, ready(&bench).await];
    for worker in &late {
        worker.event("orders_loaded", |event| event["paused"] == r#"["mail"]"#).await;
    }
    until("all are read again", async || {
        let read = late.iter().flat_map(|worker| worker.events("task_received"));
        (read.filter(|event| event["queue"] == "mail").count() >= handles.len()).then_some(())
    })
    .await;
    tasks::nap.call(0).send(&bench.client).await.expect("acknowledged").wait(WAIT).await.expect("others run");
    workers.extend(late);
    assert_eq!(starts(&workers).len(), 0, "the queue is paused");
    assert_eq!(admin.controls().await.expect("kafka answers").paused[0].queue, "mail");

    let begun = Instant::now();
    admin.resume("mail").await.expect("kafka answers");
    applied(begun, &workers[2..], r#""resume""#).await;
    for handle in &handles {
        handle.wait(WAIT).await.expect("it runs");
    }
    assert_once(&workers, handles.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claimed_tasks_wait_too_when_their_queue_is_paused() {
    let bench = Bench::new("pauserun").await;
    let env = bench.env.clone().with("TEST_QUEUES", "default,mail").with("TEST_SLOTS", "2");
    let workers = [worker_with(&env)];
    workers[0].event("orders_loaded", |_| true).await;
    let calls = (0..100).map(|_| tasks::nap.call(300).queue("mail"));
    let handles = bench.client.send_many(calls).await;
    let handles: Vec<_> = handles.into_iter().map(|handle| handle.expect("acknowledged")).collect();
    workers[0].event("task_succeeded", |_| true).await;
    let begun = Instant::now();
    bench.client.admin().pause("mail").await.expect("kafka answers");
    applied(begun, &workers, r#""pause""#).await;
    let before = starts(&workers).len();
    until("what runs comes to its end", async || (workers[0].events("task_succeeded").len() >= before).then_some(()))
        .await;
    tasks::nap.call(0).send(&bench.client).await.expect("acknowledged").wait(WAIT).await.expect("others run");
    assert_eq!(starts(&workers).len(), before, "nothing started after the pause was applied");
    assert!(before < 50, "there was something left: {before}");
    bench.client.admin().resume("mail").await.expect("kafka answers");
    for handle in &handles {
        handle.wait(WAIT).await.expect("it runs");
    }
    assert_once(&workers, handles.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_revokes_waiting_tasks_only() {
    let bench = Bench::new("purge").await;
    let admin = bench.client.admin();
    let mut workers = vec![ready(&bench).await];
    let running = tasks::nap.call(15_000).queue("mail").send(&bench.client).await.expect("acknowledged");
    workers[0].event("task_started", |event| event["queue"] == "mail").await;
    let begun = Instant::now();
    admin.pause("mail").await.expect("kafka answers");
    applied(begun, &workers, r#""pause""#).await;
    let mut waiting = send(&bench, 4_000, Priority::Normal).await;
    waiting.extend(send(&bench, 500, Priority::High).await);
    waiting.extend(send(&bench, 500, Priority::Low).await);
    let begun = Instant::now();
    let purged = admin.purge("mail").await.expect("kafka answers");
    assert!((5_000..=5_001).contains(&purged), "{purged}");
    let after = send(&bench, 200, Priority::Normal).await;
    for handle in &waiting {
        let ended = handle.wait(WAIT).await;
        assert!(matches!(ended, Err(Error::Purged { .. })), "{ended:?}");
    }
    println!("5,000 callers of purged tasks were notified after {:?}", begun.elapsed());
    assert_eq!(starts(&workers).len(), 1, "none of them ran, the queue being paused");
    assert_eq!(after[0].status().await.expect("a status"), Status::Queued);
    admin.resume("mail").await.expect("kafka answers");
    for handle in &after {
        handle.wait(WAIT).await.expect("it was sent later");
    }
    assert_eq!(running.wait(WAIT).await.expect("it ran"), 15_000);
    // The mark stays for workers that start later.
    workers[0].kill().await;
    workers.push(ready(&bench).await);
    for handle in send(&bench, 100, Priority::Low).await {
        handle.wait(WAIT).await.expect("it runs");
    }
    assert_once(&workers, 301).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_stays_in_kafka_and_its_worker_in_the_group() {
    const BACKLOG: usize = 20_000;
    let bench = Bench::new("pausemany").await;
    bench.client.admin().pause("mail").await.expect("kafka answers");
    let handles = send(&bench, BACKLOG as u64, Priority::Normal).await;
    let workers = [ready(&bench).await];
    let read = || workers[0].events("task_received").iter().filter(|event| event["queue"] == "mail").count();
    until("as many as may be are in hand", async || (read() >= 4_096).then_some(())).await;
    // Longer than a group waits for a silent member.
    let long = tasks::nap.call(8_000).send(&bench.client).await.expect("acknowledged");
    long.wait(WAIT).await.expect("others run");
    println!("{} of {BACKLOG} were read while the queue was paused", read());
    assert!(read() < 8_000, "{}", read());
    bench.client.admin().resume("mail").await.expect("kafka answers");
    for handle in &handles {
        handle.wait(WAIT).await.expect("it runs");
    }
    assert_once(&workers, BACKLOG).await;
    assert!(workers[0].events("partitions_revoked").is_empty(), "it stayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_purge_mark_revokes_nothing_in_a_recreated_topic() {
    let bench = Bench::new("oldmark").await;
    let admin = bench.client.admin();
    admin.resume("mail").await.expect("kafka answers");
    let mut config = rdkafka::ClientConfig::new();
    let producer: FutureProducer = config.set("bootstrap.servers", servers::kafka()).create().expect("a producer");
    let topic = format!("{}.control", bench.namespace);
    // A mark as of a topic that had a million records when it was purged.
    let mark = async |queue: &str, at: u64| {
        let below: Vec<_> = (0..12).map(|partition| (partition, 1_000_000)).collect();
        let value = serde_json::json!({"order": "purge", "queue": queue, "at": at, "below": {"normal": below}});
        let (key, value) = (format!("purge/{queue}"), value.to_string());
        let record = FutureRecord::to(&topic).partition(0).key(&key).payload(&value);
        producer.send(record, WAIT).await.expect("acknowledged");
    };
    mark("mail", now_ms() - 60_000).await;
    mark("default", now_ms()).await;
    let workers = [ready(&bench).await];
    let purged = tasks::nap.call(1).send(&bench.client).await.expect("acknowledged");
    assert!(matches!(purged.wait(WAIT).await, Err(Error::Purged { .. })), "such a mark is understood");
    for handle in send(&bench, 100, Priority::Normal).await {
        handle.wait(WAIT).await.expect("it is younger than the mark");
    }
    assert_once(&workers, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_continues_after_the_death_of_a_worker() {
    let bench = Bench::new("purgekill").await;
    let admin = bench.client.admin();
    let handles = send(&bench, 5_000, Priority::Normal).await;
    assert_eq!(admin.purge("mail").await.expect("kafka answers"), 5_000);
    let mut first = ready(&bench).await;
    first.event("task_revoked", |_| true).await;
    first.kill().await;
    let revoked = first.events("task_revoked").len();
    let second = ready(&bench).await;
    for handle in &handles {
        assert!(matches!(handle.wait(WAIT).await, Err(Error::Purged { .. })));
    }
    println!("the first worker ended {revoked} of 5,000 before it was killed");
    assert_eq!(starts([&first, &second]).len(), 0);
    send(&bench, 1, Priority::Normal).await[0].wait(WAIT).await.expect("it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_disabled_name_wait_and_block_nothing() {
    let bench = Bench::new("disable").await;
    let admin = bench.client.admin();
    let mut workers = vec![ready(&bench).await];
    let begun = Instant::now();
    admin.disable_task("nap", Disabled::Wait).await.expect("kafka answers");
    applied(begun, &workers, r#""disable""#).await;
    let naps = send(&bench, 200, Priority::Normal).await;
    let echo = tasks::doze.call(1).queue("mail").send(&bench.client).await.expect("acknowledged");
    echo.wait(WAIT).await.expect("others run");
    until("they wait for their time", async || {
        (naps[199].status().await.expect("a status") == Status::Scheduled).then_some(())
    })
    .await;
    workers[0].kill().await;
    workers.push(ready(&bench).await);
    // Their checks are due, and they wait again.
    workers[1].event("task_parked", |event| event["queue"] == "mail").await;
    let starts_of_naps = |workers: &[Process]| {
        let started = workers.iter().flat_map(|worker| worker.events("task_started"));
        started.filter(|event| event["task"] == "nap").count()
    };
    assert_eq!(starts_of_naps(&workers), 0);
    let begun = Instant::now();
    admin.enable_task("nap").await.expect("kafka answers");
    for nap in &naps {
        nap.wait(WAIT).await.expect("it runs");
    }
    println!("all had run {:?} after the name was enabled", begun.elapsed());
    until("all starts are in the logs", async || (starts_of_naps(&workers) == naps.len()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn controls_apply_to_tasks_with_an_ordering_key() {
    let bench = Bench::new("ordered").await;
    let admin = bench.client.admin();
    let send = async |count: u64| {
        let calls = (0..count).map(|n| tasks::nap.call(0).queue("mail").ordering_key(format!("key-{}", n % 3)));
        let handles = bench.client.send_many(calls).await;
        handles.into_iter().map(|handle| handle.expect("acknowledged")).collect::<Vec<_>>()
    };
    admin.disable_task("nap", Disabled::Wait).await.expect("kafka answers");
    let handles = send(300).await;
    let workers = [ready(&bench).await];
    workers[0].event("task_parked", |_| true).await;
    tasks::doze
        .call(1)
        .queue("mail")
        .send(&bench.client)
        .await
        .expect("acknowledged")
        .wait(WAIT)
        .await
        .expect("it runs");
    let begun = Instant::now();
    assert!(admin.purge("mail").await.expect("kafka answers") >= 300);
    for handle in &handles {
        assert!(matches!(handle.wait(WAIT).await, Err(Error::Purged { .. })));
    }
    println!("300 tasks of 3 keys were ended after {:?}", begun.elapsed());
    let begun = Instant::now();
    let handles = send(30).await;
    admin.enable_task("nap").await.expect("kafka answers");
    for handle in &handles {
        handle.wait(WAIT).await.expect("it runs");
    }
    println!("30 tasks of 3 keys had run {:?} after their name was enabled", begun.elapsed());
    until("all starts are in the logs", async || {
        let naps = workers[0].events("task_started").into_iter().filter(|event| event["task"] == "nap").count();
        (naps == 30).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_disabled_name_may_become_dead_letters_instead() {
    let bench = Bench::new("disabledead").await;
    let admin = bench.client.admin();
    let workers = [ready(&bench).await];
    let begun = Instant::now();
    admin.disable_task("nap", Disabled::DeadLetter).await.expect("kafka answers");
    applied(begun, &workers, r#""disable""#).await;
    let naps = send(&bench, 20, Priority::Normal).await;
    for nap in &naps {
        let ended = nap.wait(WAIT).await;
        assert!(matches!(ended, Err(Error::TaskFailed { kind: ErrorKind::Disabled, .. })), "{ended:?}");
    }
    until("all are dead letters", async || {
        let count = admin.dead_letters().reason("disabled").count().await.expect("kafka answers");
        (count == 20).then_some(())
    })
    .await;
    let begun = Instant::now();
    admin.enable_task("nap").await.expect("kafka answers");
    applied(begun, &workers, r#""enable""#).await;
    let report = admin.dead_letters().reason("disabled").replay().await.expect("kafka answers");
    assert_eq!(report.replayed, 20);
    until("all run", async || (starts(&workers).len() == 20).then_some(())).await;
}
