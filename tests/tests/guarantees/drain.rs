//! Workers that are asked to stop.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use yadtq::{Error, ErrorKind, Status};
use yadtq_tests::{tasks, until};

use super::{Bench, worker_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_worker_finishes_its_running_tasks() {
    let bench = Bench::new("drain").await;
    let mut worker = bench.ready_worker().await;
    let handle = tasks::nap.call(3_000).send(&bench.client).await.expect("acknowledged");
    worker.event("task_started", |_| true).await;
    worker.signal(Signal::TERM);
    assert!(worker.end().await, "it ends well");
    assert_eq!(handle.result().await.expect("recorded before the end"), Some(3_000));
    assert_eq!(worker.events("worker_disconnected").len(), 1);
    assert!(bench.client.admin().workers().await.expect("redis answers").is_empty(), "it left the registry");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_does_not_finish_in_time_is_given_back_at_once() {
    let bench = Bench::new("handback").await;
    let mut first = worker_with(&bench.env.clone().with("TEST_DRAIN_MS", "200"));
    first.event("partitions_assigned", |_| true).await;
    let handle = tasks::nap.call(4_000).send(&bench.client).await.expect("acknowledged");
    first.event("task_started", |_| true).await;
    first.signal(Signal::TERM);
    assert!(first.end().await, "it ends well");
    assert_eq!(handle.status().await.expect("a status"), Status::Queued, "it was handed back");
    let begun = Instant::now();
    let second = bench.worker();
    second.event("task_started", |_| true).await;
    println!("started again {:?} after the hand-back", begun.elapsed());
    assert_eq!(handle.wait(Duration::from_secs(30)).await.expect("a result"), 4_000);
    let info = bench.client.admin().task(handle.id()).await.expect("an answer").expect("a record");
    assert_eq!((info.deliveries, info.attempt), (0, 1), "a hand-back counts as nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_apply_while_a_worker_stops() {
    let bench = Bench::new("overrun").await;
    let mut worker = bench.ready_worker().await;
    let in_time =
        tasks::doze.call(1_000).timeout(Duration::from_secs(60)).send(&bench.client).await.expect("acknowledged");
    let late = tasks::doze
        .call(2_000)
        .timeout(Duration::from_millis(1_500))
        .max_retries(0)
        .send(&bench.client)
        .await
        .expect("acknowledged");
    until("both run", async || (worker.events("task_started").len() == 2).then_some(())).await;
    worker.signal(Signal::TERM);
    assert!(worker.end().await, "it ends well");
    assert_eq!(in_time.result().await.expect("recorded"), Some(1_000));
    assert!(matches!(late.result().await, Err(Error::TaskFailed { kind: ErrorKind::Timeout, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_wait() {
    let bench = Bench::new("hurry").await;
    let mut worker = bench.ready_worker().await;
    let handle = tasks::nap.call(60_000).send(&bench.client).await.expect("acknowledged");
    worker.event("task_started", |_| true).await;
    worker.signal(Signal::INT);
    worker.event("worker_draining", |_| true).await;
    worker.signal(Signal::INT);
    assert!(worker.end().await, "it ends well");
    until("it was handed back", async || (handle.status().await.ok()? == Status::Queued).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_tasks_of_a_stopping_worker_run_elsewhere_at_once() {
    let bench = Bench::new("leave").await;
    let env = bench.env.clone().with("TEST_SLOTS", "1");
    let mut first = worker_with(&env);
    first.event("partitions_assigned", |_| true).await;
    let long = tasks::nap.call(8_000).send(&bench.client).await.expect("acknowledged");
    first.event("task_started", |_| true).await;
    let waiting = bench.client.send_many((0..20).map(|_| tasks::nap.call(1))).await;
    let second = bench.worker();
    second.event("worker_connected", |_| true).await;
    first.signal(Signal::TERM);
    for handle in waiting {
        handle.expect("acknowledged").wait(Duration::from_secs(30)).await.expect("it runs elsewhere");
    }
    assert_eq!(long.result().await.expect("an answer"), None, "the first worker is still busy with its own");
    assert_eq!(long.wait(Duration::from_secs(30)).await.expect("and finishes it"), 8_000);
    assert!(first.end().await, "it ends well");
}
