//! How long results are kept, tasks that expire before they run, and runs that are asked to end.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use redis::AsyncCommands as _;
use yadtq::{Call, Error, Status};
use yadtq_tests::tasks;

use super::{Bench, worker_with};

const HOUR: i64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_ttl_of_the_call_overrides_the_task_and_the_worker() {
    let bench = Bench::new("results").await;
    let _worker = bench.ready_worker().await;
    let mut redis = bench.redis().await;
    let brief = || tasks::brief.call(7);
    let seconds = Duration::from_secs;
    let nothing = Call::<()>::named("echo", [()]).send(&bench.client).await.expect("acknowledged");
    nothing.wait(Duration::from_secs(30)).await.expect("it succeeds");
    let left: i64 = redis.pttl(bench.key(nothing.id())).await.expect("a time");
    assert!((HOUR - 60_000..=HOUR).contains(&left), "{left} ms left of an end without a result");
    let cases: [(Call<u8>, i64, bool); 5] = [
        (Call::named("echo", [7]), 24 * HOUR, true),
        (brief(), 2 * HOUR, true),
        (brief().result_ttl(seconds(10 * 3_600)), 10 * HOUR, true),
        (brief().result_ttl(seconds(60)), HOUR, true),
        (brief().ignore_result(), HOUR, false),
    ];
    for (i, (call, ttl, is_kept)) in cases.into_iter().enumerate() {
        let handle = call.send(&bench.client).await.expect("acknowledged");
        match handle.wait(Duration::from_secs(30)).await {
            Ok(7) if is_kept => {}
            Err(Error::NoResult { .. }) if !is_kept => {}
            other => panic!("case {i}: {other:?}"),
        }
        let key = bench.key(handle.id());
        let hash: HashMap<String, String> = redis.hgetall(&key).await.expect("a hash");
        assert_eq!(hash["status"], "success", "case {i}: {hash:?}");
        assert_eq!(hash.contains_key("result"), is_kept, "case {i}: {hash:?}");
        let left: i64 = redis.pttl(&key).await.expect("a time");
        assert!((ttl - 60_000..=ttl).contains(&left), "case {i}: {left} ms left of {ttl}");
    }
    let refused = brief().result_ttl(seconds(366 * 86_400)).send(&bench.client).await;
    assert!(matches!(refused, Err(Error::Config { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_task_is_not_run() {
    let bench = Bench::new("expires").await;
    let worker = worker_with(&bench.env.clone().with("TEST_SLOTS", "1"));
    worker.event("partitions_assigned", |_| true).await;
    let busy = tasks::nap.call(2_000).send(&bench.client).await.expect("acknowledged");
    worker.event("task_started", |_| true).await;
    let late =
        tasks::nap.call(1).expires_in(Duration::from_millis(500)).send(&bench.client).await.expect("acknowledged");
    let in_time =
        tasks::nap.call(2).expires_in(Duration::from_secs(60)).send(&bench.client).await.expect("acknowledged");
    let ended = late.wait(Duration::from_secs(30)).await;
    assert!(matches!(ended, Err(Error::Expired { .. })), "{ended:?}");
    assert_eq!(busy.wait(Duration::from_secs(30)).await.expect("a result"), 2_000);
    assert_eq!(in_time.wait(Duration::from_secs(30)).await.expect("a result"), 2);
    let info = bench.client.admin().task(late.id()).await.expect("an answer").expect("a record");
    assert_eq!((info.status, info.error.expect("an error").kind.as_str()), (Status::Revoked, "expired"));
    let id = late.id().to_string();
    assert!(worker.events("task_started").iter().all(|event| event["task_id"] != *id), "it never ran");
    worker.event("task_revoked", |event| event["task_id"] == *id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_asked_to_end_at_its_soft_timeout_and_its_return_counts() {
    let bench = Bench::new("soft").await;
    let _worker = bench.ready_worker().await;
    for (call, least) in [
        (tasks::heed.call(), Duration::from_millis(200)),
        (tasks::heed.call().soft_timeout(Duration::from_millis(600)), Duration::from_millis(600)),
    ] {
        let sent = Instant::now();
        let handle = call.send(&bench.client).await.expect("acknowledged");
        assert!(handle.wait(Duration::from_secs(30)).await.expect("it succeeds"), "it was asked");
        assert!(sent.elapsed() >= least, "asked after {:?}", sent.elapsed());
    }
    let zero = tasks::heed.call().soft_timeout(Duration::ZERO).send(&bench.client).await;
    assert!(matches!(zero, Err(Error::Config { .. })), "{zero:?}");
}
