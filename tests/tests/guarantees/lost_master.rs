//! One of three masters of a Redis Cluster is gone.

use std::time::{Duration, Instant};

use yadtq::{Client, TaskHandle, TaskId};
use yadtq_tests::{hold, namespace, process::Env, servers, servers::RedisCluster, tasks};

use super::{delays::assert_once, worker_with};

const WAIT: Duration = Duration::from_secs(60);
/// Not the default queue: its table and the registry never hash to the same master.
const QUEUE: &str = "jobs";

/// Sends a task with a short run, and returns how long it takes until its result is read.
async fn round_trip(client: &Client, id: TaskId) -> Duration {
    let sent = Instant::now();
    let handle = tasks::nap.call(1).id(id).queue(QUEUE).send(client).await.expect("kafka acknowledges");
    handle.wait(WAIT).await.expect("it runs");
    sent.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The one that is gone has the table of who owns the queue, and the registry of workers.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_master_stops_only_the_tasks_whose_ids_belong_to_it() {
    let mut cluster = RedisCluster::start();
    let names = std::iter::repeat_with(|| namespace("master"));
    let (namespace, gone) = names
        .map(|name| (cluster.master_of(&format!("{name}:owners:{{{name}.{QUEUE}}}")), name))
        .find(|(owners, name)| cluster.master_of(&format!("{name}:workers")) == *owners)
        .map(|(owners, name)| (name, owners))
        .expect("one of a few does");
    let is_gone =
        |id: &TaskId, cluster: &RedisCluster| cluster.master_of(&format!("{namespace}:task:{{{id}}}")) == gone;
    let ids = |cluster: &RedisCluster, which: bool, count: usize| -> Vec<TaskId> {
        std::iter::repeat_with(TaskId::new).filter(|id| is_gone(id, cluster) == which).take(count).collect()
    };
    let (kafka, redis) = (servers::kafka(), cluster.url());
    let client = Client::builder().kafka(&kafka).redis(&redis).namespace(&namespace).build().await.expect("a client");
    let env = Env::new(&kafka, &redis, &namespace).with("TEST_QUEUES", QUEUE);
    let workers = [worker_with(&env), worker_with(&env)];
    for worker in &workers {
        worker.event("worker_connected", |_| true).await;
        worker.event("partitions_assigned", |event| event["queue"] == QUEUE).await;
    }
    let mut normal = Vec::new();
    for id in ids(&cluster, false, 30) {
        normal.push(round_trip(&client, id).await);
    }
    // These run when it dies, and end while it is gone.
    let send = async |ids: Vec<TaskId>, ms: u64| -> Vec<TaskHandle<u64>> {
        let sent = client.send_many(ids.into_iter().map(|id| tasks::nap.call(ms).id(id).queue(QUEUE))).await;
        sent.into_iter().map(|handle| handle.expect("kafka acknowledges")).collect()
    };
    let running = send(ids(&cluster, false, 10), 1_500).await;
    let cut_off = send(ids(&cluster, true, 10), 1_500).await;
    let last = cut_off[9].id().as_str();
    let started = |worker: &yadtq_tests::process::Process| {
        worker.events("task_started").iter().any(|event| event["task_id"] == last)
    };
    yadtq_tests::until("all run", async || workers.iter().any(started).then_some(())).await;

    let revoked = || workers.iter().map(|worker| worker.events("partitions_revoked").len()).sum::<usize>();
    let shared_out = revoked();
    let killed = Instant::now();
    cluster.masters[gone].stop();
    let held = send(ids(&cluster, true, 50), 1).await;
    let mut meanwhile = Vec::new();
    for id in ids(&cluster, false, 60) {
        meanwhile.push(round_trip(&client, id).await);
    }
    for handle in running {
        handle.wait(WAIT).await.expect("its master is there");
    }
    // Longer than a lease, and than the others take to agree that it is gone.
    while killed.elapsed() < Duration::from_secs(8) {
        for id in ids(&cluster, false, 10) {
            meanwhile.push(round_trip(&client, id).await);
        }
    }
    let ended = workers.iter().flat_map(|worker| worker.events("task_succeeded"));
    let early = ended
        .filter(|event| event["task_id"].as_str().is_some_and(|id| is_gone(&id.parse().expect("an id"), &cluster)));
    assert_eq!(early.count(), 0, "nothing is recorded where nobody is");
    let (count, slowest) = (meanwhile.len(), *meanwhile.iter().max().expect("some"));
    let (normal, meanwhile) = (median(normal), median(meanwhile));
    println!("{count} tasks while it was gone: median {meanwhile:?}, slowest {slowest:?}; before: median {normal:?}");
    hold("a task takes longer by", meanwhile.saturating_sub(normal), Duration::from_secs(1), Duration::from_secs(4));
    assert_eq!(revoked(), shared_out, "what is owned is kept");

    let restarted = Instant::now();
    cluster.masters[gone].start_again();
    for handle in cut_off.iter().chain(&held) {
        handle.wait(WAIT).await.expect("its master is back");
    }
    println!("the rest had ended {:?} after it came back", restarted.elapsed());
    let total = 30 + 10 + 10 + 50 + count;
    assert_once(&workers, total);
    let starts: usize = workers.iter().map(|worker| worker.events("task_started").len()).sum();
    assert_eq!(starts, total, "each ran once");
}
