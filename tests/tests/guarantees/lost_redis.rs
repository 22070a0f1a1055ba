//! Redis loses all its data while tasks run.

use std::{collections::HashSet, time::Duration};

use yadtq_tests::{servers::Redis, tasks};

use super::{Bench, worker_with};

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_loses_no_task() {
    let server = Redis::start(&[]);
    let bench = Bench::on("flush", &server.url()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("runs").display().to_string();
    let mut worker = worker_with(&bench.env.clone().with("TEST_RECORD", &path).with("RUST_LOG", "yadtq=warn"));
    let calls = (0..10_000).map(|i| tasks::add.call(i, 1));
    let handles = bench.client.send_many(calls).await;
    let handles: Vec<_> = handles.into_iter().map(|handle| handle.expect("acknowledged")).collect();
    handles[1_000].clone().await.expect("the work has begun");
    let mut redis = bench.redis().await;
    let () = redis::cmd("FLUSHALL").query_async(&mut redis).await.expect("emptied");

    for (i, handle) in (0_i64..).zip(&handles) {
        assert_eq!(handle.wait(Duration::from_secs(40)).await.expect("every task completes"), i + 1);
    }
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.end().await, "the worker ends well");
    let runs = std::fs::read_to_string(&path).expect("a record");
    let ids: HashSet<&str> = runs.lines().collect();
    assert_eq!(ids.len(), handles.len(), "every task ran");
    println!("{} tasks ran again after redis had lost them", runs.lines().count() - ids.len());
}
