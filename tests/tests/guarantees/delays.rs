//! Tasks that wait for their due time run, whatever dies and whatever is lost in the meantime.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use rustix::process::Signal;
use yadtq::{Call, Error, ErrorKind, Revocation, Status, TaskHandle};
use yadtq_tests::{
    hold, ms, now_ms,
    process::Process,
    servers::{self, Redis},
    tasks, until,
};

use super::Bench;

const WAIT: Duration = Duration::from_secs(60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Calls that return how late they ran: the first is due in `first_ms`, then one every `step_ms`.
pub(super) fn spread(count: u64, first_ms: u64, step_ms: u64) -> impl Iterator<Item = Call<i64>> {
    let now = now_ms();
    (0..count).map(move |n| {
        let due = now + first_ms + n * step_ms;
        tasks::punctual.call(due).eta(SystemTime::UNIX_EPOCH + Duration::from_millis(due))
    })
}

/// How late each task ran; none ran early.
pub(super) async fn lateness(handles: Vec<Result<TaskHandle<i64>, Error>>) -> Vec<i64> {
    let mut late = Vec::with_capacity(handles.len());
    for handle in handles {
        late.push(handle.expect("acknowledged").wait(WAIT).await.expect("it runs"));
    }
    assert!(late.iter().all(|&late| late >= 0), "one ran early: {late:?}");
    late
}

/// Checks that each task succeeded once, over all workers.
pub(super) fn assert_once<'a>(workers: impl IntoIterator<Item = &'a Process>, expected: usize) {
    let mut ends = HashMap::<String, usize>::new();
    for worker in workers {
        for event in worker.events("task_succeeded") {
            *ends.entry(event["task_id"].to_string()).or_default() += 1;
        }
    }
    assert!(ends.values().all(|&count| count == 1), "one was completed twice");
    assert!(ends.len() <= expected, "{} of {expected}", ends.len());
}

async fn ready(bench: &Bench) -> Process {
    let worker = bench.worker();
    worker.event("worker_connected", |_| true).await;
    worker.event("scheduler_ready", |_| true).await;
    worker
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_at_its_due_time_and_not_before() {
    let bench = Bench::new("eta").await;
    let worker = ready(&bench).await;
    let past = tasks::nap.call(1).eta(SystemTime::UNIX_EPOCH).send(&bench.client).await.expect("acknowledged");
    let handles = bench.client.send_many(spread(50, 500, 20)).await;
    let first = handles[0].as_ref().expect("acknowledged");
    assert_eq!(first.status().await.expect("a status"), Status::Scheduled);
    let info = bench.client.admin().task(first.id()).await.expect("redis answers").expect("a record");
    assert!(info.eta.map(ms) > Some(now_ms()), "{info:?}");
    assert_eq!(past.wait(WAIT).await.expect("what is past runs at once"), 1);
    let late = lateness(handles).await;
    println!("late by at most {:?} ms", late.iter().max());
    assert_once([&worker], 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_due_far_ahead_are_listed_run_now_and_revoked() {
    let bench = Bench::new("far").await;
    let worker = ready(&bench).await;
    let admin = bench.client.admin();
    let soon = tasks::nap.call(1).countdown(YEAR).send(&bench.client).await.expect("acknowledged");
    let late = tasks::nap.call(2).countdown(1_000 * YEAR).queue("default").send(&bench.client).await;
    let late = late.expect("no time is too long");
    let listed = admin.scheduled(1).await.expect("kafka answers");
    assert_eq!((listed.total, listed.tasks[0].id.as_str()), (2, soon.id().as_str()));
    assert_eq!((listed.tasks[0].task.as_str(), listed.tasks[0].queue.as_str()), ("nap", "default"));
    assert!(admin.run_now(late.id()).await.expect("kafka answers"));
    assert_eq!(late.wait(WAIT).await.expect("it runs now"), 2);
    assert_eq!(soon.revoke().await.expect("an answer"), Revocation::Revoked);
    assert!(matches!(soon.wait(WAIT).await, Err(Error::Revoked { .. })));
    assert_eq!(admin.scheduled(9).await.expect("kafka answers").total, 0);
    assert_eq!(worker.events("task_started").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_tasks_survive_a_redis_that_loses_everything() {
    let redis = Redis::start(&[]);
    let bench = Bench::on("flush", &redis.url()).await;
    let worker = ready(&bench).await;
    let kept = tasks::nap.call(1).countdown(Duration::from_secs(4)).send(&bench.client).await.expect("acknowledged");
    let ended = tasks::nap.call(2).countdown(Duration::from_secs(3)).send(&bench.client).await.expect("acknowledged");
    assert_eq!(ended.revoke().await.expect("an answer"), Revocation::Revoked);
    let () = redis::cmd("FLUSHALL").query_async(&mut bench.redis().await).await.expect("flushed");
    assert_eq!(kept.wait(WAIT).await.expect("Kafka has it"), 1);
    let started = worker.events("task_started");
    assert!(started.iter().all(|event| event["task_id"] != *ended.id().as_str()), "it was taken out of Kafka too");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_fires_the_tasks_of_a_killed_one() {
    let bench = Bench::new("firekill").await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(ready(&bench).await);
    }
    until("each has a share", async || {
        let share = |worker: &Process| {
            let last = worker.events("scheduler_assigned").last().cloned();
            last.is_some_and(|event| event["partitions"] != "[]")
        };
        workers.iter().all(share).then_some(())
    })
    .await;
    let handles = bench.client.send_many(spread(4_000, 1_000, 4)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    workers[0].kill().await;
    let late = lateness(handles).await;
    let worst = *late.iter().max().expect("some");
    println!("after the kill, the latest of 4,000 ran {worst} ms late");
    hold("the latest, in ms", worst, 8_000, 30_000);
    assert_once(&workers, 4_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_worker_hands_its_delayed_tasks_over_at_once() {
    let bench = Bench::new("handover").await;
    let mut first = ready(&bench).await;
    let second = ready(&bench).await;
    second.event("scheduler_assigned", |_| true).await;
    let handles = bench.client.send_many(spread(2_000, 500, 4)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    first.signal(Signal::TERM);
    let late = lateness(handles).await;
    assert!(first.end().await, "it ends well");
    let worst = *late.iter().max().expect("some");
    println!("during the hand-over, the latest of 2,000 ran {worst} ms late");
    hold("the latest, in ms", worst, 2_000, 10_000);
    assert_once([&first, &second], 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delayed_topic_may_get_more_partitions() {
    let bench = Bench::new("repartition").await;
    let worker = ready(&bench).await;
    let before = bench.client.send_many(spread(500, 6_000, 4)).await;
    let mut config = ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> =
        config.set("bootstrap.servers", servers::kafka()).create().expect("an admin client");
    let topic = format!("{}.delayed", bench.namespace);
    let more = NewPartitions::new(&topic, 20);
    admin.create_partitions([&more], &AdminOptions::new()).await.expect("kafka answers")[0].as_ref().expect("raised");
    let after = bench.client.send_many(spread(500, 6_000, 4)).await;
    let revoked = after[3].as_ref().expect("acknowledged").revoke().await.expect("an answer");
    assert_eq!(revoked, Revocation::Revoked);
    let mut after = after;
    after.remove(3).expect("acknowledged");
    // A consumer learns of new partitions when it refreshes its metadata, every 30 s.
    let begun = Instant::now();
    lateness(before).await;
    lateness(after).await;
    println!("all had run after {:?}", begun.elapsed());
    assert_once([&worker], 999);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_its_queue_does_not_take_fails_and_blocks_nothing() {
    let bench = Bench::new("refused").await;
    let topic = format!("{}.tiny", bench.namespace);
    let mut config = ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> =
        config.set("bootstrap.servers", servers::kafka()).create().expect("an admin client");
    let tiny = NewTopic::new(&topic, 3, TopicReplication::Fixed(1)).set("max.message.bytes", "100");
    admin.create_topics([&tiny], &AdminOptions::new()).await.expect("kafka answers")[0].as_ref().expect("created");
    let worker = ready(&bench).await;
    let refused = (0..100).map(|_| tasks::nap.call(1).queue("tiny").countdown(Duration::from_millis(100)));
    let refused = bench.client.send_many(refused).await;
    lateness(bench.client.send_many(spread(100, 500, 10)).await).await;
    for handle in refused {
        let failed = handle.expect("the delayed topic takes it").wait(Duration::from_secs(30)).await;
        let is_refused = matches!(&failed, Err(Error::TaskFailed { kind: ErrorKind::Unpublishable, .. }));
        assert!(is_refused, "{failed:?}");
    }
    let admin = bench.client.admin();
    let letters = || admin.dead_letters().queue("tiny").reason("unpublishable");
    until("each has a letter", async || (letters().count().await.ok()? == 100).then_some(())).await;
    until("nothing waits", async || (admin.scheduled(1).await.ok()?.total == 0).then_some(())).await;
    assert!(worker.events("tasks_not_fired").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_times_are_refused_by_name() {
    let client = yadtq::Client::embedded();
    let refused = |sent: Result<TaskHandle<u64>, Error>| match sent {
        Err(Error::Config { what, problem }) => {
            println!("{what}: {problem}");
            what
        }
        other => panic!("{other:?}"),
    };
    let nap = || tasks::nap.call(1);
    assert_eq!(refused(nap().countdown(Duration::ZERO).send(&client).await), "countdown");
    assert_eq!(refused(nap().countdown(Duration::MAX).send(&client).await), "countdown");
    let year_9999 = SystemTime::UNIX_EPOCH + Duration::from_secs(253_370_764_800);
    assert_eq!(refused(nap().eta(year_9999).send(&client).await), "eta");
    let both = nap().countdown(Duration::from_secs(1)).eta(SystemTime::UNIX_EPOCH);
    assert_eq!(refused(both.send(&client).await), "eta");
    let dead_on_arrival = nap().countdown(Duration::from_secs(9)).expires_in(Duration::from_secs(9));
    assert_eq!(refused(dead_on_arrival.send(&client).await), "expires_in");
    assert_eq!(refused(nap().max_retries(u32::MAX).send(&client).await), "max_retries");
    assert_eq!(refused(nap().retry(yadtq::Retry::new().base(Duration::ZERO)).send(&client).await), "retry_base");
}
