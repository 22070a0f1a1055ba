//! A task that kills every worker that runs it.

use std::time::Duration;

use yadtq::{Error, ErrorKind};
use yadtq_tests::{process::Process, tasks, until};

use super::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_kills_workers_becomes_a_dead_letter_and_other_tasks_run() {
    let bench = Bench::new("poison").await;
    let mut worker = bench.ready_worker().await;
    let crash = tasks::crash.call().send(&bench.client).await.expect("acknowledged");
    let neighbours = bench.client.send_many((0..10).map(|_| tasks::nap.call(300))).await;
    let mut crashes = 0;
    let verdict = loop {
        tokio::select! {
            verdict = crash.clone() => break verdict,
            _ = worker.end() => {
                crashes += 1;
                assert!(crashes <= 6, "it is not retried forever");
                worker = next(&bench);
            }
        }
    };
    match verdict {
        Err(Error::TaskFailed { kind: ErrorKind::Deliveries, message, .. }) => println!("{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(crashes, 6, "the first run and five more");
    for handle in neighbours {
        let handle = handle.expect("acknowledged");
        assert_eq!(handle.wait(Duration::from_secs(60)).await.expect("a neighbour completes"), 300);
    }
    until("it becomes a dead letter", async || (!worker.events("task_dead_lettered").is_empty()).then_some(())).await;
    let letter = &worker.events("task_dead_lettered")[0];
    assert_eq!(letter["reason"], "deliveries", "{letter}");
}

fn next(bench: &Bench) -> Process {
    bench.worker()
}
