//! What open handles cost: a ping each 10 ms, first alone, then while many other handles are awaited, which the client looks up
//! every 30 s in case their notice was lost.
//!
//! `cargo bench -p yadtq-benches --bench handles -- [HANDLES SECONDS]` (100,000 and 120)

use std::{
    env,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};
use yadtq::{Client, TaskId, Worker};
use yadtq_benches::memory_kb;

const PING_INTERVAL: Duration = Duration::from_millis(10);
/// Handles that are sent at once.
const BATCH: usize = 10_000;

#[yadtq::task]
async fn ping() {}

#[yadtq::task]
async fn far_off() {}

#[tokio::main]
async fn main() {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |at: usize, default: usize| args.get(at).and_then(|arg| arg.parse().ok()).unwrap_or(default);
    let (handles, seconds) = (number(0, 100_000), number(1, 120));
    let namespace = format!("bench-{}", &TaskId::new().as_str()[24..]);
    let client = Client::builder().namespace(&namespace).build().await.expect("the environment is right");
    let worker = Worker::builder().client(&client).register((ping, far_off)).start().await.expect("a worker");
    pings(&client, 2).await;
    report("no other handle", pings(&client, seconds / 2).await);

    let idle = memory_kb("VmRSS:");
    let mut waiting = Vec::new();
    for first in (0..handles).step_by(BATCH) {
        let calls = (first..handles.min(first + BATCH)).map(|_| far_off.call().countdown(Duration::from_secs(86_400)));
        for handle in client.send_many(calls).await {
            waiting.push(tokio::spawn(async move { handle.expect("acknowledged").await }));
        }
    }
    println!("{handles} handles take {} MB", memory_kb("VmRSS:").saturating_sub(idle) / 1_024);
    report(&format!("{handles} others"), pings(&client, seconds).await);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    worker.stop().await.expect("it stops");
}

/// The times from the call to the awaited end, and when each was sent.
async fn pings(client: &Client, seconds: usize) -> Vec<(Duration, Duration)> {
    let (begun, mut sent) = (Instant::now(), Vec::new());
    let mut ticks = interval(PING_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while begun.elapsed() < Duration::from_secs(seconds as u64) {
        ticks.tick().await;
        let client = client.clone();
        sent.push(tokio::spawn(async move {
            let (at, start) = (begun.elapsed(), Instant::now());
            ping.call().send(&client).await.expect("acknowledged").await.expect("it runs");
            (at, start.elapsed())
        }));
    }
    join_all(sent).await.into_iter().map(|sample| sample.expect("it ends")).collect()
}

fn report(name: &str, pings: Vec<(Duration, Duration)>) {
    let p = |part: f64, of: &mut Vec<Duration>| {
        of.sort_unstable();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let index = ((of.len() - 1) as f64 * part) as usize;
        of[index]
    };
    let mut all: Vec<_> = pings.iter().map(|(_, took)| *took).collect();
    let seconds = pings.iter().map(|(at, _)| at.as_secs()).max().unwrap_or_default();
    let mut per_second: Vec<Duration> = (0..=seconds)
        .filter_map(|second| pings.iter().filter(|(at, _)| at.as_secs() == second).map(|(_, took)| *took).max())
        .collect();
    println!(
        "{name}: {} pings, p50 {:?}, p99 {:?}, max {:?}; the slowest of each second: median {:?}, p90 {:?}",
        all.len(),
        p(0.5, &mut all),
        p(0.99, &mut all),
        p(1.0, &mut all),
        p(0.5, &mut per_second),
        p(0.9, &mut per_second),
    );
}
