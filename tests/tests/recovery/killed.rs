//! Workers that are killed, or hang, while their tasks run.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use rustix::process::Signal;
use yadtq::{Status, TaskId};
use yadtq_tests::{process::Process, until};

use super::{Fleet, all_succeed, hold, now, quantile, running, seconds, start, times};

const KILLS: usize = 20;

/// Number of tasks that are running when a worker dies.
const TASKS: usize = 30;
/// Number of slots of each worker: two have room for all tasks, so that a lost one waits for nobody's end.
const SLOTS: &str = "20";

/// Waits until all that a worker left behind runs on others; returns when the last one started, or `None` if nothing was left
/// behind.
async fn started_again(
    fleet: &Fleet, lost: &HashSet<String>, workers: &[Process], since: SystemTime,
) -> Option<SystemTime> {
    until("everything that was lost starts again", async || {
        let mut last = None;
        for id in lost {
            let task: TaskId = id.parse().expect("an id");
            // Before the logs, because what ran again has a start there by the time it succeeds.
            let status = fleet.client.handle::<u64>(task).status().await.ok()?;
            match times(workers, "task_started").get(id) {
                Some(at) if *at > since => last = last.max(Some(*at)),
                // It had ended, and the worker could not log that any more.
                _ if status == Status::Success => {}
                _ => return None,
            }
        }
        Some(last)
    })
    .await
}

/// Waits until each of them runs some of the tasks that were just sent.
async fn each_runs_some(workers: &[Process]) {
    until("each runs some", async || workers.iter().all(|worker| !running(worker).is_empty()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_killed_worker_start_again_within_1_5_s_in_the_median_and_2_5_s_at_worst() {
    let mut fleet = Fleet::new("kill").await;
    fleet.env = fleet.env.with("TEST_SLOTS", SLOTS);
    let mut workers = fleet.workers(3).await;
    // Whoever notices a death was connected before the dead one's last heartbeat.
    all_succeed(fleet.naps(9, 1_000).await).await;
    let mut took = Vec::new();
    for _ in 0..KILLS {
        let handles = fleet.naps(TASKS, 2_000).await;
        each_runs_some(&workers).await;
        let mut victim = workers.remove(0);
        let killed = now();
        victim.kill().await;
        // Its successor does not help: what is measured is how soon the others notice.
        let last = started_again(&fleet, &running(&victim), &workers, killed).await;
        took.extend(last.map(|last| last.duration_since(killed).expect("later")));
        workers.push(fleet.worker().await);
        all_succeed(handles).await;
    }
    let reports: usize = workers.iter().map(|worker| worker.events("worker_lost").len()).sum();
    assert!(reports <= KILLS, "each is reported once: {reports}");
    println!("from the kill to the last lost task's start, in s: {}", seconds(&took));
    assert!(took.len() > KILLS / 2, "{} were killed in the middle", took.len());
    let (median, worst) = (quantile(&mut took, 0.5), quantile(&mut took, 1.0));
    // Without death notices it takes the lease of 6 s.
    hold("the median", median, Duration::from_millis(1_500), Duration::from_millis(4_500));
    hold("the worst", worst, Duration::from_millis(2_500), Duration::from_secs(20));
}

async fn a_frozen_worker(test: &str, lease_ms: u64, promised: Duration, otherwise: Duration) {
    let mut fleet = Fleet::new(test).await;
    fleet.env = fleet.env.with("TEST_LEASE_MS", &lease_ms.to_string()).with("TEST_SLOTS", SLOTS);
    let workers = fleet.workers(3).await;
    // A worker takes over lapsed leases once its own connection is older than a lease.
    all_succeed(fleet.naps(9, lease_ms + 1_000).await).await;
    let handles = fleet.naps(TASKS, 2_000).await;
    each_runs_some(&workers).await;
    let frozen = now();
    workers[0].signal(Signal::STOP);
    let lost = running(&workers[0]);
    let last = started_again(&fleet, &lost, &workers[1..], frozen).await.expect("it was frozen in the middle");
    let took = last.duration_since(frozen).expect("later");
    println!("{} tasks of a frozen worker had started again after {took:?}, with a lease of {lease_ms} ms", lost.len());
    hold("it", took, promised, otherwise);
    workers[0].signal(Signal::CONT);
    all_succeed(handles).await;
    until("it works again", async || {
        all_succeed(fleet.naps(TASKS, 10).await).await;
        workers[0].events("task_succeeded").iter().any(|event| super::time_of(event) > last).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_frozen_worker_start_again_within_the_lease_and_a_second() {
    a_frozen_worker("frozen", 6_000, Duration::from_secs(7), Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_frozen_worker_with_a_lease_of_1_s_start_again_within_2_s() {
    a_frozen_worker("frozen1", 1_000, Duration::from_secs(2), Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_after_all_others_died_goes_on_with_their_tasks() {
    let fleet = Fleet::new("alldead").await;
    let mut workers = fleet.workers(2).await;
    let handles = fleet.naps(20, 2_000).await;
    until("they run", async || (!running(&workers[0]).is_empty()).then_some(())).await;
    for worker in &mut workers {
        worker.kill().await;
    }
    let killed = now();
    let _next = start(&fleet.env);
    all_succeed(handles).await;
    println!("without a witness: all had ended {:?} after the kill", killed.elapsed().expect("later"));
}
