//! Workers that are killed, or hang, while their tasks run.

use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use yadtq_tests::{process::Process, until};

use super::{Fleet, all_succeed, now, quantile, running, seconds, start, times};

const KILLS: usize = 20;

/// Waits until all these tasks have started on one of the workers after that time; returns when the last one did.
async fn started_again(lost: &std::collections::HashSet<String>, workers: &[Process], since: SystemTime) -> SystemTime {
    until("everything that was lost starts again", async || {
        let starts = times(workers, "task_started");
        let again =
            lost.iter().map(|id| starts.get(id).copied().filter(|at| *at > since)).collect::<Option<Vec<_>>>()?;
        again.into_iter().max()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_killed_worker_start_again_within_1_5_s_in_the_median_and_2_5_s_at_worst() {
    let fleet = Fleet::new("kill").await;
    let mut workers = fleet.workers(3).await;
    let mut took = Vec::new();
    for _ in 0..KILLS {
        let handles = fleet.naps(30, 2_000).await;
        until("each runs some", async || workers.iter().all(|worker| running(worker).len() >= 4).then_some(())).await;
        let mut victim = workers.remove(0);
        let killed = now();
        victim.kill().await;
        let lost = running(&victim);
        assert!(!lost.is_empty(), "it was killed in the middle");
        // Its successor does not help: what is measured is how soon the others notice.
        let last = started_again(&lost, &workers, killed).await;
        took.push(last.duration_since(killed).expect("later"));
        workers.push(fleet.worker().await);
        all_succeed(handles).await;
    }
    let reports: usize = workers.iter().map(|worker| worker.events("worker_lost").len()).sum();
    assert!(reports <= KILLS, "each is reported once: {reports}");
    println!("from the kill to the last lost task's start, in s: {}", seconds(&took));
    let (median, worst) = (quantile(&mut took, 0.5), quantile(&mut took, 1.0));
    assert!(median <= Duration::from_millis(1_500), "median {median:?}");
    assert!(worst <= Duration::from_millis(2_500), "worst {worst:?}");
}

async fn a_frozen_worker(test: &str, lease_ms: u64, most: Duration) {
    let mut fleet = Fleet::new(test).await;
    fleet.env = fleet.env.with("TEST_LEASE_MS", &lease_ms.to_string());
    let workers = fleet.workers(3).await;
    // A worker takes over lapsed leases once its own connection is older than a lease.
    all_succeed(fleet.naps(9, lease_ms + 1_000).await).await;
    let handles = fleet.naps(30, 2_000).await;
    until("each runs some", async || workers.iter().all(|worker| running(worker).len() >= 4).then_some(())).await;
    let frozen = now();
    workers[0].signal(Signal::STOP);
    let lost = running(&workers[0]);
    assert!(!lost.is_empty());
    let last = started_again(&lost, &workers[1..], frozen).await;
    let took = last.duration_since(frozen).expect("later");
    println!("{} tasks of a frozen worker had started again after {took:?}, with a lease of {lease_ms} ms", lost.len());
    assert!(took <= most, "{took:?}");
    workers[0].signal(Signal::CONT);
    all_succeed(handles).await;
    until("it works again", async || {
        all_succeed(fleet.naps(30, 10).await).await;
        workers[0].events("task_succeeded").iter().any(|event| super::time_of(event) > last).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_frozen_worker_start_again_within_the_lease_and_a_second() {
    a_frozen_worker("frozen", 6_000, Duration::from_secs(7)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_frozen_worker_with_a_lease_of_1_s_start_again_within_2_s() {
    a_frozen_worker("frozen1", 1_000, Duration::from_secs(2)).await;
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
