//! Many tasks, several workers, several clients: every result is correct, and every task runs once.

use std::{collections::HashSet, path::Path, time::Duration};

use redis::AsyncCommands as _;
use yadtq::TaskId;
use yadtq_tests::{process::Process, tasks};

use super::{Bench, worker_with};

const EACH: usize = 50_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_tasks_run_once_each() {
    let bench = Bench::new("volume").await;
    let dir = tempfile::tempdir().expect("a directory");
    let record = |worker: usize| dir.path().join(worker.to_string());
    let mut workers: Vec<Process> = (0..3)
        .map(|worker| {
            let path = record(worker).display().to_string();
            worker_with(&bench.env.clone().with("TEST_RECORD", &path).with("RUST_LOG", "yadtq=warn"))
        })
        .collect();
    let program = Path::new(env!("CARGO_BIN_EXE_test-client"));
    let count = EACH.to_string();
    let mut clients: Vec<Process> = (0..2).map(|_| Process::start(program, &[&count], &bench.env)).collect();
    for client in &mut clients {
        assert!(client.end().await, "every handle resolves with its sum: {:?}", client.output());
        assert!(client.output().contains(&"wrong 0".to_owned()), "{:?}", client.output());
    }
    for worker in &mut workers {
        worker.signal(rustix::process::Signal::TERM);
        assert!(worker.end().await, "a worker ends well");
    }

    let runs: Vec<String> = (0..3)
        .flat_map(|worker| {
            let text = std::fs::read_to_string(record(worker)).expect("a record");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let ids: HashSet<&String> = runs.iter().collect();
    assert_eq!(ids.len(), 2 * EACH, "every task ran");
    assert_eq!(runs.len(), 2 * EACH, "no task ran twice");

    let mut redis = bench.redis().await;
    for id in runs.iter().step_by(997) {
        let id: TaskId = id.parse().expect("an id");
        let hash: std::collections::HashMap<String, String> = redis.hgetall(bench.key(&id)).await.expect("a hash");
        assert_eq!(hash["status"], "success", "{hash:?}");
        assert!(hash["result"].parse::<i64>().is_ok_and(|sum| sum >= 7), "{hash:?}");
        assert_eq!(hash["task"], "add");
        let bytes: usize =
            redis::cmd("MEMORY").arg("USAGE").arg(bench.key(&id)).query_async(&mut redis).await.expect("a size");
        assert!(bytes <= 400, "a finished task takes {bytes} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_handles_awaited_at_once_survive_lost_publishes() {
    let bench = Bench::new("handles").await;
    let worker = worker_with(&bench.env.clone().with("RUST_LOG", "yadtq=warn"));
    let handles = bench.client.send_many((0..100_000).map(|i| tasks::echo.call(i.into()))).await;
    let handles: Vec<_> = handles.into_iter().map(|handle| handle.expect("acknowledged")).collect();
    handles[10_000].clone().await.expect("the work has begun");
    // This cuts the channel on which results are pushed: messages that are published now are lost.
    let mut redis = bench.redis().await;
    let () = redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("pubsub")
        .query_async(&mut redis)
        .await
        .map(|_: i64| ())
        .expect("killed");
    let results = tokio::time::timeout(Duration::from_secs(100), futures_util::future::join_all(handles)).await;
    for (i, result) in results.expect("every handle resolves").into_iter().enumerate() {
        assert_eq!(result.expect("a result"), serde_json::json!(i));
    }
    drop(worker);
}
