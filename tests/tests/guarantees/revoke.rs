//! Revoked tasks: before they run, while they run, before any worker has seen them, and if the notification is lost.

use std::time::Duration;

use yadtq::{Error, Revocation, Status, TaskHandle, TaskId};
use yadtq_tests::{process::Process, servers::Redis, tasks, until};

use super::{Bench, worker_with};

const WAIT: Duration = Duration::from_secs(30);

async fn is_revoked<T: serde::de::DeserializeOwned + std::fmt::Debug>(handle: &TaskHandle<T>) {
    match handle.wait(WAIT).await {
        Err(Error::Revoked { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(handle.status().await.expect("a status"), Status::Revoked);
}

fn has_started(worker: &Process, id: &TaskId) -> bool {
    let id = id.to_string();
    worker.events("task_started").iter().any(|event| event["task_id"] == *id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_task_that_is_revoked_does_not_run() {
    let bench = Bench::new("revoke").await;
    let waiting = tasks::nap.call(1).send(&bench.client).await.expect("acknowledged");
    assert_eq!(waiting.revoke().await.expect("an answer"), Revocation::Revoked);
    is_revoked(&waiting).await;
    let unseen: TaskId = "not-yet".parse().expect("an id");
    assert_eq!(bench.client.revoke(&unseen).await.expect("an answer"), Revocation::Revoked);
    let unseen = tasks::nap.call(1).id(unseen).send(&bench.client).await.expect("acknowledged");

    let worker = bench.ready_worker().await;
    let after = tasks::nap.call(2).send(&bench.client).await.expect("acknowledged");
    assert_eq!(after.wait(WAIT).await.expect("a result"), 2);
    is_revoked(&unseen).await;
    for handle in [&waiting, &unseen] {
        worker.event("task_revoked", |event| event["task_id"] == *handle.id().to_string()).await;
        assert!(!has_started(&worker, handle.id()), "it never ran");
    }
    assert_eq!(after.revoke().await.expect("an answer"), Revocation::Ended { status: Status::Success });
    assert_eq!(after.status().await.expect("a status"), Status::Success, "too late changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_tasks_that_are_revoked_do_not_run_even_if_redis_loses_its_data() {
    let server = Redis::start(&[]);
    let bench = Bench::on("revoflush", &server.url()).await;
    let handles = bench.client.send_many((0..20).map(|_| tasks::nap.call(1))).await;
    let handles: Vec<_> = handles.into_iter().map(|handle| handle.expect("acknowledged")).collect();
    for handle in &handles {
        assert_eq!(handle.revoke().await.expect("an answer"), Revocation::Revoked);
    }
    let () = redis::cmd("FLUSHALL").query_async(&mut bench.redis().await).await.expect("emptied");
    let worker = bench.worker();
    for handle in &handles {
        let id = handle.id().to_string();
        worker.event("task_revoked", |event| event["task_id"] == *id).await;
        assert_eq!(handle.status().await.expect("a status"), Status::Revoked);
    }
    assert!(worker.events("task_started").is_empty(), "none of them ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_that_is_revoked_is_asked_to_stop_and_then_dropped() {
    let bench = Bench::new("revoking").await;
    let worker = bench.ready_worker().await;
    let client = &bench.client;
    let obedient = tasks::obey.call().send(client).await.expect("acknowledged");
    // This task ignores the request and is dropped after the grace of 5 s.
    let deaf = tasks::nap.call(3_600_000).send(client).await.expect("acknowledged");
    let blocking = tasks::doze.call(2_000).send(client).await.expect("acknowledged");
    until("all run", async || (worker.events("task_started").len() == 3).then_some(())).await;
    let asked = |answer: Result<Revocation, Error>| matches!(answer, Ok(Revocation::Asked { .. }));
    assert!(asked(obedient.revoke().await) && asked(deaf.revoke().await) && asked(blocking.revoke().await));
    assert!(asked(blocking.revoke().await), "asked twice");
    is_revoked(&obedient).await;
    is_revoked(&deaf).await;
    assert_eq!(blocking.wait(WAIT).await.expect("it succeeded all the same"), 2_000);
    let again = tasks::nap.call(3).send(client).await.expect("acknowledged");
    assert_eq!(again.wait(WAIT).await.expect("the slots are free"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_notification_is_made_up_for_by_the_next_lease_extension() {
    let bench = Bench::new("unheard").await;
    let worker = worker_with(&bench.env);
    worker.event("partitions_assigned", |_| true).await;
    let handle = tasks::obey.call().send(&bench.client).await.expect("acknowledged");
    worker.event("task_started", |_| true).await;
    // Do what `revoke` does, without the notification.
    let mut redis = bench.redis().await;
    let key = bench.key(handle.id());
    let () = redis::cmd("HSET").arg(&key).arg("revoke").arg("1").query_async(&mut redis).await.expect("flagged");
    is_revoked(&handle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_task_of_a_killed_worker_does_not_run_again() {
    let bench = Bench::new("revokill").await;
    let mut first = bench.ready_worker().await;
    let handle = tasks::nap.call(3_600_000).send(&bench.client).await.expect("acknowledged");
    first.event("task_started", |_| true).await;
    assert!(matches!(handle.revoke().await, Ok(Revocation::Asked { .. })));
    first.kill().await;
    let second = bench.worker();
    let event = second.event("task_revoked", |event| event["task_id"] == *handle.id().to_string()).await;
    assert_eq!(event["kind"], "revoked");
    assert!(!has_started(&second, handle.id()), "it does not run again");
    assert_eq!(handle.status().await.expect("a status"), Status::Revoked);
}
