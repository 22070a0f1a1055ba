//! Workers that come and go as they should.

use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use tokio::time::Instant;
use yadtq::TaskHandle;
use yadtq_tests::{process::Process, tasks, until};

use super::{Fleet, all_succeed, hold, now, quantile, seconds, start, time_of, times};

/// Number of workers that join and leave.
const MOVES: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_joins_has_partitions_within_300_ms_and_one_that_stops_hands_over_within_200_ms() {
    let fleet = Fleet::new("join").await;
    let mut workers = fleet.workers(4).await;
    let (mut joined, mut handed_over) = (Vec::new(), Vec::new());
    for _ in 0..MOVES {
        let fifth = start(&fleet.env);
        let ready = time_of(&fifth.event("worker_connected", |_| true).await);
        let owns = time_of(&fifth.event("partitions_assigned", |_| true).await);
        joined.push(owns.duration_since(ready).unwrap_or_default());
        workers.push(fifth);
        settled(&workers).await;

        let mut stops = workers.remove(0);
        let before: Vec<usize> = workers.iter().map(|worker| worker.events("partitions_assigned").len()).collect();
        stops.signal(Signal::TERM);
        let stopped = time_of(&stops.event("worker_draining", |_| true).await);
        let more =
            |(worker, before): (&Process, &usize)| worker.events("partitions_assigned").get(*before).map(time_of);
        // Those that had their share of five have less than their share of four.
        let last = until("others have its partitions", async || {
            let owned: usize = workers.iter().map(owned).sum();
            if owned == 12 { workers.iter().zip(&before).filter_map(more).max() } else { None }
        })
        .await;
        handed_over.push(last.duration_since(stopped).unwrap_or_default());
        assert!(stops.end().await, "it ends well");
    }
    println!("from ready to the first partition, in s: {}", seconds(&joined));
    println!("from the signal until others read the last partition, in s: {}", seconds(&handed_over));
    let (join, hand_over) = (quantile(&mut joined, 1.0), quantile(&mut handed_over, 1.0));
    // A partition that nobody gives lapses after 6 s.
    hold("a join", join, Duration::from_millis(300), Duration::from_secs(5));
    hold("a hand-over", hand_over, Duration::from_millis(200), Duration::from_secs(5));
}

/// Number of partitions of the default queue that a worker reads, going by its log.
fn owned(worker: &Process) -> usize {
    let mut changes: Vec<_> = ["partitions_assigned", "partitions_revoked"]
        .into_iter()
        .flat_map(|name| worker.events(name).into_iter().map(move |event| (time_of(&event), name, event)))
        .filter(|(_, _, event)| event["priority"] == "normal")
        .collect();
    changes.sort_by_key(|(at, _, _)| *at);
    let mut owned = std::collections::BTreeSet::new();
    for (_, name, event) in changes {
        let numbers: Vec<i32> = serde_json::from_str(event["partitions"].as_str().unwrap_or("[]")).expect("numbers");
        for number in numbers {
            if name == "partitions_assigned" {
                owned.insert(number)
            } else {
                owned.remove(&number)
            };
        }
    }
    owned.len()
}

/// Waits until all partitions are read.
async fn settled(workers: &[Process]) {
    until("all partitions are read, in equal shares", async || {
        let owned: Vec<usize> = workers.iter().map(owned).collect();
        let is_even = owned.iter().max()? - owned.iter().min()? <= 1;
        (owned.iter().sum::<usize>() == 12 && is_even).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_delays_no_more_than_one_task_of_a_hundred_for_a_second() {
    let fleet = Fleet::new("rolling").await;
    let mut workers = fleet.workers(8).await;
    settled(&workers).await;
    let mut gone = Vec::new();
    let (stop, mut is_stopped) = tokio::sync::watch::channel(false);
    let send = async {
        let mut sent: Vec<(SystemTime, TaskHandle<u64>)> = Vec::new();
        loop {
            let pause = tokio::time::timeout(Duration::from_millis(50), is_stopped.changed()).await;
            if pause.is_ok() {
                return sent;
            }
            let now = now();
            let naps = fleet.client.send_many((0..5).map(|_| tasks::nap.call(20))).await;
            sent.extend(naps.into_iter().map(|handle| (now, handle.expect("acknowledged"))));
        }
    };
    let restart = async {
        let begun = Instant::now();
        for _ in 0..8 {
            // As a deployment does it: the next one is ready before the old one is stopped.
            workers.push(fleet.worker().await);
            let mut old = workers.remove(0);
            old.signal(Signal::TERM);
            assert!(old.end().await, "it ends well");
            gone.push(old);
        }
        stop.send_replace(true);
        begun.elapsed()
    };
    let (sent, took) = tokio::join!(send, restart);
    workers.extend(gone);
    let lags = sent.iter().map(|(at, handle)| (handle.id().to_string(), *at)).collect::<Vec<_>>();
    all_succeed(sent.into_iter().map(|(_, handle)| handle)).await;
    let mut lags = until("all starts are in the logs", async || {
        let starts = times(&workers, "task_started");
        lags.iter()
            .map(|(id, at)| Some(starts.get(id)?.duration_since(*at).unwrap_or_default()))
            .collect::<Option<Vec<_>>>()
    })
    .await;
    let (p99, max) = (quantile(&mut lags, 0.99), quantile(&mut lags, 1.0));
    println!("8 workers restarted in {took:?}, {} tasks: start lag p99 {p99:?}, max {max:?}", lags.len());
    // On two cores that also start nine processes, a few wait for the machine and not for the restart.
    hold("99 % of the starts", p99, Duration::from_secs(1), Duration::from_secs(5));
    hold("the last start", max, Duration::from_secs(3), Duration::from_secs(15));
}
