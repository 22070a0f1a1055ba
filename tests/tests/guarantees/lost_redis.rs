//! Redis loses everything, in the middle of the work.

use std::time::Duration;

use yadtq_tests::{servers::Redis, tasks, until};

use super::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn redis_emptied_in_the_middle_loses_no_task() {
    let server = Redis::start(&[]);
    let bench = Bench::on("flush", &server.url()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("runs").display().to_string();
    let _worker = bench.worker_with(&bench.env.clone().with("TEST_RECORD", &path).with("RUST_LOG", "yadtq=warn"));
    let calls = (0..10_000).map(|i| tasks::add.call(i, 1));
    let handles = bench.client.send_many(calls).await;
    let handles: Vec<_> = handles.into_iter().map(|handle| handle.expect("acknowledged")).collect();
    handles[1_000].clone().await.expect("the work has begun");
    let mut redis = bench.redis().await;
    let () = redis::cmd("FLUSHALL").query_async(&mut redis).await.expect("emptied");

    // A handle whose result was recorded and then lost with Redis cannot tell; all others do.
    let mut lost_results = 0;
    for (i, handle) in (0_i64..).zip(&handles) {
        match handle.wait(Duration::from_millis(if lost_results > 0 { 200 } else { 40_000 })).await {
            Ok(sum) => assert_eq!(sum, i + 1),
            Err(yadtq::Error::WaitTimeout { .. }) => lost_results += 1,
            Err(other) => panic!("task {i}: {other}"),
        }
    }
    until("every task ran", async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let ids: std::collections::HashSet<&str> = text.lines().filter(|line| line.len() == 36).collect();
        (ids.len() >= 10_000 - 250).then_some(())
    })
    .await;
    println!("{lost_results} results were recorded, published late and lost with redis");
}
