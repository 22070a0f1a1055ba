//! Limits hold over all workers, whatever dies, and delay no other task.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use yadtq::{Error, TaskHandle};
use yadtq_tests::{hold, now_ms, process::Process, tasks, until};

use super::{Bench, worker_with};

const WAIT: Duration = Duration::from_secs(90);
/// How far a start may be from its scheduled time. The guide says 0.25 s on the way to a worker, and 0.25 s there.
const SLACK: Duration = Duration::from_millis(500);

/// Three workers that own partitions, and fire delayed tasks.
async fn three(bench: &Bench, slots: &str) -> [Process; 3] {
    let env = bench.env.clone().with("TEST_SLOTS", slots);
    let workers = [(); 3].map(|()| worker_with(&env));
    for worker in &workers {
        worker.event("partitions_assigned", |_| true).await;
        worker.event("scheduler_ready", |_| true).await;
    }
    workers
}

/// Times of the events with this name, by task, over all workers.
fn times(workers: &[Process], event: &str, task: &str) -> HashMap<String, Vec<SystemTime>> {
    let mut times = HashMap::<String, Vec<SystemTime>>::new();
    for event in workers.iter().flat_map(|worker| worker.events(event)).filter(|event| event["task"] == task) {
        let time = humantime::parse_rfc3339(event["timestamp"].as_str().expect("a time")).expect("a time");
        times.entry(event["task_id"].as_str().expect("an id").to_owned()).or_default().push(time);
    }
    times
}

fn sorted<'a>(times: impl IntoIterator<Item = &'a Vec<SystemTime>>) -> Vec<SystemTime> {
    let mut all: Vec<_> = times.into_iter().flatten().copied().collect();
    all.sort_unstable();
    all
}

/// Checks that no interval has more starts than burst and rate allow. Returns by how many seconds the worst interval is
/// ahead of the rate.
fn assert_within(starts: &[SystemTime], per_second: f64, burst: f64) -> f64 {
    let mut worst = f64::MIN;
    for (i, first) in starts.iter().enumerate() {
        for (last, count) in starts[i..].iter().zip(1_u32..) {
            let window = last.duration_since(*first).expect("they are sorted").as_secs_f64();
            worst = worst.max((f64::from(count) - burst) / per_second - window);
        }
    }
    hold("the starts are ahead of the rate, in s", worst, SLACK.as_secs_f64(), 4.0 * SLACK.as_secs_f64());
    worst
}

async fn all<T: serde::de::DeserializeOwned>(handles: Vec<Result<TaskHandle<T>, Error>>) -> Vec<String> {
    let mut ids = Vec::new();
    for handle in handles {
        let handle = handle.expect("acknowledged");
        handle.wait(WAIT).await.expect("it succeeds");
        ids.push(handle.id().to_string());
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_over_all_workers_and_delays_no_other_task() {
    const LIMITED: u64 = 300;
    let bench = Bench::new("rate").await;
    let mut workers = three(&bench, "4").await;
    let limited = bench.client.send_many((0..LIMITED).map(|n| tasks::paced.call(n))).await;
    let others = bench.client.send_many((0..200).map(|_| tasks::nap.call(1))).await;
    all(others).await;
    let started = sorted(times(&workers, "task_started", "paced").values()).len();
    assert!(started < 250, "the others do not wait behind the limited ones, of which {started} have started");
    // The rest waits in Kafka now, partly in this worker's share of the scheduler.
    workers[0].kill().await;
    let ids: HashSet<_> = all(limited).await.into_iter().collect();
    let (starts, ends) = (times(&workers, "task_started", "paced"), times(&workers, "task_succeeded", "paced"));
    assert_eq!(ids.len(), 300);
    assert!(ends.values().all(|ends| ends.len() == 1), "one was completed twice");
    let starts = sorted(starts.values());
    assert!(starts.len() >= 300);
    let ahead = assert_within(&starts, 50.0, 5.0);
    let took = starts[starts.len() - 1].duration_since(starts[0]).expect("they are sorted");
    let parked: usize = workers.iter().map(|worker| worker.events("task_parked").len()).sum();
    println!("300 at 50/s, one of three workers killed: {took:?}, at most {ahead:.3} s ahead, parked {parked} times");
    assert!(took > Duration::from_secs(5), "{took:?} is too fast");
    // Once each, and again after the death: what comes late then, takes the turns of others.
    hold("tasks are parked", parked, 2 * 300, 5 * 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_keys_do_not_affect_each_other() {
    let bench = Bench::new("ratekey").await;
    let workers = three(&bench, "4").await;
    let call = |user: &str, n| tasks::per_user.call(n, user.to_owned());
    let (a, b) = (
        bench.client.send_many((0..100).map(|n| call("ada", n))).await,
        bench.client.send_many((0..20).map(|n| call("bob", n))).await,
    );
    let (b, a) = (all(b).await, all(a).await);
    let starts = times(&workers, "task_started", "per_user");
    let of = |ids: &[String]| sorted(ids.iter().map(|id| &starts[id]));
    let (a, b) = (of(&a), of(&b));
    assert_eq!((a.len(), b.len()), (100, 20));
    assert_within(&a, 20.0, 1.0);
    assert_within(&b, 20.0, 1.0);
    let took = |starts: &[SystemTime]| starts[starts.len() - 1].duration_since(starts[0]).expect("sorted");
    assert!(took(&a) > Duration::from_secs(4), "ada has 5 s of work: {:?}", took(&a));
    assert!(b[b.len() - 1] < a[a.len() - 1] - Duration::from_secs(1), "bob has 1 s of work, and does not wait for ada");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_tasks_run_at_once_than_there_are_permits() {
    let bench = Bench::new("permits").await;
    let mut workers = three(&bench, "8").await;
    let handles = bench.client.send_many((0..40).map(|_| tasks::few.call(300))).await;
    let others = bench.client.send_many((0..100).map(|_| tasks::nap.call(1))).await;
    workers[0].event("task_started", |event| event["task"] == "few").await;
    workers[0].kill().await;
    let killed = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms());
    all(others).await;
    all(handles).await;
    let mut changes = Vec::new();
    for worker in &workers {
        let worker = std::slice::from_ref(worker);
        let ends = times(worker, "task_succeeded", "few");
        for (id, starts) in times(worker, "task_started", "few") {
            let end = ends.get(&id).map_or(killed, |ends| ends[0]);
            changes.extend(starts.into_iter().map(|start| (start, 1)));
            changes.push((end, -1));
        }
    }
    // In the same microsecond, ends come before starts.
    changes.sort_unstable();
    let mut running = 0;
    let mut most = 0;
    for (_, change) in changes {
        running += change;
        most = most.max(running);
    }
    assert_eq!(most, 4, "at most four at once, and as many as that");
    until("all permits are free again", async || {
        let mut redis = bench.redis().await;
        let key = format!("{}:places:{{task:few}}", bench.namespace);
        // What the killed worker had is free when its lease has ended.
        let lease_after = format!("({}", now_ms());
        let mut running = redis::cmd("ZRANGEBYSCORE");
        let runs: Vec<String> = running.arg(&key).arg(lease_after).arg("+inf").query_async(&mut redis).await.ok()?;
        runs.iter().all(|run| run == "line" || run == "clock").then_some(())
    })
    .await;
}
