//! After a failed attempt the next one follows, wherever the worker dies in between.

use std::time::Duration;

use yadtq::{Call, Client, Error, ErrorKind, Retry, Status, TaskHandle, admin::TaskInfo};
use yadtq_tests::{
    namespace,
    process::{Env, Process},
    servers::{self, Kafka, Redis},
    tasks, until,
};

use super::{Bench, worker_with};

const WAIT: Duration = Duration::from_secs(60);

async fn info<T>(bench: &Bench, handle: &TaskHandle<T>) -> TaskInfo {
    bench.client.admin().task(handle.id()).await.expect("redis answers").expect("a record")
}

fn failed<T: std::fmt::Debug>(result: Result<T, Error>) -> (ErrorKind, String, u32) {
    match result {
        Err(Error::TaskFailed { kind, message, attempts, .. }) => (kind, message, attempts),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_follow_until_one_succeeds() {
    let bench = Bench::new("retry").await;
    let worker = bench.ready_worker().await;
    let handle = tasks::flaky.call(2).send(&bench.client).await.expect("acknowledged");
    let (attempt, before) = handle.wait(WAIT).await.expect("the third attempt succeeds");
    assert_eq!((attempt, before.as_str()), (3, "attempt 2 failed"));
    let retrying = worker.events("task_retrying");
    assert_eq!(retrying.iter().map(|event| event["attempt"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert_eq!(retrying[0]["error"], "attempt 1 failed");
    let info = info(&bench, &handle).await;
    assert_eq!((info.status.as_str(), info.attempt, info.deliveries, info.error), ("success", 3, 0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_for_a_retry_is_listed_and_can_be_run_or_revoked() {
    let bench = Bench::new("retrywait").await;
    let worker = bench.ready_worker().await;
    let slow = Retry::new().base(Duration::from_secs(365 * 24 * 3_600)).cap(Duration::from_secs(365 * 24 * 3_600));
    let [run, end] = [(); 2].map(|()| tasks::flaky.call(1).retry(slow));
    let run = run.send(&bench.client).await.expect("acknowledged");
    let end = end.send(&bench.client).await.expect("acknowledged");
    for handle in [&run, &end] {
        let retrying = async || {
            let status = handle.status().await.ok()?;
            (status == Status::Retrying).then_some(())
        };
        until("it waits for its retry", retrying).await;
        let info = info(&bench, handle).await;
        assert_eq!((info.attempt, info.error.map(|error| error.message)), (2, Some("attempt 1 failed".to_owned())));
        assert!(info.eta.is_some());
    }
    let admin = bench.client.admin();
    until("both are listed", async || (admin.scheduled(10).await.ok()?.total == 2).then_some(())).await;
    assert!(admin.run_now(run.id()).await.expect("kafka answers"));
    assert_eq!(run.wait(WAIT).await.expect("it runs now").0, 2);
    assert_eq!(end.revoke().await.expect("an answer"), yadtq::Revocation::Revoked);
    assert!(matches!(end.wait(WAIT).await, Err(Error::Revoked { .. })));
    assert_eq!(admin.scheduled(10).await.expect("kafka answers").total, 0, "nothing waits any more");
    assert!(!admin.run_now(run.id()).await.expect("kafka answers"), "it has ended");
    assert_eq!(worker.events("task_started").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn task_call_and_error_decide_about_retries() {
    let bench = Bench::new("policy").await;
    let worker = bench.ready_worker().await;
    let client = &bench.client;
    let odd = tasks::picky.call(7).send(client).await.expect("acknowledged");
    let even = tasks::picky.call(8).send(client).await.expect("acknowledged");
    let once = tasks::picky.call(9).max_retries(0).send(client).await.expect("acknowledged");
    let fatal = tasks::steered.call("fatal".into()).send(client).await.expect("acknowledged");
    let after = tasks::steered.call("after".into()).send(client).await.expect("acknowledged");
    let again = tasks::steered.call("again".into()).send(client).await.expect("acknowledged");
    assert_eq!(failed(odd.wait(WAIT).await), (ErrorKind::Error, "error 7".into(), 3));
    assert_eq!(failed(even.wait(WAIT).await).2, 1, "retry_if says no");
    assert_eq!(failed(once.wait(WAIT).await).2, 1, "the call says no");
    assert_eq!(failed(fatal.wait(WAIT).await), (ErrorKind::Error, "no use".into(), 1));
    assert_eq!(after.wait(WAIT).await.expect("its second attempt"), 2);
    assert_eq!(again.wait(WAIT).await.expect("its second attempt"), 2);
    let waited = worker.events("task_retrying").into_iter().find(|event| event["error"] == "later");
    assert!(waited.expect("it was retried")["in_ms"].as_u64() > Some(900), "as long as the error says");
    let all = [odd.id(), even.id(), once.id(), fatal.id()].map(ToString::to_string);
    until("each that failed for good is a dead letter", async || {
        let letters = worker.events("task_dead_lettered");
        all.iter().all(|id| letters.iter().any(|letter| letter["task_id"] == **id)).then_some(())
    })
    .await;
    let reasons = worker.events("task_dead_lettered");
    let reason =
        |id: &str| reasons.iter().find(|letter| letter["task_id"] == *id).map(|letter| letter["reason"].clone());
    assert_eq!(reason(&all[0]), Some("retries".into()));
    assert_eq!(reason(&all[3]), Some("fatal".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snoozing_task_frees_its_slot_and_uses_no_attempt() {
    let bench = Bench::new("snooze").await;
    let worker = worker_with(&bench.env.clone().with("TEST_SLOTS", "1"));
    worker.event("partitions_assigned", |_| true).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ready");
    let handle = tasks::sleepy.call(file.clone()).send(&bench.client).await.expect("acknowledged");
    until("it snoozes for the third time", async || (worker.events("task_parked").len() >= 3).then_some(())).await;
    for handle in bench.client.send_many((0..5).map(|_| tasks::nap.call(1))).await {
        handle.expect("acknowledged").wait(WAIT).await.expect("the slot is free");
    }
    std::fs::write(&file, "").expect("written");
    assert_eq!(handle.wait(WAIT).await.expect("it runs once more"), 1, "still the first attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_with_an_unknown_name_runs_once_a_worker_registers_it() {
    let bench = Bench::new("rolling").await;
    let client = yadtq::Client::builder()
        .kafka(servers::kafka())
        .redis(servers::redis())
        .namespace(&bench.namespace)
        .build()
        .await
        .expect("a client");
    // The old version of a service registers only another task of the queue.
    let mut old = Vec::new();
    for _ in 0..9 {
        let worker = yadtq::Worker::builder().client(&client).register(tasks::brief).queues(["default"]);
        old.push(worker.unknown_task_grace(Duration::from_secs(1)).start().await.expect("a worker"));
    }
    let calls = (0..100).map(|n| tasks::nap.call(n).max_retries(0));
    let new: Vec<_> = bench.client.send_many(calls).await.into_iter().map(|sent| sent.expect("acknowledged")).collect();
    for handle in [&new[0], &new[99]] {
        let unknown = async || {
            let info = info(&bench, handle).await;
            assert_eq!(info.attempt, 1, "no attempt was made");
            (info.error?.kind == ErrorKind::UnknownTask).then_some(())
        };
        until("the old workers do not know it", unknown).await;
    }
    // The deploy goes slowly: one of ten workers is new, and it stays like that.
    let worker = bench.worker();
    for (n, handle) in (0..).zip(&new) {
        assert_eq!(handle.wait(WAIT).await.expect("the new worker knows it"), n);
    }
    for (n, sent) in (0..).zip(bench.client.send_many((0..100).map(|n| tasks::nap.call(n))).await) {
        assert_eq!(sent.expect("acknowledged").wait(WAIT).await.expect("offered to the new worker"), n);
    }
    assert_eq!(bench.client.admin().dead_letters().count().await.expect("an answer"), 0);
    drop(worker);
    for old in old {
        old.stop().await.expect("it stops");
    }
}

/// Servers of the test's own, which it can suspend, and a worker that runs the first attempt of a failing task.
struct Fault {
    kafka: Kafka,
    redis: Redis,
    env: Env,
    client: Client,
    worker: Process,
    handle: TaskHandle<(u32, String)>,
}

impl Fault {
    async fn new() -> Self {
        let (kafka, redis, namespace) = (Kafka::start(), Redis::start(&["--appendonly", "yes"]), namespace("fault"));
        let builder = Client::builder().kafka(kafka.address()).redis(redis.url()).namespace(&namespace);
        let client = builder.build().await.expect("a client");
        let env = Env::new(&kafka.address(), &redis.url(), &namespace);
        let worker = worker_with(&env);
        worker.event("scheduler_ready", |_| true).await;
        worker.event("partitions_assigned", |_| true).await;
        // The attempt fails after half a second, which is enough time to suspend a server.
        let call = Call::named("fail_slowly", (500, 1)).retry(Retry::new().base(Duration::from_millis(50)));
        let handle = call.send(&client).await.expect("acknowledged");
        worker.event("task_started", |_| true).await;
        Self { kafka, redis, env, client, worker, handle }
    }

    /// Starts the next worker, and returns how the task ends.
    async fn go_on(&self) -> (Process, (u32, String), TaskInfo) {
        let next = worker_with(&self.env);
        let result = self.handle.wait(WAIT).await.expect("it succeeds");
        let info = self.client.admin().task(self.handle.id()).await.expect("redis answers").expect("a record");
        (next, result, info)
    }
}

fn attempts(worker: &Process) -> Vec<Option<u64>> {
    worker.events("task_started").iter().map(|event| event["attempt"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_before_the_transition_repeats_the_attempt() {
    let mut fault = Fault::new().await;
    fault.redis.process().pause();
    // The attempt has failed by then, and the worker could not record it.
    fault.worker.event("results_held", |_| true).await;
    fault.worker.kill().await;
    fault.redis.process().go_on();
    let (next, (attempt, _), info) = fault.go_on().await;
    assert_eq!((attempt, info.attempt), (2, 2));
    assert_eq!(attempts(&next), [Some(1), Some(2)], "the first attempt counts as a delivery");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_before_the_publication_lets_the_next_owner_publish_the_retry() {
    let mut fault = Fault::new().await;
    fault.kafka.process().pause();
    fault.worker.event("task_retrying", |_| true).await;
    let status = fault.handle.status().await.expect("redis answers");
    assert_eq!(status, Status::Retrying, "Redis knows");
    fault.worker.kill().await;
    fault.kafka.process().go_on();
    let (next, (attempt, before), info) = fault.go_on().await;
    assert_eq!((attempt, before.as_str(), info.attempt, info.deliveries), (2, "not yet", 2, 0));
    assert_eq!(attempts(&next), [Some(2)], "the first attempt is not made again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_before_the_commit_publishes_the_retry_twice_and_runs_it_once() {
    let mut fault = Fault::new().await;
    // The retry comes through the topic of delayed tasks, or, if its jitter is next to nothing, straight to the queue.
    fault.worker.event("task_received", |event| event["attempt"] == 2).await;
    // Offsets are committed every second; the retry comes within 50 ms.
    fault.worker.kill().await;
    let (next, (attempt, _), info) = fault.go_on().await;
    assert_eq!((attempt, info.status.as_str()), (2, "success"));
    until("the first record was looked at again, or was committed", async || {
        let waiting = fault.client.admin().queues().await.ok()?;
        (waiting.iter().all(|queue| queue.lag == 0)).then_some(())
    })
    .await;
    assert!(attempts(&next).len() <= 1, "{:?}", attempts(&next));
}
