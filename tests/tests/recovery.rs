//! A worker is killed in the middle of its tasks. Alone in its binary, so that no other test takes its time.

use std::{collections::HashSet, path::Path, time::Duration};

use yadtq::{Client, Status};
use yadtq_tests::{
    namespace,
    process::{Env, Process},
    servers, tasks, until,
};

/// From the kill to the second start of what was lost, at defaults.
const RECOVERY: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_killed_worker_run_again_within_8_seconds() {
    let namespace = namespace("kill");
    let env = Env::new(&servers::kafka(), &servers::redis(), &namespace);
    let program = Path::new(env!("CARGO_BIN_EXE_test-worker"));
    let mut workers: Vec<Process> = (0..3).map(|_| Process::start(program, &[], &env)).collect();
    for worker in &workers {
        worker.event("partitions_assigned", |event| !event["partitions"].as_str().unwrap_or("[]").eq("[]")).await;
    }
    let client = Client::builder()
        .kafka(servers::kafka())
        .redis(servers::redis())
        .namespace(&namespace)
        .build()
        .await
        .expect("a client");

    // Leases may be taken over only by those whose connection is older than a lease: let that be so.
    let warm: Vec<_> = client.send_many((0..9).map(|_| tasks::nap.call(7_000))).await;
    for handle in warm {
        assert_eq!(handle.expect("acknowledged").await.expect("a nap"), 7_000);
    }

    let handles = client.send_many((0..150).map(|_| tasks::nap.call(2_000))).await;
    let handles: Vec<_> = handles.into_iter().map(|handle| handle.expect("acknowledged")).collect();
    let victim = workers.remove(0);
    let victim = &mut { victim };
    until("the victim runs tasks", async || (victim.events("task_started").len() > 12).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    victim.kill().await;
    let killed = tokio::time::Instant::now();

    let ended: HashSet<_> = ids(victim, "task_succeeded");
    let lost: HashSet<_> = ids(victim, "task_started").difference(&ended).cloned().collect();
    assert!(lost.len() > 5, "it was killed in the middle: {} lost", lost.len());
    let restarted = async || {
        let started: HashSet<_> = workers.iter().flat_map(|worker| ids(worker, "task_started")).collect();
        lost.is_subset(&started).then_some(())
    };
    until("everything that was lost starts again", restarted).await;
    let took = killed.elapsed();
    println!("{} lost tasks had all started again {took:?} after the kill", lost.len());
    assert!(took <= RECOVERY, "it took {took:?}");

    for handle in &handles {
        assert_eq!(handle.wait(Duration::from_secs(60)).await.expect("every task completes"), 2_000);
        assert_eq!(handle.status().await.expect("a status"), Status::Success);
    }
    until("a survivor tells of the lost worker", async || {
        let told = workers.iter().map(|worker| worker.events("worker_lost").len()).sum::<usize>();
        (told > 0).then_some(())
    })
    .await;
    let told: usize = workers.iter().map(|worker| worker.events("worker_lost").len()).sum();
    assert_eq!(told, 1, "one survivor tells, once");
}

fn ids(worker: &Process, event: &str) -> HashSet<String> {
    worker.events(event).iter().filter_map(|event| event["task_id"].as_str().map(str::to_owned)).collect()
}
