//! Tasks that block every thread of the application's runtime.

use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use yadtq::Status;
use yadtq_tests::{tasks, until};

use super::{Bench, worker_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_runtime_keeps_its_leases() {
    let bench = Bench::new("blocked").await;
    let worker = worker_with(&bench.env.clone().with("TEST_THREADS", "2"));
    worker.event("partitions_assigned", |_| true).await;
    let mut redis = bench.redis().await;
    let first = tasks::hog.call(20_000).send(&bench.client).await.expect("acknowledged");
    let second = tasks::hog.call(20_000).send(&bench.client).await.expect("acknowledged");
    for handle in [&first, &second] {
        until("it runs", async || (handle.status().await.ok()? == Status::Running).then_some(())).await;
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(18) {
        for handle in [&first, &second] {
            let key = bench.key(handle.id());
            let (until, token): (u64, String) = redis.hmget(&key, &["lease-until", "token"]).await.expect("a lease");
            let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.expect("a time");
            assert!(until > seconds * 1_000, "the lease of token {token} lives");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for handle in [first, second] {
        let id = handle.id().clone();
        assert_eq!(handle.await.expect("it completes"), 20_000);
        let info = bench.client.admin().task(&id).await.expect("an answer").expect("a record");
        assert_eq!(info.deliveries, 0, "nobody took it over");
    }
    assert_eq!(worker.events("task_started").len(), 2, "each ran once");
}
