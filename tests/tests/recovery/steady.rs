//! A steady stream of tasks while workers crash again and again.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, MissedTickBehavior, interval};
use yadtq::TaskHandle;
use yadtq_tests::{process::Process, tasks, until};

use super::{Fleet, all_succeed, hold, now, quantile, start, times};

const PER_SECOND: u64 = 150;

/// How long the stream lasts: 20 s, unless `YADTQ_TEST_SECONDS` names another time.
fn length() -> Duration {
    Duration::from_secs(std::env::var("YADTQ_TEST_SECONDS").map_or(20, |text| text.parse().expect("a number")))
}

/// Sends 150 tasks/s of up to 0.4 s, for as long as the stream lasts.
async fn stream(fleet: &Fleet) -> Vec<(SystemTime, TaskHandle<u64>)> {
    let (end, mut sent) = (Instant::now() + length(), Vec::new());
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while Instant::now() < end {
        ticks.tick().await;
        let naps = (0..PER_SECOND / 10).map(|_| tasks::nap.call(fastrand::u64(0..400)));
        let now = now();
        for handle in fleet.client.send_many(naps).await {
            sent.push((now, handle.expect("acknowledged")));
        }
    }
    sent
}

/// From the sending of each task to its first start.
async fn start_lags(sent: Vec<(SystemTime, TaskHandle<u64>)>, workers: &[Process]) -> Vec<Duration> {
    let at: HashMap<String, SystemTime> = sent.iter().map(|(at, handle)| (handle.id().to_string(), *at)).collect();
    all_succeed(sent.into_iter().map(|(_, handle)| handle)).await;
    until("all starts are in the logs", async || {
        let starts = times(workers, "task_started");
        at.iter()
            .map(|(id, sent)| Some(starts.get(id)?.duration_since(*sent).unwrap_or_default()))
            .collect::<Option<Vec<_>>>()
    })
    .await
}

/// Four workers, of which one at a time is killed in this interval, as soon as its successor has been started.
async fn crash_loop(test: &str, interval_ms: u64, is_same: bool, promised: Duration, otherwise: Duration) {
    let fleet = Fleet::new(test).await;
    let mut workers = fleet.workers(4).await;
    let mut dead = Vec::new();
    let sent = {
        let stream = stream(&fleet);
        tokio::pin!(stream);
        loop {
            tokio::select! {
                sent = &mut stream => break sent,
                () = tokio::time::sleep(Duration::from_millis(interval_ms)) => {
                    // The one that crashes in a loop is the last; else the oldest is killed.
                    let mut victim = if is_same { workers.pop().expect("four") } else { workers.remove(0) };
                    victim.kill().await;
                    dead.push(victim);
                    workers.push(start(&fleet.env));
                }
            }
        }
    };
    let kills = dead.len();
    workers.extend(dead);
    let mut lags = start_lags(sent, &workers).await;
    let (p50, p99, max) = (quantile(&mut lags, 0.5), quantile(&mut lags, 0.99), quantile(&mut lags, 1.0));
    println!(
        "{} tasks, {kills} kills, one each {interval_ms} ms: start lag p50 {p50:?}, p99 {p99:?}, max {max:?}",
        lags.len()
    );
    hold("99 % of the starts", p99, promised, otherwise);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_four_workers_in_a_crash_loop_delays_little() {
    crash_loop("loop", 2_000, true, Duration::from_secs(3), Duration::from_millis(5_500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_four_workers_killed_every_second_does_not_stop_the_work() {
    crash_loop("everysecond", 1_000, false, Duration::from_secs(8), Duration::from_secs(20)).await;
}
