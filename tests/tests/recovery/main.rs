//! How soon work goes on when workers die, hang, come and go, or lose a server. The tests measure times, so they are in a binary of
//! their own, and run one after the other.

mod cut_off;
mod idle;
mod killed;
mod moving;
mod steady;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, SystemTime},
};

use tokio::sync::{Mutex, MutexGuard};
use yadtq::{Client, TaskHandle};
use yadtq_tests::{
    hold, namespace, now_ms,
    process::{Env, Process},
    servers, tasks,
};

/// Longest wait for a task's result, which no test depends on.
const WAIT: Duration = Duration::from_secs(60);

static ALONE: Mutex<()> = Mutex::const_new(());

/// The servers, namespace and client of one test, which runs while no other does.
struct Fleet {
    env: Env,
    client: Client,
    _alone: MutexGuard<'static, ()>,
}

impl Fleet {
    async fn new(test: &str) -> Self {
        Self::on(test, &servers::redis()).await
    }

    async fn on(test: &str, redis: &str) -> Self {
        Self::with(test, &servers::kafka(), redis).await
    }

    async fn with(test: &str, kafka: &str, redis: &str) -> Self {
        let (alone, namespace) = (ALONE.lock().await, namespace(test));
        let client = Client::builder().kafka(kafka).redis(redis).namespace(&namespace);
        let client = client.build().await.expect("a client");
        Self { env: Env::new(kafka, redis, &namespace), client, _alone: alone }
    }

    /// Starts a worker process, and waits until it reads partitions.
    async fn worker(&self) -> Process {
        let worker = start(&self.env);
        worker.event("partitions_assigned", |_| true).await;
        worker
    }

    async fn workers(&self, count: usize) -> Vec<Process> {
        let workers: Vec<_> = (0..count).map(|_| start(&self.env)).collect();
        for worker in &workers {
            worker.event("partitions_assigned", |_| true).await;
        }
        workers
    }

    /// Sends naps of this many ms.
    async fn naps(&self, count: usize, ms: u64) -> Vec<TaskHandle<u64>> {
        let sent = self.client.send_many((0..count).map(|_| tasks::nap.call(ms))).await;
        sent.into_iter().map(|handle| handle.expect("acknowledged")).collect()
    }
}

fn start(env: &Env) -> Process {
    Process::start(Path::new(env!("CARGO_BIN_EXE_test-worker")), &[], env)
}

async fn all_succeed(handles: impl IntoIterator<Item = TaskHandle<u64>>) {
    for handle in handles {
        handle.wait(WAIT).await.expect("every task completes");
    }
}

/// The time now, on the clock that the log goes by.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms())
}

/// The time of an event.
fn time_of(event: &serde_json::Value) -> SystemTime {
    humantime::parse_rfc3339(event["timestamp"].as_str().expect("a time")).expect("a time")
}

/// The tasks of this event in the log of a worker, and the first time of each.
fn times<'a>(workers: impl IntoIterator<Item = &'a Process>, event: &str) -> HashMap<String, SystemTime> {
    let mut times = HashMap::new();
    for event in workers.into_iter().flat_map(|worker| worker.events(event)) {
        let (id, time) = (event["task_id"].as_str().expect("an id").to_owned(), time_of(&event));
        times.entry(id).and_modify(|first: &mut SystemTime| *first = time.min(*first)).or_insert(time);
    }
    times
}

/// The tasks that a worker has started and not ended.
fn running(worker: &Process) -> HashSet<String> {
    let ended = times([worker], "task_succeeded");
    times([worker], "task_started").into_keys().filter(|id| !ended.contains_key(id)).collect()
}

fn seconds(times: &[Duration]) -> String {
    times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect::<Vec<_>>().join(" ")
}

/// The time that this part of all times (0 to 1) does not exceed.
fn quantile(times: &mut [Duration], part: f64) -> Duration {
    assert!(!times.is_empty());
    times.sort_unstable();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
    let index = ((times.len() - 1) as f64 * part).ceil() as usize;
    times[index]
}
